"""Training on several stores: of several surveys, with labels or without, of the same galaxies in part."""

import dataclasses
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from astropy.table import Table
from conftest import TINY, recipe
from infer_runs import command

from catalogs.bands import HSC, united
from catalogs.errors import InputRefused, UsageError
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from catalogs.store.spectra import WAVE
from mmae import export, flags, train
from mmae.bundles.bundle import CHOSEN_BY, TRAINED_ON, open_bundle
from mmae.models import checkpoint
from mmae.models.batch import check_labels
from mmae.training.batches import epoch_rows
from mmae.training.data import TEST, TRAIN, VALIDATION, TrainingSet, split, splits
from mmae.training.drawn_masks import step_masks
from mmae.training.recipe import Train

DECAM = ("decam_g", "decam_r", "decam_z")


@pytest.fixture(scope="module")
def stores(survey, draw_training, tmp_path_factory):
    """HSC with spectra; half of its galaxies in three bands of DECam, with redshifts; HSC images alone."""
    folder, source = tmp_path_factory.mktemp("stores"), open_store(survey / "train.zarr")
    position = {"ra": np.linspace(150, 152, 256), "dec": np.linspace(1, 3, 256)}
    draw_training(folder / "hsc.zarr", np.arange(256), **position)
    image = source.images(0, 256, ("hsc_g", "hsc_r", "hsc_z"))[0] * np.float32(10**-1.8)
    columns = {"object_id": source.column("object_id") + 10**6, "image": image, **position}
    columns["redshift"] = source.column("redshift")
    columns["ra"] = columns["ra"] + np.where(np.arange(256) % 2, 40, 0.9 / 3600)  # half are of another field
    cutouts.write(
        folder / "decam.zarr",
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=256,
        survey="DECam",
        bands=DECAM,
        zero_point=22.5,
        shard_rows=128,
        known=("redshift",),
    )
    columns = {
        "object_id": np.arange(128) + 2 * 10**6,
        "ra": np.linspace(0, 9, 128),
        "dec": np.full(128, 60.0),
    }
    columns["image"] = source.images(0, 128)[0] * np.float32(0.9)
    cutouts.write(
        folder / "images.zarr",
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=128,
        survey="HSC",
        shard_rows=64,
        known=(),
    )
    return folder / "hsc.zarr", folder / "decam.zarr", folder / "images.zarr"


@pytest.fixture(scope="module")
def model(stores):
    return dataclasses.replace(TINY["mmae"], bands=united([open_store(path).bands for path in stores]))


@pytest.fixture(scope="module")
def run(stores, tmp_path_factory):
    config = recipe("mmae", stores, tmp_path_factory.mktemp("run"), schedule="constant")
    train.main(config)
    return config.out


def test_a_galaxy_of_two_stores_is_in_the_split_of_the_first(stores):
    first, second = (open_store(path) for path in stores[:2])
    of_first, of_second = np.split(splits([first, second]), [256])
    assert (of_first == split(first.column("object_id"))).all()  # the paper's
    assert (of_second[::2] == of_first[::2]).all()
    assert (of_second[1::2] == split(second.column("object_id"))[1::2]).all()
    assert (of_second[1::2] != of_first[1::2]).any()
    reverse = splits([second, first])
    assert (reverse[:256] == split(second.column("object_id"))).all()


def test_rows_of_all_stores_are_those_of_each(stores, model):
    """In the unit of the first, with bands that a store lacks absent."""
    data = TrainingSet(stores, model)
    assert data.input.bands == ("g", "r", "i", "z", "y")
    rows = np.array([600, 3, 256, 255, 511, 300, 512])
    batch = data.read(rows)
    for k, (path, row, factor) in enumerate(
        zip(
            [stores[2], stores[0], stores[1], stores[0], stores[1], stores[1], stores[2]],
            [88, 3, 0, 255, 255, 44, 0],
            [1, 1, 10**1.8, 1, 10**1.8, 10**1.8, 1],
            strict=True,
        )
    ):
        pixels = open_store(path).array("image")[row] * np.float32(factor)
        planes = [0, 1, 3] if path == stores[1] else [0, 1, 2, 3, 4]
        np.testing.assert_allclose(batch.image[k, planes], pixels, rtol=1e-6)
        assert batch.image[k].isfinite().any(2).any(1).sum() == len(planes)
        assert batch.redshift[k].isfinite() == (path != stores[2])
        assert bool(batch.spectrum[k].any()) == (path == stores[0])
    kinds = {kind: int((data.kind(np.arange(640)) == kind).sum()) for kind in range(6)}
    assert kinds == {0: 256, 1: 0, 2: 256, 3: 0, 4: 0, 5: 128}
    assert set(data.rows(VALIDATION)) | set(data.rows(TEST)) <= set(range(512))  # those with redshifts
    rows = np.array([0, 300, 600])
    assert data.times(rows, (0.5, 2, 1), 3.0).tolist() == [0.5, 2, 3]
    assert data.times(rows, (), 0.2).tolist() == [1, 1, 0.2]
    data.redshift[:] = np.nan
    assert data.times(rows, (), 0.2).tolist() == [1, 0.2, 0.2]  # a spectrum alone teaches, too


def test_an_epoch_sees_of_every_kind_its_share():
    rows, kind = np.arange(100) * 2, np.repeat([0, 1, 2], [50, 40, 10])
    times = np.array([0.5, 1, 2.5])[kind]
    epochs = [epoch_rows(rows, times, kind, seed=0, epoch=epoch) for epoch in range(20)]
    for seen in epochs:
        numbers = np.bincount(kind[seen // 2])
        assert numbers.tolist() == [25, 40, 25]
        assert (np.unique(seen[kind[seen // 2] == 0], return_counts=True)[1] == 1).all()
        assert set(np.unique(seen[kind[seen // 2] == 2], return_counts=True)[1]) == {2, 3}
    assert (epochs[0] != epochs[1]).any()
    assert (epoch_rows(rows, times, kind, seed=0, epoch=7) == epochs[7]).all()
    assert set(np.concatenate(epochs)) == set(rows)  # none is never seen
    assert epoch_rows(rows, np.ones(100), kind, seed=0, epoch=3) is rows


def test_a_run_on_several_stores_goes_on_as_if_never_stopped(stores, run, tmp_path):
    config = recipe("mmae", stores, tmp_path / "run", schedule="constant", epochs=1)
    train.main(config)
    train.main(dataclasses.replace(config, epochs=2))
    once, twice = (checkpoint.load(checkpoint.newest(folder)) for folder in (run, tmp_path / "run"))
    for name, weights in once["model"].items():
        assert torch.equal(twice["model"][name], weights), name
    other = dataclasses.replace(config, data=stores[:2], epochs=3)
    with pytest.raises(UsageError, match=r"begun on other data than .*decam\.zarr"):
        train.main(other)


def test_its_bundle_knows_the_galaxies_of_all_and_takes_tiles_of_any(stores, run, survey, tmp_path, capsys):
    export.main(export.Export(run, tmp_path / "bundle"))
    bundle = open_bundle(tmp_path / "bundle")
    card, roles = bundle.card["training_data"], bundle.roles()
    assert [store["survey"] for store in card["stores"]] == ["mock", "DECam", "HSC"]
    assert card["survey"] == "mock, DECam, HSC"
    data = TrainingSet(stores, dataclasses.replace(TINY["mmae"], bands=bundle.input.bands))
    for role, name in ((TRAINED_ON, TRAIN), (CHOSEN_BY, VALIDATION)):
        expected = data.object_id[data.usable & (data.splits == name)]
        assert sorted(roles["object_id"][roles["role"] == role]) == sorted(expected)
    for tile, said in ((stores[1], "takes decam_g for g"), (survey / "rubin_tile.zarr", "takes hsc_g for g")):
        path = shutil.copytree(tile, tmp_path / tile.name)
        shutil.copy(f"{tile}.manifest.json", tmp_path)
        done = subprocess.run(command(path, tmp_path / "bundle"), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert said in done.stdout
        catalogue = Table.read(path.with_suffix(".photoz.fits"), hdu=1)
        assert np.isfinite(catalogue["PHOTOZ_BEST"]).all()
        assert set(catalogue["NBANDS_USED"]) == {3 if tile == stores[1] else 5}


def test_two_of_the_bands_of_a_galaxys_own_survey_are_left(stores, model):
    data, config = (
        TrainingSet(stores, model),
        recipe("mmae", stores, Path("run"), model=model, band_dropout=1.0),
    )
    rows = np.arange(len(data.object_id))
    drawn = step_masks(len(rows), config, 0)
    masks = drawn.of(data.known(rows))
    own = torch.from_numpy(data.has_bands)
    assert set(own.sum(1).tolist()) == {3, 5}
    assert not (masks.bands & ~drawn.bands).any()
    kept = (masks.bands == drawn.bands).all(1)
    assert (((own & ~drawn.bands).sum(1) >= 2) == kept).all()
    assert ((own & ~masks.bands).sum(1) >= 2).all()
    assert 0 < kept.sum() < len(kept)


def test_what_cannot_be_one_training_set_is_refused(stores, draw_training, tmp_path):
    names = " ".join(map(str, stores))
    config = flags.parse(Train, [*names.split(), "--shares", "1", "0.5", "1"], "mmae train")
    assert (config.data, config.shares) == (stores, (1.0, 0.5, 1.0))
    toml = tmp_path / "train.toml"
    toml.write_text(f"data = {list(map(str, stores))}\nshares = [1, 2, 3]\n")
    assert flags.parse(Train, ["--config", str(toml)], "mmae train").data == stores
    with pytest.raises(UsageError, match="one number a store: 3"):
        dataclasses.replace(config, shares=(1.0, 2.0))
    with pytest.raises(UsageError, match="named twice"):
        Train((stores[0], Path(stores[0]))).check_data()
    out = recipe("mmae", (stores[2],), tmp_path / "run")
    with pytest.raises(InputRefused, match="lacks spectra and redshifts"):
        train.main(out)
    assert not out.out.exists()


def test_an_epoch_without_a_step_is_refused(survey, tmp_path):
    config = recipe("mmae", survey / "train.zarr", tmp_path / "run", shares=(0.001,))
    with pytest.raises(UsageError, match="would see 0 galaxies, too few for a step of 1 ranks"):
        train.main(config)


def test_bands_of_one_filter_become_one():
    assert united([HSC]) == HSC
    assert united([HSC[::-1]]) == HSC[::-1]  # a single store stays as it is
    assert united([HSC[:2], HSC[3:]]) == (*HSC[:2], *HSC[3:])
    assert united([HSC, ("lsst_u", "lsst_g"), DECAM]) == ("u", "g", "r", "i", "z", "y")
    assert united([HSC, ("wise_w1",)]) == (*HSC, "wise_w1")
    assert united([("mine",), ("hsc_g", "hsc_r")]) == ("hsc_g", "hsc_r", "mine")
    with pytest.raises(ValueError, match=r"hsc_y \(9787 .*\), euclid_y \(10890 .*\) are too unlike"):
        united([HSC, ("euclid_y", "euclid_j")])
    with pytest.raises(ValueError, match="hsc_g and lsst_g of one store are of one filter"):
        united([HSC, ("hsc_g", "lsst_g")])


def test_spectra_of_several_stores_are_on_the_same_pixels(survey, tmp_path):
    """As those of a file are that kept wavelengths as float32, and those of a store that did not."""
    source = open_store(survey / "train.zarr")
    columns = {
        name: source.column(name, 0, 8) for name in ("object_id", "ra", "dec", "redshift", "flux", "ivar")
    }
    columns["image"] = source.images(0, 8)[0]

    def written(name, wave):
        def rows(start, stop):
            return {column: values[start:stop] for column, values in columns.items()}

        cutouts.write(tmp_path / name, rows, n=8, survey="other", wave=wave, shard_rows=64)
        return open_store(tmp_path / name)

    assert not np.array_equal(source.wave, WAVE)
    check_labels([source, written("same.zarr", WAVE)], complete=True)
    with pytest.raises(InputRefused, match="has spectra at other wavelengths than"):
        check_labels([source, written("other.zarr", WAVE + 0.2)], complete=True)
