"""Training that begins with the model of another survey: `mmae train --from`."""

import shutil
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch
from conftest import TINY, recipe

from catalogs.bands import HSC
from catalogs.errors import InputRefused, UsageError
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from mmae import export, train
from mmae.bundles.bundle import TRAINED_ON, open_bundle
from mmae.flags import parse
from mmae.models import checkpoint
from mmae.models.families import build
from mmae.models.mmae_config import ModelConfig
from mmae.training.data import TRAIN, TrainingSet
from mmae.training.recipe import Train
from mmae.training.state import load_beginning


@pytest.fixture(scope="module")
def other(survey, tmp_path_factory):
    """Half of the galaxies in three bands of DECam, in nanomaggies, under other ids; without spectra."""
    source, path = open_store(survey / "train.zarr"), tmp_path_factory.mktemp("other") / "decam.zarr"
    columns = {name: source.column(name)[::2] for name in ("object_id", "ra", "dec", "redshift")}
    columns["object_id"] = columns["object_id"] + 10**6
    columns["ra"], columns["dec"] = np.linspace(10, 20, 128), np.linspace(0, 5, 128)
    columns["image"] = source.images(0, 256, ("hsc_g", "hsc_r", "hsc_z"))[0][::2] * np.float32(10**-1.8)
    cutouts.write(
        path,
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=128,
        survey="DECam",
        bands=("decam_g", "decam_r", "decam_z"),
        zero_point=22.5,
        shard_rows=64,
        known=("redshift",),
    )
    return path


def fine_tuned(trained, other, out, **flags):
    """A run that begins with `trained`."""
    config = recipe("mmae", other, out, start=trained, epochs=1, **flags)
    train.main(config)
    return config


@pytest.fixture(scope="module")
def tuned(trained, other, tmp_path_factory):
    """Settings of such a run."""
    return fine_tuned(trained, other, tmp_path_factory.mktemp("tuned") / "run")


def test_a_run_begins_with_the_weights_and_scales_of_another(trained, other, tmp_path):
    fine_tuned(trained, other, tmp_path / "run", lr=1e-12, average=0.0)
    before, after = (checkpoint.load_model(checkpoint.find(run)) for run in (trained, tmp_path / "run"))
    kept = before[0].state_dict().keys() - {"others"}  # n(z) is that of the galaxies that it goes on with
    for name in kept:
        weights = before[0].state_dict()[name]
        torch.testing.assert_close(after[0].state_dict()[name], weights, rtol=0, atol=1e-9)
    data = after[1]["data"]
    assert data["bands"] == ["decam_g", "decam_r", "hsc_i", "decam_z", "hsc_y"]
    assert data["start"]["bands"] == list(HSC)
    assert (data["zero_point"], data["pixel_scale"]) == (27.0, 0.168)
    assert (data["survey"], data["start"]["survey"]) == ("DECam", "mock")
    other_bands = TrainingSet(other, after[0].config, data)
    batch = other_bands.read(other_bands.rows(TRAIN)[:5])
    assert batch.image[:, [2, 4]].isnan().all()  # i and y
    assert not batch.image[:, [0, 1, 3]].isnan().all()


def test_what_was_learned_is_kept_and_goes_on(trained, tuned, tmp_path):
    """After a few steps the weights have moved, and a run goes on from its own checkpoint alone."""
    start = load_beginning(checkpoint.find(trained))
    moved, _ = checkpoint.load_model(checkpoint.find(tuned.out))
    changed = [not torch.equal(start.weights[name], weights) for name, weights in moved.named_parameters()]
    assert np.mean(changed) > 0.8  # all but those of the spectrum
    for name, scale in moved.named_buffers():
        if name in start.weights and name != "others":
            assert torch.equal(start.weights[name], scale), name
    copy = shutil.copytree(trained, tmp_path / "first")
    config = replace(tuned, schedule="constant", out=tmp_path / "constant", start=copy)
    train.main(config)
    shutil.rmtree(copy)
    train.main(replace(config, epochs=2))
    assert checkpoint.load(checkpoint.newest(tmp_path / "constant"))["epoch"] == 2


def test_the_galaxies_of_both_are_of_those_the_model_was_made_with(
    survey, trained, other, tuned, tmp_path, capsys
):
    export.main(export.Export(tuned.out, tmp_path / "bundle"))
    roles = open_bundle(tmp_path / "bundle").roles()
    trained_on = roles["object_id"][roles["role"] == TRAINED_ON]
    for path, run in ((survey / "train.zarr", trained), (other, tuned.out)):
        data = TrainingSet(path, load_beginning(checkpoint.find(run)).config)
        assert np.isin(data.object_id[data.rows(TRAIN)], trained_on).all()
    content = checkpoint.load(checkpoint.find(tuned.out))
    content["data"]["start"]["paths"] = [str(tmp_path / "gone.zarr")]
    capsys.readouterr()
    export.find_sample(export.Export(tuned.out), content)  # with which an export begins
    assert "gone.zarr, which the model began with, is not there" in capsys.readouterr().out


def test_a_beginning_of_another_preset_or_of_nothing_is_one_sentence(trained, other, tmp_path):
    with pytest.raises(UsageError, match="is of --preset mmae: give it, too"):
        train.main(recipe("himes2025", other, tmp_path / "run", start=trained))
    with pytest.raises(UsageError, match="does not exist"):
        train.main(recipe("mmae", other, tmp_path / "run", start=tmp_path / "absent"))
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_when_the_one_that_it_began_with_is_gone(tmp_path):
    """It has all that it needs of that in its own checkpoint."""
    torch.manual_seed(0)
    model, data = TINY["mmae"], {"noise": [0.1]}
    for run, more in (("first", {}), ("run", {"start": data | {"paths": ["a.zarr"]}})):
        config = {"model": asdict(model), "data": ["a.zarr" if run == "first" else "b.zarr"]}
        state = {"family": "mmae", "config": config, "data": data | more, "average": None, "step": 1}
        (tmp_path / run).mkdir()
        checkpoint.save_step(tmp_path / run, state | {"model": build(model).state_dict()})
    config = recipe("mmae", "b.zarr", tmp_path / "run", start=tmp_path / "first")
    first = train.beginning(replace(config, out=tmp_path / "new"))
    shutil.rmtree(tmp_path / "first")
    start = train.beginning(config)
    assert (start.config, start.trained_on) == (first.config, first.trained_on)
    with pytest.raises(UsageError, match="does not exist"):
        train.beginning(replace(config, out=tmp_path / "new"))


def test_sizes_are_those_of_the_model_to_begin_with(trained, other, tmp_path):
    config = recipe("mmae", other, tmp_path / "run", start=trained)
    assert train.beginning(config).config.depth == 1
    assert train.beginning(replace(config, model=ModelConfig())).config.depth == 1  # nothing is asked for
    with pytest.raises(UsageError, match=r"--model.depth 3: .* has 1, leave it out"):
        train.beginning(replace(config, model=replace(config.model, depth=3)))


def test_the_flag_is_from_on_the_command_line_and_in_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(parse(Train, ["a.zarr", "--from", "runs/hsc"], "mmae train").start) == "runs/hsc"
    (tmp_path / "train.toml").write_text('data = "a.zarr"\nfrom = "runs/hsc"\n')
    assert str(parse(Train, [], "mmae train").start) == "runs/hsc"


@pytest.fixture(scope="module")
def with_u(survey, tmp_path_factory):
    """Half of the galaxies in the bands u g r z, without i and y; u is a third of g, more or less."""
    source, path = open_store(survey / "train.zarr"), tmp_path_factory.mktemp("u") / "train.zarr"
    columns = {name: source.column(name)[::2] for name in ("object_id", "ra", "dec", "redshift")}
    columns["object_id"] = columns["object_id"] + 10**6
    image = source.images(0, 256, ("hsc_g", "hsc_r", "hsc_z"))[0][::2]
    colour = np.random.default_rng(0).uniform(0.15, 0.6, (128, 1, 1, 1)).astype(np.float32)
    columns["image"] = np.concatenate([image[:, :1] * colour, image], 1)
    cutouts.write(
        path,
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=128,
        survey="with u",
        bands=("lsst_u", "lsst_g", "lsst_r", "lsst_z"),
        shard_rows=64,
        known=("redshift",),
    )
    return path


def test_a_model_with_more_bands_is_the_one_that_it_was_without_them(survey, trained, with_u, tmp_path):
    fine_tuned(trained, with_u, tmp_path / "run", lr=1e-12, average=0.0)
    before, after = (checkpoint.load_model(checkpoint.find(run))[0] for run in (trained, tmp_path / "run"))
    assert after.config.bands == ("lsst_u", "lsst_g", "lsst_r", "hsc_i", "lsst_z", "hsc_y")
    data = TrainingSet(survey / "train.zarr", before.config)
    batch = data.read(data.rows(TRAIN)[:40])
    image = batch.image.clone()
    image[10:20, 1], image[20:30, [0, 4]], image[30, 2, :30] = np.nan, np.nan, np.nan
    wider = torch.cat([torch.full_like(image[:, :1], torch.nan), image], 1)
    shape = (40, before.config.spectrum_tokens)
    hidden = torch.zeros(40, 64, dtype=torch.bool), torch.ones(shape, dtype=torch.bool)
    with torch.inference_mode():
        old, new = (
            model.eval()(pixels, batch.spectrum, *hidden)
            for model, pixels in ((before, image), (after, wider))
        )
    for name in ("joint", "point", "logits"):
        torch.testing.assert_close(getattr(new, name), getattr(old, name), rtol=1e-4, atol=1e-4)
    # whose lines are where the redshift is, to the last digits
    torch.testing.assert_close(new.spectrum, old.spectrum, rtol=0, atol=0.02)
    torch.testing.assert_close(new.image[:, 1:], old.image, rtol=1e-4, atol=1e-4)


def test_a_new_band_is_learned_from(trained, with_u, tmp_path):
    """It is measured in units of its own scatter, given the others, and its weights move."""
    config = fine_tuned(trained, with_u, tmp_path / "run", band_dropout=0.5)
    model, saved = checkpoint.load_model(checkpoint.find(config.out))
    data = TrainingSet(with_u, model.config, saved["data"])
    batch = data.read(data.rows(TRAIN))
    white = model.photometry(*model.pixels(batch.image))[0][:, :6].sinh()
    assert white.mean(0).abs().max() < 0.5
    assert 0.5 < float(white.std(0).max()) < 1.5  # the colour; all else of u is that of g
    first = model.image_embed.up.weight[:, :64]
    assert first.abs().max() > 0
    assert set(saved["data"]["bands"]) >= {"lsst_u", "hsc_i"}
    assert np.isfinite(saved["data"]["noise"]).all()
    export.main(export.Export(config.out))
    assert open_bundle(config.out / "bundle").card["agreement"]["float64"] < 1e-10


def test_a_new_band_without_data_is_refused(trained, with_u, tmp_path):
    source, path = open_store(with_u), tmp_path / "train.zarr"
    columns = {name: source.column(name) for name in ("object_id", "ra", "dec", "redshift")}
    columns["image"], _ = source.images(0, source.n)
    columns["image"][:, 0] = np.nan
    cutouts.write(
        path,
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=source.n,
        survey="dark u",
        bands=source.bands,
        known=("redshift",),
    )
    with pytest.raises(InputRefused, match="no noise of the sky at the corners of images in the band lsst_u"):
        fine_tuned(trained, path, tmp_path / "run")


def test_too_many_bands_are_refused(trained, with_u):
    start = load_beginning(checkpoint.find(trained))
    with pytest.raises(InputRefused, match="are more than 8 bands: leave some out"):
        start.on_bands(("lsst_u", "lsst_g", "vis", "wise_w1", "f606w"))
