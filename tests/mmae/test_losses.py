"""Losses worked by hand."""

import pytest
import torch

from mmae.data import Batch
from mmae.losses import image_pixels, losses, masked_mse, spectrum_pixels
from mmae.model import Output


def test_masked_mse_counts_hidden_pixels_only():
    predicted, truth = torch.tensor([1.0, 2.0, 30.0]), torch.tensor([0.0, 5.0, 0.0])
    hidden = torch.tensor([True, True, False])
    assert masked_mse(predicted, truth, hidden).item() == (1 + 9) / 2
    assert masked_mse(predicted, truth, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_token_masks_cover_their_pixels():
    mask = torch.zeros(1, 64, dtype=torch.bool)
    mask[0, 10] = True  # second row of tokens, third column
    pixels = image_pixels(mask, torch.Size((1, 5, 64, 64)))
    assert pixels.sum() == 5 * 64
    assert pixels[0, :, 8:16, 16:24].all()
    spectrum = spectrum_pixels(torch.ones(1, 32, dtype=torch.bool), 259, 8)
    assert spectrum.sum() == 256
    assert not spectrum[0, 256:].any()


def test_losses_are_weighted_and_a_missing_spectrum_costs_nothing():
    batch = Batch(torch.zeros(2, 5, 64, 64), torch.zeros(2, 259), torch.tensor([0.0, 1.0]))
    output = Output(
        image=torch.full((2, 5, 64, 64), 2.0),
        spectrum=torch.tensor([[3.0], [100.0]]).expand(2, 259),
        joint=torch.zeros(2, 512),
        redshift=torch.tensor([0.15, 1.0]),
    )
    image_mask = torch.zeros(2, 64, dtype=torch.bool)
    image_mask[:, :16] = True
    spectrum_mask = torch.ones(2, 32, dtype=torch.bool)
    done = losses(output, batch, image_mask, spectrum_mask, present=torch.tensor([True, False]))
    assert done.image.item() == 4
    assert done.spectrum.item() == 9
    assert done.redshift.item() == pytest.approx(0.25)  # dz / 0.15 is 1 and 0: losses 1/2 and 0
    assert done.total.item() == pytest.approx(0.1 * 4 + 0.01 * 9 + 0.25)
