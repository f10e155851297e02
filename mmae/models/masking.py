"""Which tokens are hidden in training. A mask is boolean, (B, tokens), True = hidden."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Masks(NamedTuple):
    """What of galaxies the model may not see, and how it sees the rest."""

    image: Tensor
    """(B, 64) bool, tokens, True = hidden"""
    spectrum: Tensor
    """(B, T) bool, tokens, True = hidden; all of them where there is no spectrum"""
    target: Tensor
    """(B, T) bool, True = hidden, and to be rebuilt"""
    turn: Tensor
    """(B,) int64, which of the eight symmetries of a square the image is turned by; 0 leaves it"""

    def rows(self, which: "slice | np.ndarray") -> "Masks":
        return Masks(*(tensor[which] for tensor in self))

    def to(self, device: torch.device) -> "Masks":
        return Masks(*(tensor.to(device) for tensor in self))

    def counts(self) -> Tensor:
        """(3,) float32: image tokens and spectrum tokens to be rebuilt, galaxies."""
        galaxies = torch.ones_like(self.turn)
        return torch.stack([what.sum() for what in (self.image, self.target, galaxies)]).float()


def random_mask(batch: int, tokens: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide `int(ratio * tokens)` tokens of each galaxy, drawn without replacement: (B, tokens)."""
    assert 0 <= ratio <= 1, ratio
    noise = torch.rand(batch, tokens, generator=generator)
    return noise.argsort(1).argsort(1) < int(ratio * tokens)


def without_spectrum(mask: Tensor, present: Tensor) -> Tensor:
    """Hide the whole spectrum of the galaxies that have none; `present` is (B,), True = has one."""
    return mask | ~present[:, None]


def turned(image: Tensor, turn: Tensor) -> Tensor:
    """Images (B, bands, S, S), each turned by `turn` (B,) quarters, from 4 on after a flip."""
    if not turn.any():
        return image
    done = image.clone()
    for which in range(1, 8):
        rows = turn == which
        done[rows] = torch.rot90(image[rows].flip(3) if which > 3 else image[rows], which % 4, (2, 3))
    return done
