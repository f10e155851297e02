"""Aperture photometry of the visible part of an image, the main information on its redshift.

Magnitudes of a galaxy in five bands are nearly equal, and its redshift is in their small differences. So they
are whitened: all directions in which the photometry of galaxies varies have the same variance.
"""

import torch
from torch import Tensor, nn

from catalogs.store.format import BANDS
from mmae.models.linear import product
from mmae.models.rings import rings, sums
from mmae.models.whitening import whitening

RADII = (3.0, 5.0, 8.0, 12.0, 20.0, 32.0)
"""Radii of the apertures, pixels: 0.5 to 5.4 arcsec."""
FLOOR = 1e-4
"""Smallest variance of the asinh magnitudes with information: that of 0.01 mag."""


def asinh(x: Tensor) -> Tensor:
    """asinh in functions that torch vectorises: half the time of torch.asinh, equal to 1e-6."""
    return (x.abs() + (x * x + 1).sqrt()).log().copysign(x)


class Photometry(nn.Module):
    """Whitened asinh magnitudes in concentric apertures, and the visible fraction of each ring."""

    features = len(RADII) * (len(BANDS) + 1)
    rings: Tensor
    centre: Tensor
    whiten: Tensor

    def __init__(self) -> None:
        super().__init__()
        width = len(RADII) * len(BANDS)
        self.register_buffer("rings", rings(RADII), persistent=False)
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("whiten", torch.eye(width))

    def forward(self, pixels: Tensor, shown: Tensor) -> Tensor:
        """Features (B, 36) of patches (B, 64, 320) in units of the sky noise.

        shown (B, 64), of the type of the pixels: 1 = the token is visible, 0 = hidden.
        """
        magnitudes, visible = self.measure(pixels, shown)
        return torch.cat([asinh(product(magnitudes - self.centre, self.whiten.t())), visible], 1)

    def measure(self, pixels: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
        """asinh of signal to noise in apertures, (B, 30), and the visible fraction of each ring, (B, 6).

        The hidden part of a ring is assumed to be as bright as the visible part.
        """
        flux, seen = sums(pixels, shown, self.rings)
        area = self.rings.sum(1)
        flux = flux * (area / seen.clamp(min=1)).unsqueeze(1)
        ratio = flux.cumsum(2) / area.cumsum(0).sqrt()
        return asinh(ratio).flatten(1), seen / area

    @torch.inference_mode()
    def fit(self, pixels: Tensor) -> None:
        """Fit the whitening to patches (N, 64, 320) of images without masks, in units of the sky noise."""
        magnitudes, _ = self.measure(pixels, torch.ones_like(pixels[:, :, 0]))
        centre, whiten = whitening(magnitudes, FLOOR)
        self.centre.copy_(centre)
        self.whiten.copy_(whiten)
