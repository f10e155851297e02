"""Losses worked by hand."""

import math

import pytest
import torch
from conftest import TINY

from mmae.layers.pdf import Grid, distribution
from mmae.models.batch import Batch
from mmae.models.families import build
from mmae.models.himes2025 import Himes2025
from mmae.models.losses import combined, crossed, hsc_loss, image_pixels, masked_mean, spectrum_pixels
from mmae.models.masking import Known, Masks
from mmae.models.mmae import Model
from mmae.models.output import Output


def test_a_masked_mean_counts_hidden_pixels_only():
    values, hidden = torch.tensor([1.0, 9.0, 900.0]), torch.tensor([True, True, False])
    assert masked_mean(values, hidden).item() == (1 + 9) / 2
    assert masked_mean(values, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_token_masks_cover_their_pixels():
    mask = torch.zeros(1, 64, dtype=torch.bool)
    mask[0, 10] = True  # second row of tokens, third column
    pixels = image_pixels(mask, torch.Size((1, 5, 64, 64)))
    assert pixels.sum() == 5 * 64
    assert pixels[0, :, 8:16, 16:24].all()
    spectrum = spectrum_pixels(torch.ones(1, 32, dtype=torch.bool), 259, 8)
    assert spectrum.sum() == 256
    assert not spectrum[0, 256:].any()


def test_the_papers_losses_are_weighted_and_a_missing_spectrum_costs_nothing():
    batch = Batch.of_pairs(torch.zeros(2, 5, 64, 64), torch.zeros(2, 259), torch.tensor([0.0, 1.0]))
    output = Output(
        image=torch.full((2, 5, 64, 64), 2.0),
        spectrum=torch.tensor([[3.0], [100.0]]).expand(2, 259),
        joint=torch.zeros(2, 512),
        point=torch.tensor([0.15, 1.0]),
        logits=torch.zeros(2, 0),
        photometric=torch.zeros(2, 0, 0),
        weights=torch.zeros(2, 0),
        spectype=torch.zeros(2, 0),
        shallow=torch.zeros(2),
        central=torch.zeros(2, 5),
        columns=torch.zeros(2, 0),
    )
    image_mask = torch.zeros(2, 64, dtype=torch.bool)
    image_mask[:, :16] = True
    hidden = torch.ones(2, 32, dtype=torch.bool)
    target = hidden & torch.tensor([[True], [False]])
    model = Himes2025(TINY["himes2025"])
    parts = model.losses(output, batch, Masks.of_tokens(image_mask, hidden, target, 5))
    assert parts.tolist() == [4, 9, pytest.approx(0.25)]  # dz / 0.15 is 1 and 0: losses 1/2 and 0
    assert combined(parts, model.loss_weights).total.item() == pytest.approx(0.1 * 4 + 0.01 * 9 + 0.25)


def test_our_losses_are_in_units_of_the_noise_and_count_what_is_rebuilt():
    model = Model(TINY["mmae"])
    model.noise[0] = 0.5
    truth = torch.zeros(2, 5, 64, 64)
    output = Output(
        image=truth.clone(),
        spectrum=torch.tensor([[3.0], [0.1]]).expand(2, 1296),
        joint=torch.zeros(2, 64),
        point=torch.tensor([0.15, 1.0]),
        logits=torch.zeros(2, 60),
        photometric=torch.zeros(2, 3, 60),
        weights=torch.tensor([0.5, 0.5, 0.0]).expand(2, 3),
        spectype=torch.zeros(2, 0),
        shallow=torch.zeros(2),
        central=torch.zeros(2, 5),
        columns=torch.zeros(2, 0),
    )
    output.image[:, 0] = 0.5 * math.sinh(3)  # 3 on the asinh scale, in one band of five
    batch = Batch.of_pairs(truth, torch.zeros(2, 1296), torch.tensor([0.0, 1.0]))
    image_mask = torch.zeros(2, 64, dtype=torch.bool)
    image_mask[0, 5] = True
    target = torch.ones(2, 48, dtype=torch.bool)
    parts = model.losses(output, batch, Masks.of_tokens(image_mask, target, target, 5))
    # beyond 1 the error less a half counts, below it half its square
    assert parts[0].item() == pytest.approx((3 - 0.5) / 5)
    assert parts[1].item() == pytest.approx(((3 - 0.5) + 0.1**2 / 2) / 2)
    assert parts[2].item() == pytest.approx(2 * math.log(60) + 0.25)  # once from photometry alone


def test_a_redshift_that_may_be_wrong_pulls_less_the_surer_p_of_z_is():
    """p = (0.97, 0.01, 0.01, 0.01), and a redshift in the second bin, right with probability 1, 0.9, 0.

    Half of all galaxies are in that bin.
    """
    others = torch.tensor([0.1, 0.5, 0.2, 0.2])
    logits = torch.tensor([0.97, 0.01, 0.01, 0.01]).log().repeat(3, 1).requires_grad_()
    labels = torch.tensor([0.0, 1.0, 0.0, 0.0]).repeat(3, 1)
    losses = crossed(logits, labels, torch.tensor([1.0, 0.9, 0.0]), others)
    expected = [-math.log(0.01), -math.log(0.9 * 0.01 + 0.1 * 0.5), math.log(2)]
    torch.testing.assert_close(losses, torch.tensor(expected))
    losses.sum().backward()
    # d/dlogit: p - label, of which a share r p / (r p + (1 - r) n) is left
    left = 0.9 * 0.01 / (0.9 * 0.01 + 0.1 * 0.5)
    pull = torch.tensor([0.97, -0.99, 0.01, 0.01])
    torch.testing.assert_close(logits.grad, torch.stack([pull, left * pull, 0 * pull]))
    of_sets = crossed(logits[:, None].expand(3, 2, 4), labels[:, None], torch.tensor([1.0, 0.9, 0.0]), others)
    torch.testing.assert_close(of_sets, losses[:, None].expand(3, 2))
    usual = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(crossed(logits, labels, torch.ones(3), others), usual)
    assert (
        hsc_loss(torch.ones(2), torch.zeros(2), torch.tensor([1.0, 0.0]), torch.ones(2) > 0)
        == hsc_loss(torch.ones(1), torch.zeros(1), torch.ones(1), torch.ones(1) > 0) / 2
    )


@pytest.mark.parametrize("preset", TINY)
def test_what_is_not_known_of_a_galaxy_costs_nothing(preset):
    """The losses are those of the galaxies with a redshift, and of those with a spectrum, alone."""
    model = build(TINY[preset])
    config, generator = model.config, torch.Generator().manual_seed(0)
    image = torch.randn(4, 5, 64, 64, generator=generator)
    spectrum = torch.randn(4, config.spectrum_length, generator=generator)
    bins = config.grid.bins if config.grid else 0
    output = Output(
        image=torch.zeros_like(image),
        spectrum=torch.zeros_like(spectrum),
        joint=torch.zeros(4, config.joint_dim),
        point=torch.tensor([0.1, 0.4, 0.2, 0.9], requires_grad=True),
        logits=torch.randn(4, bins, generator=generator),
        photometric=torch.randn(4, 3, bins, generator=generator),
        weights=torch.rand(4, 3, generator=generator),
        spectype=torch.zeros(4, 0),
        shallow=torch.zeros(4),
        central=torch.zeros(4, 5),
        columns=torch.zeros(4, 0),
    )
    redshift = torch.tensor([0.2, 0.5, math.nan, math.nan])
    tokens = torch.ones(4, 64, dtype=torch.bool), torch.ones(4, config.spectrum_tokens, dtype=torch.bool)
    masks = Masks.of_tokens(tokens[0], tokens[1], tokens[1], 5)
    has_spectrum, nothing = torch.tensor([False, True, True, False]), torch.zeros(4, 5) > 0
    masks = masks.of(Known(has_spectrum, ~redshift.isnan(), nothing[:, 0], nothing[:, :0], ~nothing))
    batch = Batch.of_pairs(image, spectrum, redshift)
    found = model.losses(output, batch, masks)
    assert masks.counts(model.loss_weights).tolist() == [4 * 5 * 64, 2 * config.spectrum_tokens, 2]
    for part, rows in ((1, slice(1, 3)), (2, slice(2))):
        some = Output(*(values[rows] for values in output))
        expected = model.losses(some, batch.rows(rows), masks.rows(rows))
        assert found[part].item() == pytest.approx(expected[part].item(), rel=1e-5)
    found.sum().backward()
    assert (output.point.grad != 0).tolist() == [True, True, False, False]  # NaN is not 0, either


def test_n_of_z_is_that_of_the_known_redshifts():
    grid = Grid(320, 4.5)
    redshift = torch.cat([torch.full((900,), 0.5), torch.full((100,), 2.0), torch.full((50,), math.nan)])
    masses = distribution(redshift, grid)
    assert masses.sum().item() == pytest.approx(1)
    near = (grid.centres.log1p() - math.log1p(0.5)).abs() < 0.1
    assert masses[near].sum().item() == pytest.approx(0.9, abs=0.03)
    assert masses.min() > 0
    nothing = distribution(torch.full((3,), math.nan), grid)
    torch.testing.assert_close(nothing, torch.full((320,), 1 / 320))
