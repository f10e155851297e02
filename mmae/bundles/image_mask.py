"""Test-time masking: which tokens of an image are hidden when its redshift is drawn."""

from dataclasses import dataclass

import numpy as np

from catalogs.object_id import hash_ids
from catalogs.ranges import check_range

MAX_DRAWS = 1000


@dataclass(frozen=True)
class Masking:
    """Test-time masking: hide a part of every image, as in training, and average over several draws of it."""

    ratio: float = 0.0
    """Share of image tokens hidden."""
    draws: int = 1
    """Each costs what the visible tokens cost."""
    seed: int = 0
    """Which tokens are hidden depends on it and on the object's id."""

    def __post_init__(self) -> None:
        check_range("--image-mask", self.ratio, 0, 1)
        check_range("--draws", self.draws, 1, MAX_DRAWS)


WHOLE = Masking()
"""Nothing is hidden."""


def visible_tokens(object_id: np.ndarray, tokens: int, ratio: float, draw: int, seed: int) -> np.ndarray:
    """Tokens that stay visible when `int(ratio * tokens)` of each galaxy are hidden, by number: (N, V) int64.

    They depend on the object's id, the draw and the seed, and on nothing else: not on the batch the object is
    in. Noise is SplitMix64 of a counter (Steele, Lea & Flood 2014), the id and the seed say where it begins.
    """
    begin = hash_ids(object_id) ^ hash_ids(np.array([~seed]))  # (N,)
    noise = hash_ids(begin[:, None] + np.arange(draw * tokens, (draw + 1) * tokens, dtype=np.uint64))
    return np.sort(noise.argsort(1, kind="stable")[:, int(ratio * tokens) :], axis=1)
