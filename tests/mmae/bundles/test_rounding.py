"""Rounded weights: a layer keeps its outputs better than with weights rounded to nearest, and is bfloat16."""

import pytest
import torch
from conftest import TINY

from mmae.bundles.image_redshift import ImageRedshift
from mmae.bundles.program import program_of
from mmae.bundles.rounding import reduce_precision, rounded
from mmae.models.families import build
from mmae.models.himes2025 import Himes2025, Himes2025Config

CONFIG = Himes2025Config(embed_dim=24, depth=1, fusion_depth=1, heads=3)


def images(rows):
    return torch.randn(rows, 5, 64, 64, generator=torch.Generator().manual_seed(rows))


def test_errors_are_made_good_along_correlated_inputs():
    """Inputs that are nearly the same for all: the sum of the weights must be kept, and is."""
    generator = torch.Generator().manual_seed(1)
    x = 1 + 0.1 * torch.randn(4096, 64, generator=generator, dtype=torch.float64)
    weight = torch.randn(16, 64, generator=generator, dtype=torch.float64)
    fitted, nearest = rounded(weight, x.T @ x), weight.bfloat16()
    assert fitted.dtype == torch.bfloat16

    def error(version):
        return (x @ (version.double() - weight).T).square().mean().sqrt()

    assert error(fitted) < error(nearest) / 4
    assert (fitted.double() - weight).abs().max() < 0.05


def test_uncorrelated_inputs_leave_nothing_to_make_good():
    weight = torch.randn(16, 64, generator=torch.Generator().manual_seed(2))
    assert torch.equal(rounded(weight, 100 * torch.eye(64)), weight.bfloat16())


def test_inputs_the_sample_lacks_do_no_harm():
    """A dead input (GELU gives many): its weights stay what they are."""
    weight, gram = torch.randn(4, 8, generator=torch.Generator().manual_seed(3)), torch.ones(8, 8)
    gram[3], gram[:, 3] = 0, 0
    version = rounded(weight, gram)
    assert torch.equal(version[:, 3], weight[:, 3].bfloat16())


@pytest.mark.parametrize("preset", TINY)
@torch.no_grad()
def test_the_program_is_near_and_the_model_left_alone(preset):
    model = build(TINY[preset]).eval()
    image = images(8)
    exact, reduced = program_of(model)(image), reduce_precision(program_of(model), images(16))(image)
    assert reduced.point.dtype == reduced.mass.dtype == torch.float32
    assert (reduced.point - exact.point).abs().max() < 0.01
    assert 0 < (reduced.joint - exact.joint).abs().max() < 0.1
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_what_happens_to_one_token_a_galaxy_stays_exact():
    program = reduce_precision(ImageRedshift(Himes2025(CONFIG).eval()), images(16))
    reduced = {name for name, weight in program.named_parameters() if weight.dtype == torch.bfloat16}
    assert reduced == {
        f"{part}.{kind}"
        for part in (
            "encoder.0.attention.qkv",
            "encoder.0.attention.out",
            "encoder.0.rest.ffn.up",
            "encoder.0.rest.ffn.down",
            "fusion.0.rest.ffn.up",
            "fusion.0.rest.ffn.down",
        )
        for kind in ("weight", "bias")
    }
