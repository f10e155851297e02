"""The split, the order of an epoch, and the share of each rank."""

import numpy as np
import pytest
import torch
from conftest import recipe

from catalogs.errors import InputRefused
from catalogs.object_id import hash_ids
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from catalogs.store.resampling import resample
from catalogs.store.spectra import normalise, pool
from mmae import export, train
from mmae.bundles.bundle import open_bundle
from mmae.models import checkpoint
from mmae.models.himes2025 import Himes2025Config
from mmae.models.masking import random_mask
from mmae.models.mmae_config import ModelConfig
from mmae.training.batches import batches, epoch_order, steps_per_epoch
from mmae.training.data import TEST, TRAIN, VALIDATION, TrainingSet, split


def test_hash_is_splitmix64():
    # first output of the reference implementation of SplitMix64, seeded with 0 and with 1234567
    assert hash_ids(np.array([0, 1234567])).tolist() == [0xE220A8397B1DCDAF, 6457827717110365317]


def test_split_is_70_15_15_and_depends_on_the_id_alone():
    ids = np.arange(39_627_000_000_000_000, 39_627_000_000_000_000 + 100_000)
    names = split(ids)
    for name, share in ((TRAIN, 0.70), (VALIDATION, 0.15), (TEST, 0.15)):
        # five sigma of a binomial of 100,000
        assert abs(np.mean(names == name) - share) < 5 * np.sqrt(share * (1 - share) / 1e5)
    shuffled = np.random.default_rng(0).permutation(len(ids))
    assert (split(ids[shuffled]) == names[shuffled]).all()


def test_epoch_order_has_every_row_once_and_reads_block_by_block():
    rows = np.flatnonzero(np.random.default_rng(0).random(20_000) < 0.7)
    first, second = (epoch_order(rows, rows // 256, 512, seed=0, epoch=epoch) for epoch in (0, 1))
    assert (np.sort(first) == rows).all()
    assert not (first == second).all()
    # 2,048 rows at 179 per block lie in 12 blocks, and in two more that are shared with neighbouring segments
    assert max(len(np.unique(first[k : k + 2048] // 256)) for k in range(0, len(first), 2048)) <= 14


def test_a_sample_of_a_split_is_not_the_head_of_the_store(survey):
    """Calibration and statistics of a store in the order of sky or program would be those of a part of it."""
    data = TrainingSet(survey / "train.zarr", Himes2025Config())
    rows = data.rows(TRAIN)
    half = data.sample(TRAIN, len(rows) // 2)
    assert len(set(half) & set(rows)) == len(rows) // 2
    assert (data.sample(TRAIN, 10) == half[:10]).all()
    assert (np.sort(data.sample(TRAIN, 10**6)) == rows).all()
    in_first_half = np.mean(half <= np.median(rows))
    assert abs(in_first_half - 0.5) < 5 * 0.5 / np.sqrt(len(half))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_each_batch_without_loss_or_repetition(survey, ranks):
    data = TrainingSet(survey / "train.zarr", Himes2025Config())
    rows = data.rows(TRAIN)
    order = epoch_order(rows, data.block[rows], 32, seed=0, epoch=0)
    steps = steps_per_epoch(len(rows), 32, ranks)
    seen = [list(batches(data, order, 32, rank, ranks)) for rank in range(ranks)]
    assert {len(share) for share in seen} == {steps}
    for step in range(steps):
        of_all_ranks = torch.cat([share[step].redshift for share in seen])
        expected = data.redshift[np.sort(order[step * 32 : (step + 1) * 32])].astype(np.float32)
        assert (of_all_ranks.numpy() == expected).all()


def test_an_epoch_resumes_from_any_batch(survey):
    data = TrainingSet(survey / "train.zarr", Himes2025Config())
    rows = data.rows(TRAIN)
    order = epoch_order(rows, data.block[rows], 16, seed=0, epoch=0)
    complete = list(batches(data, order, 16, 0, 1))
    for first in (1, 8, 9):
        rest = list(batches(data, order, 16, 0, 1, first))
        assert len(rest) == len(complete) - first
        assert all(torch.equal(a.image, b.image) for a, b in zip(rest, complete[first:], strict=True))


def test_a_batch_holds_the_rows_of_the_store(survey):
    data = TrainingSet(survey / "train.zarr", Himes2025Config())
    rows = np.array([200, 3, 64, 130])
    batch = data.read(rows)
    for k, row in enumerate(rows):
        assert (batch.image[k].numpy() == data.store.array("image")[row]).all()
        flux, ivar = data.store.array("flux")[row], data.store.array("ivar")[row]
        np.testing.assert_allclose(batch.spectrum[k], pool(normalise(flux, ivar)), rtol=1e-5, atol=1e-6)


@pytest.fixture
def unusable(survey, draw_training, tmp_path):
    """A store with an image of NaN, one with a band of zeros, and a damaged chunk; their rows."""
    image, _ = open_store(survey / "train.zarr").images(0, 256)
    image[10], image[100, 2], image[101] = np.nan, 0, np.nan
    redshift = TrainingSet(survey / "train.zarr", Himes2025Config()).redshift.copy()
    redshift[101] = np.nan  # a galaxy that would be left out anyway
    path = draw_training(tmp_path / "train.zarr", np.arange(256), image=image, redshift=redshift)
    shard = path / "image/c/3/0/0/0"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    return path, {10, 100, *range(192, 256)}


def test_galaxies_whose_images_inference_rejects_are_of_no_split(survey, unusable):
    path, rows = unusable
    whole, data = (
        TrainingSet(store, Himes2025Config(), complete=True) for store in (survey / "train.zarr", path)
    )
    for name in (TRAIN, VALIDATION, TEST):
        expected = set(whole.rows(name)) - rows - {101}
        assert set(data.rows(name)) == expected
        assert set(data.sample(name, 256)) == expected
        assert data.read(data.rows(name)).image.flatten(2).any(2).all()
    assert whole.left_out == ""
    assert data.left_out == (
        "left out: 66 objects whose images cannot be used (DAMAGED 64, FEW_BANDS 1, NO_DATA 1)"
    )


def test_training_and_export_say_what_they_leave_out(unusable, tmp_path, capsys):
    path, rows = unusable
    train.main(recipe("himes2025", path, tmp_path / "run", epochs=1))
    assert "left out: 66 objects" in capsys.readouterr().out
    export.main(export.Export(tmp_path / "run"))
    assert "left out: 66 objects" in capsys.readouterr().out
    bundle = open_bundle(tmp_path / "run/bundle")
    ids = open_store(path).column("object_id")[sorted(rows)]
    assert not np.isin(ids, bundle.roles()["object_id"]).any()
    trained_on = TrainingSet(path, Himes2025Config(), complete=True).rows(TRAIN)
    assert bundle.card["training_data"]["galaxies"] == len(trained_on)


def test_damage_done_after_the_store_was_opened_is_refused(unusable):
    path, _ = unusable
    data = TrainingSet(path, Himes2025Config())
    shard = path / "image/c/0/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-1])
    data.store.verified.clear()
    with pytest.raises(InputRefused, match="images of rows 0 to 256 are damaged"):
        data.read(data.rows(TRAIN)[:5])


def test_a_store_of_other_pixels_is_brought_to_those_of_a_model(survey, tmp_path):
    """Training takes a store as it is; a model that was trained on another takes it at its own scales."""
    source = TrainingSet(survey / "train.zarr", Himes2025Config())
    pixels = source.store.images(0, 256)[0]
    pixels = resample(pixels, 0.2 / 0.168)[..., 6:59, 6:59] * np.float32(10 ** (0.4 * 4.4))
    names = ("object_id", "ra", "dec", "flux", "ivar", "redshift")
    columns = {name: source.store.column(name) for name in names} | {"image": pixels}
    path = tmp_path / "coarse.zarr"
    cutouts.write(
        path,
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=256,
        survey="mock",
        size=53,
        pixel_scale=0.2,
        zero_point=31.4,
        wave=source.store.wave,
    )
    rows = source.rows(TRAIN)
    own = TrainingSet(path, Himes2025Config())
    assert (own.input.pixel_scale, own.input.zero_point) == (0.2, 31.4)
    np.testing.assert_array_equal(own.read(rows).image[..., 6:59, 6:59].numpy(), pixels[rows])
    for_model = TrainingSet(path, Himes2025Config(), {"pixel_scale": 0.168, "zero_point": 27.0})
    assert (for_model.rows(TRAIN) == rows).all()
    difference = (for_model.read(rows).image - source.read(rows).image)[..., 8:56, 8:56]
    assert difference.std() < 0.05 * source.read(rows).image[..., 8:56, 8:56].std()
    with pytest.raises(InputRefused, match=r"the model was trained at 0\.5"):
        TrainingSet(path, Himes2025Config(), {"pixel_scale": 0.5, "zero_point": 27.0})


def test_a_mask_hides_the_same_number_of_tokens_in_every_galaxy():
    mask = random_mask(100, 64, 0.75)
    assert (mask.sum(1) == 48).all()
    mask = random_mask(10_000, 64, 0.75)
    assert abs(mask.float().mean(0) - 0.75).max() < 5 * (0.75 * 0.25 / 10_000) ** 0.5  # any token alike


NO_GALAXY = {
    "no data in the band hsc_z": np.s_[:],
    "no two galaxies with data in all of its bands": np.s_[1:],
}


@pytest.mark.parametrize(("sentence", "rows"), NO_GALAXY.items(), ids=NO_GALAXY)
def test_a_band_that_no_galaxy_has_is_no_band_to_train_on(survey, draw_training, tmp_path, rows, sentence):
    image, _ = open_store(survey / "train.zarr").images(0, 256)
    image[rows, 3] = 0
    path = draw_training(tmp_path / "train.zarr", np.arange(256), image=image)
    with pytest.raises(InputRefused, match=sentence):
        train.main(recipe("mmae", path, tmp_path / "run", epochs=1))


def test_every_galaxy_with_an_image_is_trained_on_and_those_with_a_redshift_are_validated(mixed):
    data, complete = (TrainingSet(mixed, ModelConfig(), complete=complete) for complete in (False, True))
    rows = np.arange(256)
    no_redshift, no_spectrum = rows % 3 == 0, (rows % 3 == 1) | (rows % 6 == 3)
    train_split = split(data.object_id) == TRAIN
    assert set(data.rows(TRAIN)) == set(rows[train_split])
    assert set(complete.rows(TRAIN)) == set(rows[train_split & ~no_redshift & ~no_spectrum])
    for name in (VALIDATION, TEST):
        assert set(data.rows(name)) == set(rows[(split(data.object_id) == name) & ~no_redshift])
    known = data.known(rows)
    assert (known.spectrum.numpy() == ~no_spectrum).all()
    assert (known.redshift.numpy() == ~no_redshift).all()
    number = (train_split & no_redshift & no_spectrum).sum()
    assert data.kinds.endswith(f"{number} with neither")
    batch = data.read(rows)
    assert (batch.redshift.isnan().numpy() == no_redshift).all()
    assert (batch.spectrum[no_spectrum] == 0).all()


def test_nines_in_the_place_of_a_redshift_are_none_and_velocities_are_refused(draw_training, tmp_path):
    redshift = np.full(256, 0.3)
    redshift[:5] = np.nan, -9.9999, 9.9999, 99, -99
    path = draw_training(tmp_path / "nines.zarr", np.arange(256), redshift=redshift)
    assert (np.isnan(TrainingSet(path, ModelConfig()).redshift) == (np.arange(256) < 5)).all()
    redshift[7] = 21_000
    path = draw_training(tmp_path / "velocities.zarr", np.arange(256), redshift=redshift)
    with pytest.raises(InputRefused, match="a redshift is 21000, as no galaxy has"):
        TrainingSet(path, ModelConfig())


def test_a_store_of_redshifts_alone_is_trained_on(survey, tmp_path, capsys):
    source, path = open_store(survey / "train.zarr"), tmp_path / "redshifts.zarr"
    columns = {name: source.column(name) for name in ("object_id", "ra", "dec", "redshift")}
    columns["image"] = source.images(0, 256)[0]
    cutouts.write(
        path,
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=256,
        survey="mock",
        shard_rows=64,
        known=("redshift",),
    )
    train.main(recipe("mmae", path, tmp_path / "run", epochs=1))
    assert "with a redshift alone" in capsys.readouterr().out
    export.main(export.Export(tmp_path / "run"))
    with pytest.raises(InputRefused, match="lacks spectra"):
        train.main(recipe("himes2025", path, tmp_path / "other", epochs=1))


def test_a_store_may_say_how_probably_a_redshift_is_right(survey, draw_training, tmp_path):
    weight = np.ones(256, np.float32)
    weight[:3] = 0.25, np.nan, 0
    path = draw_training(tmp_path / "weighted.zarr", np.arange(256), redshift_weight=weight)
    right = TrainingSet(path, ModelConfig()).read(np.array([0, 1, 2, 200])).right
    assert right.tolist() == [0.25, 1, 0, 1]
    assert (TrainingSet(survey / "train.zarr", ModelConfig()).read(np.arange(5)).right == 1).all()
    weight[7] = 95
    percent = draw_training(tmp_path / "percent.zarr", np.arange(256), redshift_weight=weight)
    with pytest.raises(InputRefused, match="has a redshift_weight of 95: write the probability"):
        TrainingSet(percent, ModelConfig())
    config = recipe("mmae", path, tmp_path / "run", wrong=0.1, epochs=1)
    train.main(config)  # to its end, without a loss that is not finite
    assert checkpoint.load(config.out / checkpoint.BEST)["step"] > 0
