"""The three losses of the paper (section 4) and their weights. Masks: True = hidden."""

from typing import NamedTuple

import torch
from torch import Tensor

from mmae.data import Batch
from mmae.model import ModelConfig, Output

IMAGE_WEIGHT, SPECTRUM_WEIGHT, REDSHIFT_WEIGHT = 0.1, 0.01, 1.0
HSC_WIDTH = 0.15


class Losses(NamedTuple):
    total: Tensor
    image: Tensor
    spectrum: Tensor
    redshift: Tensor


def combined(image: Tensor, spectrum: Tensor, redshift: Tensor) -> Losses:
    """0.1 image + 0.01 spectrum + 1.0 redshift."""
    total = IMAGE_WEIGHT * image + SPECTRUM_WEIGHT * spectrum + REDSHIFT_WEIGHT * redshift
    return Losses(total, image, spectrum, redshift)


def redshift_loss(predicted: Tensor, redshift: Tensor) -> Tensor:
    """Mean of 1 - 1 / (1 + (dz / 0.15)^2), dz = (z_pred - z) / (1 + z) (Tanaka et al. 2018); inputs (B,)."""
    dz = (predicted - redshift) / (1 + redshift)
    return (1 - 1 / (1 + (dz / HSC_WIDTH) ** 2)).mean()


def masked_mse(predicted: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    """Mean squared error over the pixels where `hidden` (same shape, boolean); 0 where there are none."""
    squares = torch.where(hidden, (predicted - truth) ** 2, 0.0)
    return squares.sum() / hidden.sum().clamp(min=1)


def image_pixels(mask: Tensor, shape: torch.Size) -> Tensor:
    """Token mask (B, 64), row by row -> pixel mask (B, bands, H, W)."""
    batch, bands, height, width = shape
    side = int(mask.shape[1] ** 0.5)
    grid = mask.view(batch, 1, side, side)
    grid = grid.repeat_interleave(height // side, 2).repeat_interleave(width // side, 3)
    return grid.expand(batch, bands, height, width)


def spectrum_pixels(mask: Tensor, length: int, patch: int) -> Tensor:
    """Token mask (B, 32) -> pixel mask (B, length); pixels beyond the last token are never hidden."""
    pixels = mask.repeat_interleave(patch, 1)
    return torch.nn.functional.pad(pixels, (0, length - pixels.shape[1]))


def losses(
    output: Output, batch: Batch, image_mask: Tensor, spectrum_mask: Tensor, present: Tensor
) -> Losses:
    """The losses of a batch.

    Masks (B, 64) and (B, 32); present (B,), True where the galaxy's spectrum was given: one that was not is
    nothing to be rebuilt.
    """
    on_image = masked_mse(output.image, batch.image, image_pixels(image_mask, batch.image.shape))
    hidden = spectrum_pixels(spectrum_mask, batch.spectrum.shape[1], ModelConfig.patch) & present[:, None]
    on_spectrum = masked_mse(output.spectrum, batch.spectrum, hidden)
    return combined(on_image, on_spectrum, redshift_loss(output.redshift, batch.redshift))
