"""Masks of hidden tokens in training: boolean, (B, tokens), True = hidden."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Masks(NamedTuple):
    """Masks of a batch, and the rotations and flips of its images."""

    image: Tensor
    """(B, 64) bool, tokens, True = hidden"""
    spectrum: Tensor
    """(B, T) bool, tokens, True = hidden; all of them where there is no spectrum"""
    target: Tensor
    """(B, T) bool, True = hidden and to be rebuilt"""
    bands: Tensor
    """(B, bands) bool, True = hidden, in all of the image"""
    turn: Tensor
    """(B,) int64, index of one of the eight symmetries of a square, applied to the image; 0: identity"""

    def rows(self, which: "slice | np.ndarray") -> "Masks":
        return Masks(*(tensor[which] for tensor in self))

    def to(self, device: torch.device) -> "Masks":
        return Masks(*(tensor.to(device) for tensor in self))

    def counts(self) -> Tensor:
        """Numbers of patches, in single bands, and spectrum tokens to be rebuilt, and of galaxies: (3,)."""
        patches, galaxies = self.image.unsqueeze(1) | self.bands.unsqueeze(2), torch.ones_like(self.turn)
        return torch.stack([mask.sum() for mask in (patches, self.target, galaxies)]).float()


def random_mask(batch: int, tokens: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide `int(ratio * tokens)` tokens of each galaxy, drawn without replacement: (B, tokens)."""
    assert 0 <= ratio <= 1, ratio
    noise = torch.rand(batch, tokens, generator=generator)
    return noise.argsort(1).argsort(1) < int(ratio * tokens)


def random_bands(batch: int, bands: int, share: float, generator: torch.Generator) -> Tensor:
    """Hide bands of a share of the galaxies, at least one and all but two at most: (B, bands).

    Their number is drawn first, and then which they are.
    """
    draws, order = torch.rand(2, batch, 1, generator=generator), torch.rand(batch, bands, generator=generator)
    number = 1 + (draws[0] * max(0, bands - 2)).long()
    return (order.argsort(1).argsort(1) < number) & (draws[1] < share) & (bands > 2)


def without_spectrum(mask: Tensor, present: Tensor) -> Tensor:
    """Hide the whole spectrum of the galaxies that have none; `present` is (B,), True = has one."""
    return mask | ~present[:, None]


def turned(image: Tensor, turn: Tensor) -> Tensor:
    """Images (B, bands, S, S), each rotated by `turn` (B,) quarter turns, and flipped first from 4 on."""
    if not turn.any():
        return image
    result = image.clone()
    for symmetry in range(1, 8):
        rows = turn == symmetry
        flipped = image[rows].flip(3) if symmetry > 3 else image[rows]
        result[rows] = torch.rot90(flipped, symmetry % 4, (2, 3))
    return result
