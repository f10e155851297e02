"""Pixels of an image by their distance from its centre, where the galaxy is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from catalogs.store.format import SIZE
from mmae.layers.linear import product
from mmae.layers.patches import patches


def rings(edges: Sequence[float]) -> Tensor:
    """Ring of each pixel, one-hot, in the order of the patches: (len(edges), 64 x 64).

    Ring k lies between edges k - 1 and k, in pixels; pixels beyond the last edge are in none.
    """
    axis = torch.arange(SIZE) - (SIZE - 1) / 2
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    bounds = torch.tensor((0.0, *edges))
    inside = (bounds[:-1, None, None] <= radius) & (radius < bounds[1:, None, None])
    return patches(inside[:, None].float()).flatten(1)


def sums(pixels: Tensor, weights: Tensor, rings: Tensor) -> tuple[Tensor, Tensor]:
    """Flux of the visible pixels of each ring, and their number: (B, bands, R) each.

    pixels (B, 64, bands * 64), finite; weights, of their shape and type: 1 = visible, 0 = not; or (B, 64, 64)
    for all bands, and the pixels are 0 where not. With the same bits in either way.
    """
    number = product(by_band(weights, rings), rings)
    if weights.shape[2] != pixels.shape[2]:
        flux = product(by_band(pixels, rings), rings)
        return flux, number.expand_as(flux)
    return product(by_band(pixels * weights, rings), rings), number


def by_band(tokens: Tensor, rings: Tensor) -> Tensor:
    """Values (B, 64, bands * 64) of the pixels of patches, band by band: (B, bands, 4096).

    rings (..., 4096): of which only the number of pixels counts
    """
    of_patch = rings.shape[1] // tokens.shape[1]
    return tokens.unflatten(2, (-1, of_patch)).transpose(1, 2).flatten(2)
