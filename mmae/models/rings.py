"""Pixels of an image by their distance from its centre, where the galaxy is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from catalogs.store.format import SIZE
from mmae.models.linear import product
from mmae.models.patches import patches


def rings(edges: Sequence[float]) -> Tensor:
    """Ring of each pixel, one-hot, in the order of the patches: (len(edges), 64 x 64).

    Ring k lies between edges k - 1 and k, in pixels; pixels beyond the last edge are in none.
    """
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    bounds = torch.tensor((0.0, *edges))
    inside = (bounds[:-1, None, None] <= radius) & (radius < bounds[1:, None, None])
    return patches(inside[:, None].float()).flatten(1)


def sums(pixels: Tensor, shown: Tensor, rings: Tensor) -> tuple[Tensor, Tensor]:
    """Flux of the visible pixels of each ring, (B, 5, R), and their number, (B, R).

    pixels (B, 64, 320); shown (B, 64), of their type: 1 = the token is visible, 0 = hidden.
    """
    weights = shown.repeat_interleave(rings.shape[1] // shown.shape[1], 1)  # (B, 4096)
    planes = pixels.unflatten(2, (-1, weights.shape[1] // shown.shape[1])).transpose(1, 2).flatten(2)
    return product(planes * weights.unsqueeze(1), rings), product(weights, rings)
