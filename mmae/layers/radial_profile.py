"""Circularly symmetric model of a galaxy: the first guess of the hidden part of its image."""

import torch
from torch import Tensor, nn

from mmae.layers.patches import IMAGE_TOKENS
from mmae.layers.rings import rings, sums

WIDTH = 0.7
"""Pixels over which the profile is smoothed."""
FAINT, REACH = 1e-3, 2.0
"""Weight of distant rings, and its decay length in pixels: they count where nearer ones are hidden."""


class RadialProfile(nn.Module):
    """Mean of the visible pixels at the same distance from the centre, band by band."""

    rings: Tensor
    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rings", rings(range(1, 47)), persistent=False)  # the corners are 44.5 away
        ring = torch.arange(len(self.rings))
        distance = (ring[:, None] - ring).abs().float()
        kernel = (-0.5 * (distance / WIDTH) ** 2).exp() + FAINT * (-distance / REACH).exp()
        self.register_buffer("kernel", kernel, persistent=False)

    def forward(self, pixels: Tensor, weights: Tensor) -> Tensor:
        """Patches (B, 64, bands * 64) of the symmetric galaxy; 0 in a band of which nothing is visible.

        pixels (B, 64, bands * 64), finite; weights, of their shape and type: 1 = visible, 0 = not.
        """
        flux, number = sums(pixels, weights, self.rings)
        weight = (number @ self.kernel).clamp(min=torch.finfo(pixels.dtype).tiny)
        profile = (flux @ self.kernel) / weight  # (B, bands, rings)
        planes = profile[:, :, self.rings.argmax(0)]  # (B, bands, 4096)
        return planes.unflatten(2, (IMAGE_TOKENS, -1)).transpose(1, 2).flatten(2)
