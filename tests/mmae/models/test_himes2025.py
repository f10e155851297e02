"""The model equals the released one numerically: all values of golden.json to 1e-9 in float64."""

import hashlib
import json

import numpy as np
import pytest
import torch

from mmae.layers.pdf import hsc
from mmae.models.himes2025 import Dropout, Himes2025


def formula_weight(name, shape):
    """The weights for which golden.json was computed."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    v = np.random.RandomState(seed).standard_normal(shape)
    if "pos_embed" in name or "cls_token" in name:
        return 0.5 * v
    if "norm" in name and name.endswith("weight"):
        return 1 + 0.1 * v
    if len(shape) >= 2:
        return 1.5 * v / np.sqrt(np.prod(shape[1:]))
    return 0.05 * v


@pytest.fixture(scope="module")
def model():
    model = Himes2025().double().eval()
    weights = {
        name: torch.from_numpy(formula_weight(name, p.shape)) for name, p in model.state_dict().items()
    }
    model.load_state_dict(weights)
    return model


@pytest.fixture(scope="module")
def golden(reference):
    return json.loads((reference / "golden.json").read_text())


def masks(case):
    hidden = (3 * torch.arange(64)[None] + torch.arange(4)[:, None]) % 4 != 0
    none = torch.zeros(4, 64, dtype=torch.bool)
    return {
        "unmasked": (none, none[:, :32]),
        "spectrum_fully_masked": (none, ~none[:, :32]),
        "fixed_masks_75": (hidden, hidden[:, :32]),
    }[case]


@pytest.mark.parametrize("case", ["unmasked", "spectrum_fully_masked", "fixed_masks_75"])
def test_outputs_are_the_released_models(model, golden, case):
    image = torch.from_numpy(np.random.RandomState(1).standard_normal((4, 5, 64, 64)))
    spectrum = torch.from_numpy(np.random.RandomState(2).standard_normal((4, 1, 259)))[:, 0]
    with torch.no_grad():
        output = model(image, spectrum, *masks(case))
    released = {"img_recon": "image", "spec_recon": "spectrum", "fused_representation": "joint"}
    for name, expected in golden[case].items():
        value = getattr(output, released.get(name, "point"))
        assert list(value.shape) == expected["shape"], name
        flat = value.reshape(4, -1).numpy()
        statistics = {
            "mean": flat.mean(1),
            "rms": np.sqrt((flat**2).mean(1)),
            "first": flat[:, 0],
            "last": flat[:, -1],
            "at_100": flat[:, min(100, flat.shape[1] - 1)],
        }
        for statistic, measured in statistics.items():
            np.testing.assert_allclose(
                measured, expected[statistic], rtol=1e-9, err_msg=f"{name} {statistic}"
            )


def test_hsc_is_the_released_one(golden):
    g = golden["redshift_loss"]
    z_pred, z_spec = (
        torch.tensor(g["z_pred"], dtype=torch.float64),
        torch.tensor(g["z_spec"], dtype=torch.float64),
    )
    assert hsc(z_pred, z_spec).mean().item() == pytest.approx(g["loss"], rel=1e-9)


def test_parameter_count_is_the_papers():
    assert sum(p.numel() for p in Himes2025().parameters()) == 16_364_036


def test_a_hidden_token_has_no_influence(model):
    image = torch.randn(4, 5, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    spectrum = torch.randn(4, 259, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    image_mask, spectrum_mask = masks("fixed_masks_75")
    other = image.clone()
    for galaxy in range(4):
        for token in image_mask[galaxy].nonzero()[:, 0].tolist():
            row, column = divmod(token, 8)
            other[galaxy, :, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 99.0
    with torch.no_grad():
        expected = model.joint(image, spectrum, image_mask, spectrum_mask)
        assert torch.equal(model.joint(other, spectrum, image_mask, spectrum_mask), expected)


def test_dropout_drops_its_share_and_keeps_the_mean():
    torch.manual_seed(0)
    x = torch.ones(1001, 999)
    y = Dropout(0.1)(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.9])
    # five sigma of a binomial; all of a draw's four bit fields, and none of the rest left over
    flat = (y == 0).flatten()[: 4 * (y.numel() // 4)].view(-1, 4).float().mean(0)
    assert abs(flat - 0.1).max() < 5 * (0.09 / (y.numel() / 4)) ** 0.5
    assert torch.equal(Dropout(0.1).eval()(x), x)
