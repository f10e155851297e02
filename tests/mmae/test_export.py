"""The bundle is the model, and says what it is."""

import json
import shutil

import pytest
import torch

from catalogs.errors import InputRefused, UsageError
from mmae import checkpoint, export
from mmae.export import CARD, PROGRAM, ImageRedshift, open_bundle
from mmae.model import Himes2025


def test_the_program_is_the_model_with_its_spectrum_hidden(trained, bundle):
    model, _ = checkpoint.load_model(trained / checkpoint.BEST)
    program = open_bundle(bundle).load(torch.device("cpu"))
    image = torch.randn(8, 5, 64, 64, generator=torch.Generator().manual_seed(5))
    seen, hidden = torch.zeros(8, 64, dtype=torch.bool), torch.ones(8, 32, dtype=torch.bool)
    with torch.inference_mode():
        expected = model(image, torch.randn(8, 259), seen, hidden).redshift
        torch.testing.assert_close(program(image), expected, atol=1e-6, rtol=0)


def test_the_constant_spectrum_is_exact():
    """At the paper's size, in float64: to the rounding of the last bits."""
    model = Himes2025().double().eval()
    image = torch.randn(4, 5, 64, 64, dtype=torch.float64)
    seen, hidden = torch.zeros(4, 64, dtype=torch.bool), torch.ones(4, 32, dtype=torch.bool)
    with torch.no_grad():
        full = model(image, torch.randn(4, 259, dtype=torch.float64), seen, hidden).redshift
        assert (ImageRedshift(model)(image) - full).abs().max() < 1e-12


def test_the_card_says_what_the_model_is_for(bundle):
    card = json.loads((bundle / CARD).read_text())
    assert card["training_data"]["bands"] == ["g", "r", "i", "z", "y"]
    assert (card["training_data"]["pixel_scale"], card["training_data"]["zero_point"]) == (0.168, 27.0)
    assert card["training_data"]["survey"] == "mock"
    assert card["agreement"]["max_abs_dz"] <= 1e-5
    assert {"sigma_NMAD", "bias"} <= card["metrics"].keys()


def test_exporting_twice_gives_equal_programs(trained, bundle, tmp_path):
    export.main(export.Export(trained, tmp_path / "again"))
    assert open_bundle(tmp_path / "again").sha256 == open_bundle(bundle).sha256


def test_a_bundle_that_was_touched_is_refused(bundle, tmp_path):
    copy = shutil.copytree(bundle, tmp_path / "bundle")
    program = bytearray((copy / PROGRAM).read_bytes())
    program[1000] ^= 1
    (copy / PROGRAM).write_bytes(program)
    with pytest.raises(InputRefused, match="not the file the card was written for"):
        open_bundle(copy)
    (copy / CARD).write_text("{}")
    with pytest.raises(InputRefused, match="not a model card"):
        open_bundle(copy)


def test_there_must_be_something_to_export(tmp_path):
    with pytest.raises(UsageError, match="does not exist"):
        export.main(export.Export(tmp_path / "nothing"))
    with pytest.raises(InputRefused, match="no whole checkpoint"):
        export.main(export.Export(tmp_path))
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(InputRefused, match="not a checkpoint of this model"):
        export.main(export.Export(tmp_path / "other.pt"))
    assert not (tmp_path / "bundle").exists()
