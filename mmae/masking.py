"""Which tokens are hidden in training. A mask is boolean, (B, tokens), True = hidden."""

import torch
from torch import Tensor


def random_mask(batch: int, tokens: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide `int(ratio * tokens)` tokens of each galaxy, drawn without replacement: (B, tokens)."""
    assert 0 <= ratio <= 1, ratio
    noise = torch.rand(batch, tokens, generator=generator)
    return noise.argsort(1).argsort(1) < int(ratio * tokens)


def without_spectrum(mask: Tensor, present: Tensor) -> Tensor:
    """Hide the whole spectrum of the galaxies that have none; `present` is (B,), True = has one."""
    return mask | ~present[:, None]
