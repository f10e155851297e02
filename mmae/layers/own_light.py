"""Light of the object in the middle of an image, without that of others: a galaxy is alike on opposite sides.

What shines on one side of the middle, and not on the other, is a neighbour's, or a star's. A bright one in
apertures made every fourth redshift an outlier; with its pixels left out few are (artefacts.md).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmae.layers.branches import are_free
from mmae.layers.patches import known_pixels

SIGMA, RATIO = 5.0, 2.0
"""How much brighter than the opposite pixel another's light is, at the least: in units of the noise of such
differences, and as a ratio."""
CORE = 6.0
"""Pixels from the middle within which all light is the object's own: its middle is not quite the image's."""
STRIDE = 4
"""Every so many pixels, in either direction, tell the noise; neighbouring ones would tell the same."""


def own_pixels(image: Tensor, noise: Tensor, own_light: bool) -> tuple[Tensor, Tensor]:
    """Images (B, bands, 64, 64) in units of the noise (bands,), 0 where nothing is seen; and where it is.

    That, 1 or 0, is where there are data (not NaN), and no light of another source, if own light alone is
    asked for. It is (B, 1, 64, 64) where all bands have data everywhere, as most have: a fifth of the work.
    """
    known = torch.ones_like(image[:, :1])
    if are_free(image) or image.sum().isnan():  # a twentieth of the time of isnan().any()
        image, known = known_pixels(image)
    image = image / noise.view(-1, 1, 1)
    if not own_light:
        return image, known
    own = (~others(image, known)).to(image.dtype).unsqueeze(1)
    return image * own, known * own


def others(
    image: Tensor,
    known: Tensor,
    sigma: float = SIGMA,
    ratio: float = RATIO,
    core: float = CORE,
    stride: int = STRIDE,
) -> Tensor:
    """Where another source shines, (B, 64, 64) bool.

    image (B, bands, 64, 64) in units of the noise, 0 where it is not known; known, of this shape or
    (B, 1, 64, 64): 1 or 0. The rest are arguments for TorchScript.
    """
    light = around(image.sum(1)) / 9
    opposite = light.flip(1, 2)
    seen = known.amax(1)
    there = seen * seen.flip(1, 2)
    more = (light - opposite) * there
    noise = 1.4826 * more[:, ::stride, ::stride].flatten(1).abs().median(1)[0]
    least = torch.maximum(opposite + sigma * noise.view(-1, 1, 1), ratio * opposite)
    brighter = (light > least).to(image.dtype) * there
    size = image.shape[2]
    place = torch.arange(size, dtype=image.dtype, device=image.device) - (size - 1) / 2
    outside = place.square().unsqueeze(1) + place.square() > core**2
    return (around(brighter) > 0.5) & outside


def around(values: Tensor) -> Tensor:
    """Sums (B, 64, 64) over each pixel and the eight about it; beyond the edge there is nothing."""
    wide = F.pad(values, (1, 1, 1, 1))
    rows = wide[:, 2:] + wide[:, 1:-1] + wide[:, :-2]
    return rows[:, :, 2:] + rows[:, :, 1:-1] + rows[:, :, :-2]
