"""Galaxies with redshifts that stand for a survey, in training and calibration; a bundle calibrated anew."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from astropy.table import Table
from conftest import recipe

from catalogs.errors import UsageError
from catalogs.store.cutouts import open_store
from mmae import cli, export, recalibrate, train
from mmae.bundles import bundle as bundles
from mmae.bundles import calibrate, compiler
from mmae.bundles.bundle import open_bundle
from mmae.bundles.program import estimates
from mmae.bundles.recalibration import Known, recalibrated
from mmae.bundles.sample import noise_sample
from mmae.hardware import FP32
from mmae.layers import pdf
from mmae.layers.conditions import unknown
from mmae.layers.pdf import Grid
from mmae.models import checkpoint
from mmae.training.data import TrainingSet

KNOWN, OTHERS = np.arange(2048) % 5 < 3, np.arange(2048) % 5 >= 3
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def interval(survey):
    """`interval(path)`: 68 % intervals of the objects of the tile, (2, N), and their medians, (N,)."""
    store = open_store(survey / "rubin_tile.zarr")

    def of(path):
        opened = open_bundle(path, FP32)
        read = opened.input.read(store, 0, store.n)
        assert (read.reason == "").all()
        program = opened.load(torch.device("cpu"))
        mass = estimates(program, torch.from_numpy(read.image), torch.from_numpy(read.conditions)).mass
        levels = torch.tensor([0.16, 0.5, 0.84]).expand(len(mass), -1)
        low, middle, high = pdf.quantiles(mass, Grid(**opened.card["grid"]), levels).T.numpy()
        return np.stack([low, high]), middle

    return of


@pytest.fixture(scope="module")
def truth(survey, bundle, interval, tmp_path_factory):
    """Redshifts (N,) of the tile that scatter thrice as much as p(z) says, a table of three fifths, and what
    p(z) says, (2, N)."""
    (low, high), middle = interval(bundle)
    sigma = 3 * (high - low) / 2
    # mirrored at 0: no interval of a quantile holds a share of them that is all at one redshift
    z = np.abs(middle + sigma * np.random.default_rng(0).standard_normal(len(middle)))
    path = tmp_path_factory.mktemp("truth") / "spectra.csv"
    ids = open_store(survey / "rubin_tile.zarr").column("object_id")
    quality = np.where(np.arange(KNOWN.sum()) < 10, 1, 4)
    Table({"id": ids[KNOWN], "zspec": z[KNOWN], "Q": quality}).write(path)
    return z, path, (low, high)


def test_p_of_z_becomes_as_wide_as_its_errors_on_other_galaxies(
    survey, bundle, truth, interval, tmp_path, capsys, monkeypatch
):
    z, table, before = truth
    monkeypatch.setattr(calibrate, "MOST_IMAGES", 0)  # the least without some bands: none lacks one here
    words = [bundle, survey / "rubin_tile.zarr", "--truth", table, "--where", "Q >= 3"]
    words += ["--out", tmp_path / "mine", "--like", survey / "rubin_tile.zarr"]
    assert cli.run_command("recalibrate", list(map(str, words))) == cli.OK
    said = capsys.readouterr().out
    assert f"{KNOWN.sum() - 10} objects" in said
    assert "% of it is unlike any" in said
    after, _ = interval(tmp_path / "mine")
    held = [np.mean((low <= z)[OTHERS] & (z <= high)[OTHERS]) for low, high in (before, after)]
    assert held[0] < 0.4
    assert held[1] == pytest.approx(0.68, abs=0.06)
    old, new = (open_bundle(path) for path in (bundle, tmp_path / "mine"))
    assert new.sha256 != old.sha256
    assert new.card["calibration"]["recalibrated"]["store"] == "rubin_tile.zarr"
    assert set(new.card["files"]) == set(old.card["files"])
    monkeypatch.setattr(bundles, "SCRIPTED", False)
    np.testing.assert_allclose(interval(tmp_path / "mine")[0], after, atol=1e-3)


def test_too_few_galaxies_are_one_sentence_and_nothing_is_written(survey, bundle, truth, tmp_path, capsys):
    words = [bundle, survey / "rubin_tile.zarr", "--truth", truth[1], "--where", "Q < 3"]
    assert cli.run_command("recalibrate", [*map(str, words), "--out", str(tmp_path / "mine")]) == cli.REFUSED
    assert "has 10 galaxies with a redshift" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()
    assert cli.run_command("recalibrate", [*map(str, words), "--out", str(bundle)]) == cli.USAGE


def test_what_has_no_p_of_z_is_refused_before_the_store_is_opened(tmp_path, monkeypatch):
    """Which is none here."""
    card = {"grid": None, "files": {bundles.PROGRAMS[FP32]: {}}}
    point = bundles.Bundle(tmp_path / "point", card, FP32, bundles.WHOLE)
    monkeypatch.setattr(recalibrate, "open_bundle", lambda path: point)
    config = recalibrate.Recalibrate(point.path, tmp_path, tmp_path / "mine")
    with pytest.raises(UsageError, match="there is nothing to calibrate"):
        recalibrate.main(config)
    monkeypatch.setattr(bundles, "SCRIPTED", False)
    with pytest.raises(UsageError, match="takes TorchScript"):
        recalibrate.main(config)


def test_a_bundle_that_was_never_calibrated_is(trained, tmp_path, capsys):
    """As one that was made where the training store was not."""
    model, state = checkpoint.load_model(checkpoint.find(trained))
    card = compiler.write_bundle(tmp_path / "plain", model, state, noise_sample(5, 64, 64))
    assert card["calibration"]["p(z)"] == "as the model gives it"
    plain = open_bundle(tmp_path / "plain", FP32)
    image, z = torch.randn(100, 5, 64, 64), torch.linspace(0.1, 1, 100)
    known = Known(image, unknown(image), z, torch.ones(100), {"store": "here"})
    card = recalibrated(plain, known, tmp_path / "mine")
    assert card["calibration"]["p(z)"]["temperature"] > 0
    program = open_bundle(tmp_path / "mine", FP32).load(torch.device("cpu"))
    mass = estimates(program, image).mass
    torch.testing.assert_close(mass.sum(1), torch.ones(100))
    assert (mass - estimates(plain.load(torch.device("cpu")), image).mass).abs().max() > 1e-3
    recalibrate.tell(plain.card, card)
    assert "before as the model gives it" in capsys.readouterr().out


def test_the_galaxies_trained_on_are_not_calibrated_on(survey, bundle, tmp_path, capsys):
    """Of 256 galaxies of the training store 77 are not trained on: too few."""
    words = [bundle, survey / "train.zarr", "--out", tmp_path / "mine"]
    assert cli.run_command("recalibrate", list(map(str, words))) == cli.REFUSED
    number = int(capsys.readouterr().err.split(" has ")[1].split()[0])
    assert 60 < number < 95


def test_a_run_like_a_tile_sees_galaxies_as_often_as_they_stand_for_it(survey, tmp_path, capsys):
    """Where that tile is gone, or another, p(z) is left to the spectra."""
    target = tmp_path / "tile.zarr"
    target.symlink_to(survey / "rubin_tile.zarr")
    target.with_name("tile.zarr.manifest.json").symlink_to(survey / "rubin_tile.zarr.manifest.json")
    config = recipe("mmae", survey / "train.zarr", tmp_path / "run", like=target, epochs=1)
    train.main(config)
    said = capsys.readouterr().out
    state = checkpoint.load(checkpoint.find(config.out))
    like = state["data"]["like"]
    assert f"count as {like['effective']:.0f}" in said
    assert 1 < like["effective"] < like["galaxies"]
    data = TrainingSet(config.data, config.model)
    data.stand_for(open_store(config.like), state["data"]["noise"])
    assert dataclasses.asdict(data.stands) == like
    train.main(dataclasses.replace(config, patience=3))  # the same target: it is done
    assert "nothing to do" in capsys.readouterr().out
    export.main(export.Export(config.out))
    assert "calibrated for galaxies with redshifts" not in capsys.readouterr().out
    card = json.loads((config.out / "bundle" / "card.json").read_text())
    assert card["training_data"]["like"] == like
    target.unlink()
    sample = export.find_sample(export.Export(config.out), state)
    assert f"calibrated for galaxies with redshifts: {target}" in capsys.readouterr().out
    assert (sample.weight == 1).all()
    other = dataclasses.replace(config, like=survey / "train.zarr", patience=3)
    with pytest.raises(Exception, match="begun on other data"):
        train.main(other)
