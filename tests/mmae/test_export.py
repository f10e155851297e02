"""The bundle is the model, and says what it is."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from calibrated import calibrated
from conftest import TINY

from catalogs import atomic
from catalogs.bands import HSC
from catalogs.errors import InputRefused, UsageError
from mmae import export
from mmae.bundles import compiler
from mmae.bundles.bundle import CARD, CHOSEN_BY, PROGRAMS, ROLES_FILE, TRAINED_ON, VERSION, open_bundle
from mmae.bundles.calibrate import calibrate
from mmae.bundles.program import program_of
from mmae.bundles.roles import UNKNOWN, Roles
from mmae.bundles.sample import Sample, noise
from mmae.hardware import BF16, FP32
from mmae.models import checkpoint
from mmae.training.data import TEST, TRAIN, VALIDATION, TrainingSet
from mmae.training.made_with import roles


@pytest.mark.parametrize("preset", TINY)
def test_the_program_is_the_model_with_its_spectrum_hidden(runs, bundles, preset):
    model, _ = checkpoint.load_model(runs(preset) / checkpoint.BEST)
    bundle, config = open_bundle(bundles(preset), FP32), model.config
    assert bundle.card["family"] == preset
    program = bundle.load(torch.device("cpu"))
    image = torch.randn(8, 5, 64, 64, generator=torch.Generator().manual_seed(5))
    seen, hidden = (
        torch.zeros(8, 64, dtype=torch.bool),
        torch.ones(8, config.spectrum_tokens, dtype=torch.bool),
    )
    with torch.inference_mode():
        expected = model(image, torch.randn(8, config.spectrum_length), seen, hidden)
        answer = program(image)
    torch.testing.assert_close(answer.point, expected.point, atol=1e-6, rtol=0)
    if preset == "mmae":
        torch.testing.assert_close(answer.mass, calibrated(expected, bundle), atol=1e-5, rtol=0)


def test_the_bundle_knows_which_galaxies_the_model_was_made_with(survey, bundle):
    data = TrainingSet(survey / "train.zarr", TINY["mmae"])
    roles = Roles(open_bundle(bundle).roles())
    for split, role in ((TRAIN, TRAINED_ON), (VALIDATION, CHOSEN_BY), (TEST, 0)):
        ids = data.object_id[data.rows(split)]
        assert len(ids) > 10
        unknown = np.full(len(ids), np.nan)
        assert set(roles.of(ids, unknown, unknown)) == {role or UNKNOWN}


def test_roles_are_told_by_position_whatever_the_id(draw_training, tmp_path):
    ra, dec = np.linspace(10, 20, 256), np.linspace(-5, 5, 256)
    data = TrainingSet(draw_training(tmp_path / "a.zarr", np.arange(256), ra=ra, dec=dec), TINY["mmae"])
    found = Roles(roles(data.stores, data.usable)).of(np.arange(256), ra, dec)
    assert {split: set(found[data.rows(split)]) for split in (TRAIN, VALIDATION, TEST)} == {
        TRAIN: {TRAINED_ON},
        VALIDATION: {CHOSEN_BY},
        TEST: {0},
    }


def test_the_card_says_what_the_model_is_for(bundle):
    card = json.loads((bundle / CARD).read_text())
    assert card["training_data"]["bands"] == list(HSC)
    assert (card["training_data"]["pixel_scale"], card["training_data"]["zero_point"]) == (0.168, 27.0)
    assert card["training_data"]["survey"] == "mock"
    assert card["agreement"]["float64"] < 1e-10
    assert card["reduced_precision"]["images"].endswith("galaxies of the validation split")
    assert {"sigma_NMAD", "bias"} <= card["metrics"].keys()


@pytest.fixture(scope="module")
def precise(trained, tmp_path_factory):
    """A bundle of this process that offers every precision, however coarse."""
    out = tmp_path_factory.mktemp("precise") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "BOUND", {"median": 1.0, "p99": 1.0})
        export.main(export.Export(trained, out))
    return out


def test_exporting_twice_gives_equal_programs(trained, precise, tmp_path, capsys):
    """On as many threads: sums over galaxies, as the calibration is, differ in their last bits else.

    What few galaxies tell nothing of is said.
    """
    export.main(export.Export(trained, tmp_path / "again"))
    again = open_bundle(tmp_path / "again")
    assert again.sha256 == open_bundle(precise).sha256
    assert again.card["calibration"]["tail"] is False
    assert "ATYPICAL will never be raised: that takes 200 galaxies" in capsys.readouterr().out


def test_a_precision_is_offered_where_it_keeps_to_its_bound(trained, precise, tmp_path, monkeypatch, capsys):
    coarse = shutil.copytree(precise, tmp_path / "coarse")
    sha256 = {open_bundle(precise, precision).sha256 for precision in (FP32, BF16)}
    assert len(sha256) == 2
    monkeypatch.setattr(compiler, "BOUND", {"median": 1e-4, "p99": 1e-9})
    export.main(export.Export(trained, coarse))
    assert "not offered" in capsys.readouterr().out
    assert not (coarse / PROGRAMS[BF16]).exists()
    assert open_bundle(coarse).precision == FP32
    assert open_bundle(coarse).sha256 in sha256
    with pytest.raises(UsageError, match=r"offers fp32 only: bf16 .* median \d"):
        open_bundle(coarse, BF16)


def test_without_its_training_store_a_bundle_is_measured_on_noise(trained, draw_training, tmp_path, capsys):
    """A store of the same name may be another one by now, or in this folder."""
    path = tmp_path / "train.zarr"
    state = checkpoint.load(trained / checkpoint.BEST)
    state["config"]["data"] = str(path)
    checkpoint.save(tmp_path / "moved.pt", state)
    moved = export.Export(tmp_path / "moved.pt", tmp_path / "bundle")
    export.main(moved)
    card = open_bundle(tmp_path / "bundle").card
    assert card["reduced_precision"]["images"].startswith("1024 images of noise")
    assert card["calibration"]["galaxies"] == "none"
    assert f"the training store is not at {path} (nothing is there)" in capsys.readouterr().out
    draw_training(path, np.arange(255))
    assert export.find_sample(moved, state).name.startswith("images of noise")  # as above
    assert f"the training store is not at {path} (another store is there)" in capsys.readouterr().out


def test_another_store_may_be_named_to_calibrate_on(trained, draw_training, tmp_path, capsys):
    other = draw_training(tmp_path / "other.zarr", np.arange(255))
    export.main(export.Export(trained, tmp_path / "bundle", (other,)))
    bundle = open_bundle(tmp_path / "bundle")
    assert "galaxies of the validation split" in bundle.card["calibration"]["galaxies"]
    assert bundle.roles() is None
    assert "IN_TRAINING will be null" in capsys.readouterr().out


@pytest.mark.parametrize(("galaxies", "tail"), [(199, False), (200, True)])
def test_the_tail_takes_200_galaxies(trained, monkeypatch, galaxies, tail):
    for setting in ("LEAST_ROWS", "MOST_IMAGES"):  # p(z) of other sets of bands is not asked for
        monkeypatch.setattr(f"mmae.bundles.calibrate.{setting}", 8)
    model, _ = checkpoint.load_model(checkpoint.find(trained))
    image = noise(galaxies, 5)
    sample = Sample("noise", image, image, torch.linspace(0.1, 1, galaxies))
    assert calibrate(program_of(model), sample)["tail"] is tail


def test_a_bundle_that_was_touched_is_refused(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    program = bytearray((copy / PROGRAMS[FP32]).read_bytes())
    program[1000] ^= 1
    (copy / PROGRAMS[FP32]).write_bytes(program)
    with pytest.raises(InputRefused, match="not the file the card was written for"):
        open_bundle(copy)
    (copy / CARD).write_text("{}")
    with pytest.raises(InputRefused, match="not a model card"):
        open_bundle(copy)


DECISIVE_EDITS = {
    "grid": lambda card: card["grid"].update(z_max=3.0),
    "calibration": lambda card: card["calibration"]["p(z)"].update(temperature=2.0),
    "z range": lambda card: card["training_data"].update(z_range=[0.0, 9.0]),
    "noise": lambda card: card["training_data"]["noise"].reverse(),
    "pixel scale": lambda card: card["training_data"].update(pixel_scale=0.2),
    "bands": lambda card: card["training_data"]["bands"].reverse(),
    "roles": lambda card: card["files"][ROLES_FILE].update(sha256="0" * 64),
}


@pytest.mark.parametrize("edit", DECISIVE_EDITS.values(), ids=DECISIVE_EDITS)
def test_an_edited_card_is_refused_and_one_sealed_again_is_another_model(bundle, tmp_path, edit):
    """Grid, calibration and statistics decide redshifts as the programs do."""
    copy, original = shutil.copytree(bundle, tmp_path / "bundle"), open_bundle(bundle, FP32)
    card = json.loads((copy / CARD).read_text())
    edit(card)
    (copy / CARD).write_text(json.dumps(card))
    with pytest.raises(InputRefused, match="not a model card as it was written"):
        open_bundle(copy)
    assert dataclasses.replace(original, card=atomic.sealed(card)).sha256 != original.sha256


def test_what_decides_no_answer_is_not_of_the_models_identity(bundle):
    original = open_bundle(bundle, FP32)
    assert dataclasses.replace(original, card=original.card | {"step": 1}).sha256 == original.sha256


def test_there_must_be_something_to_export(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        export.main(export.Export(tmp_path / "nothing"))
    with pytest.raises(InputRefused, match="no whole checkpoint"):
        export.main(export.Export(tmp_path))
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(InputRefused, match="not a checkpoint of this model"):
        export.main(export.Export(tmp_path / "other.pt"))
    assert not (tmp_path / "bundle").exists()


def test_a_bundle_of_the_format_before_is_refused(bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / "bundle")
    card = json.loads((bundle / CARD).read_text()) | {"version": 5}
    atomic.write_json(tmp_path / "bundle" / CARD, atomic.sealed(card))
    with pytest.raises(
        InputRefused, match=f"of another format than mmae-bundle {VERSION}: export the bundle again"
    ):
        open_bundle(tmp_path / "bundle")
