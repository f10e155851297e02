"""Numbers that depend on an object's id alone, whatever file, batch or machine it is in."""

import numpy as np


def hash_ids(object_id: np.ndarray) -> np.ndarray:
    """(N,) int64 -> (N,) uint64, evenly spread: the finaliser of SplitMix64 (Steele, Lea & Flood 2014)."""
    x = object_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
