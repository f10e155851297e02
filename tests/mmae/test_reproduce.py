"""`mmae reproduce` as a user runs it, on tiny models of either family; and losses of data."""

import json
import re

import numpy as np
import pytest
import torch
from astropy.table import Table
from conftest import TINY
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec

from catalogs.store.cutouts import open_store
from mmae import cli, reproduce
from mmae.models import checkpoint
from mmae.models.mmae_config import ModelConfig
from mmae.reproduce import Reproduce, main
from mmae.scores import physical_masks
from mmae.scores.metrics import point_metrics
from mmae.scores.physical_masks import IMAGE, PIXELS, TOKENS, DataLoss, data_losses, degraded, masks
from mmae.scores.rebuilding import Survey, hidden_tokens, truth_of
from mmae.scores.report_page import KEYS
from mmae.scores.reproduce_figures import Example, draw_image_loss
from mmae.training.data import TEST, TRAIN, TrainingSet
from mmae.training.made_with import is_held_out

CONFIG = ModelConfig()


def run(*argv: object) -> int:
    return cli.run(main, Reproduce, [str(arg) for arg in argv], "mmae reproduce")


@pytest.fixture(scope="module")
def truth(survey):
    data = TrainingSet(survey / "train.zarr", CONFIG)
    rows = np.arange(4)
    return truth_of(data.object_id[rows], data.read(rows))


@pytest.fixture(scope="module")
def common_survey(survey):
    data = TrainingSet(survey / "train.zarr", CONFIG)
    return Survey(data.wave, np.ones(5), data.store.zero_point)


def test_a_galaxy_is_drawn_alike_in_any_unit():
    """In nJy (31.4) as in the unit of HSC (27)."""
    image = np.random.default_rng(0).gamma(1, 0.3, (5, 64, 64)).astype(np.float32)
    drawn = []
    for zero_point in (27.0, 31.4):
        flux = image * np.float32(10 ** (0.4 * (zero_point - 27)))
        loss, plot = DataLoss("no g", IMAGE, np.zeros(image.shape, bool)), Figure()
        example = Example(loss, flux, np.zeros(1296), (flux, np.zeros(1296)), None, zero_point)
        draw_image_loss(plot, GridSpec(1, 4, plot), 0, example, (np.zeros(1296), np.zeros(259)))
        drawn.append(np.stack([axes.images[0].get_array() for axes in plot.axes]).astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 1


@pytest.mark.slow
@pytest.mark.parametrize("preset", TINY)
def test_the_command_measures_a_model_of_either_family(preset, runs, survey, tmp_path, capsys):
    out = tmp_path / "out"
    flags = ("--out", out, "--objects", 20, "--seeds", 2)
    assert run(runs(preset), survey / "train.zarr", *flags) == cli.OK
    printed = capsys.readouterr().out
    assert f"wrote report.md, scores.json, {len(KEYS)} tables" in printed
    page = (out / "report.md").read_text()
    assert "mock data" in page
    for name in re.findall(r"\]\((\S+\.png)\)", page):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert {f"{name}.png" for name in ("figure3", "lines", "masking", "losses")} <= {
        p.name for p in out.iterdir()
    }

    scores = json.loads((out / "scores.json").read_text())
    for name in KEYS:
        table = Table.read(out / f"{name}.ecsv")
        for row in table:
            key_values = "/".join(str(row[key]) for key in KEYS[name])
            last = scores[f"{name}/{key_values}/{table.colnames[-1]}"]
            assert last == pytest.approx(row[table.colnames[-1]]) if last is not None else True
    assert scores["photoz/0.25/all/n"] == scores["reconstruction/75/75/all/n"] == 20
    assert scores["photoz/0.25/all/seeds"] == 2
    # the redshifts of the inference program are those of the model
    scatter = scores["photoz/0.0/all/sigma_NMAD"]
    assert scores["masking/0.0/1.0/sigma_NMAD, all"] == pytest.approx(scatter, rel=1e-3)
    assert scores["losses/none/image/nothing lost/sigma_NMAD, all"] == pytest.approx(scatter, rel=1e-3)
    # a model of two epochs rebuilds no lines
    assert scores["lines/0/100/all lines/>10/height error"] == 1
    assert scores["lines/0/100/all lines/>10/n"] > 0


def test_all_of_a_store_that_was_held_out_is_measured(trained, survey, draw_training, tmp_path):
    """Some sixth of which is of the test split by its ids."""
    ids = TrainingSet(survey / "train.zarr", CONFIG).object_id
    path = draw_training(tmp_path / "other.zarr", np.arange(24), object_id=ids[:24] + 10**9)
    assert run(trained, path, "--out", tmp_path / "out", "--seeds", 1) == cli.OK
    assert "24 galaxies of " in (tmp_path / "out/report.md").read_text()
    assert "none of which the model was made with" in (tmp_path / "out/report.md").read_text()


def test_a_store_with_one_galaxy_of_training_was_not_held_out(trained, survey, draw_training, tmp_path):
    _, state = checkpoint.load_model(checkpoint.find(trained))
    data = TrainingSet(survey / "train.zarr", CONFIG)
    rows = data.rows(TEST)
    only_test = draw_training(tmp_path / "test.zarr", rows)
    one_more = draw_training(tmp_path / "more.zarr", np.append(rows, data.rows(TRAIN)[0]))
    stores = (data.store, *map(open_store, (only_test, one_more)))
    assert [is_held_out(store, state) for store in stores] == [False, True, False]
    state["config"]["data"] = "gone.zarr"
    assert not is_held_out(open_store(only_test), state)


def test_batches_do_not_change_the_scores(runs, survey, common_survey, monkeypatch):
    model, _ = checkpoint.load_model(checkpoint.find(runs("mmae")))
    data = TrainingSet(survey / "train.zarr", CONFIG)
    results = []
    for batch in (6, 4):
        monkeypatch.setattr(reproduce, "BATCH", batch)
        results.append(reproduce.measure(model, data, np.arange(6), common_survey, seeds=1))
    larger, smaller = (measured["ratios"][0.75, 0.75] for measured in results)
    for name, scores in larger.items():
        assert scores.shape == (6,)
        np.testing.assert_allclose(scores, smaller[name], rtol=1e-2, err_msg=name)
    heights = (measured["lines"]["true"]["height"] for measured in results)
    np.testing.assert_array_equal(*heights)


def test_masks_grow_with_the_share_hidden_and_depend_on_the_id_alone():
    ids = np.array([7, 11, 13])
    less, more = (hidden_tokens(ids, 64, share, seed=1) for share in (0.25, 0.75))
    assert less.sum(1).tolist() == [16] * 3
    assert more.sum(1).tolist() == [48] * 3
    assert not (less & ~more).any()
    assert torch.equal(hidden_tokens(ids[1:], 64, 0.25, 1), less[1:])


def test_losses_affect_their_pixels_and_tokens(common_survey):
    by_name = {loss.name: loss for loss in data_losses(common_survey)}
    assert {f"no {letter}" for letter in "grizy"} <= by_name.keys()
    gap, _ = masks(by_name["detector gap"], IMAGE, TOKENS, CONFIG)
    trail, hidden = masks(by_name["bleed trail"], IMAGE, TOKENS, CONFIG)
    assert gap.reshape(8, 8).all(0).tolist() == [column == 5 for column in range(8)]
    assert trail.reshape(8, 8).all(0).tolist() == [column == 4 for column in range(8)]
    assert gap.sum() == trail.sum() == 8
    assert hidden.all()  # losses of an image are evaluated without a spectrum
    for name, (low, high) in {"b": (3600, 5760), "r": (5800, 7520), "z": (7620, 9824)}.items():
        lost = by_name[f"no {name} arm"].lost
        np.testing.assert_array_equal(lost, (common_survey.wave >= low) & (common_survey.wave <= high))
    for config in TINY.values():
        tokens = physical_masks.spectrum_tokens(by_name["no r arm"].lost, config)
        assert np.mean(tokens) == pytest.approx((7520 - 5800) / (9824 - 3600), abs=0.05)


def test_images_that_inference_would_refuse_are_counted(common_survey, truth):
    for loss in data_losses(common_survey):
        image, spectrum, refused = degraded(loss, truth, least_bands=5)
        lacks_a_band = loss.name in {f"no {letter}" for letter in "grizy"}  # a gap is an eighth of the image
        assert refused.all() == lacks_a_band
        assert not degraded(loss, truth, least_bands=2)[2].any()
        if loss.part == IMAGE:
            assert (np.isnan(image) == loss.lost).all()
        assert np.isfinite(spectrum).all()
        kept = ~loss.affected
        if loss.part == IMAGE:
            np.testing.assert_array_equal(image[:, kept], truth.image[:, kept])
        else:
            np.testing.assert_array_equal(spectrum[:, kept], truth.spectrum[:, kept])


def test_pixels_of_a_loss_have_no_effect_where_hidden(common_survey, truth, runs):
    model, _ = checkpoint.load_model(checkpoint.find(runs("mmae")))
    trail = next(loss for loss in data_losses(common_survey) if loss.name == "bleed trail")
    brighter = trail._replace(added_flux=np.asarray(trail.added_flux) * 3)
    hidden, visible = (
        [
            physical_masks.evaluate(model, truth, common_survey, loss, IMAGE, method)[1]["redshift"]
            for loss in (trail, brighter)
        ]
        for method in (TOKENS, PIXELS)
    )
    np.testing.assert_array_equal(*hidden)
    assert (visible[0] != visible[1]).any()


def test_scatter_over_masks_is_that_of_the_metrics():
    z = np.linspace(0.1, 1, 50)
    rng = np.random.default_rng(0)
    z_phot = {(0.25, seed): z + rng.normal(0, 0.02, 50) for seed in range(3)} | {(0.0, 0): z}
    table = reproduce.photoz_scores.table(z_phot, z)
    values = [point_metrics(z_phot[0.25, seed], z)["sigma_NMAD"] for seed in range(3)]
    row = table[(table["hidden"] == 0.25) & (table["range"] == "all")][0]
    assert row["sigma_NMAD"] == pytest.approx(np.mean(values))
    assert row["sigma_NMAD std"] == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("absent train.zarr", cli.USAGE, "absent does not exist"),
        ("../mmae absent.zarr", cli.USAGE, "absent.zarr does not exist"),
        ("../mmae train.zarr --out galaxies.hdf5", cli.USAGE, "is a file"),
        ("../mmae train.zarr --objects 0", cli.USAGE, "must be from 1 to"),
        ("../mmae train.zarr --seeds 0", cli.USAGE, "must be from 1 to"),
        ("../mmae rubin_tile.zarr", cli.REFUSED, "lacks spectra"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence_and_writes_nothing(
    runs, survey, monkeypatch, capsys, arguments, code, message
):
    runs("mmae")
    monkeypatch.chdir(survey)
    before = sorted(survey.rglob("*"))
    capsys.readouterr()
    assert run(*arguments.split()) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert sorted(survey.rglob("*")) == before
