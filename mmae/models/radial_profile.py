"""Circularly symmetric model of a galaxy: the first guess of the hidden part of its image."""

import torch
from torch import Tensor, nn

from mmae.models.patches import IMAGE_TOKENS
from mmae.models.rings import rings, sums

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

    def forward(self, pixels: Tensor, shown: Tensor) -> Tensor:
        """Patches (B, 64, 320) of the symmetric galaxy; 0 where nothing is visible.

        pixels (B, 64, 320); shown (B, 64), of their type: 1 = the token is visible, 0 = hidden.
        """
        flux, number = sums(pixels, shown, self.rings)
        weight = (number @ self.kernel).clamp(min=torch.finfo(pixels.dtype).tiny)
        profile = (flux @ self.kernel) / weight.unsqueeze(1)  # (B, 5, rings)
        planes = profile[:, :, self.rings.argmax(0)]  # (B, 5, 4096)
        return planes.unflatten(2, (IMAGE_TOKENS, -1)).transpose(1, 2).flatten(2)
