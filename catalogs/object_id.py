"""Hashes of object ids, independent of file, batch and machine."""

import numpy as np


def hash_ids(object_id: np.ndarray) -> np.ndarray:
    """Uniform hashes (N,) uint64 of ids (N,) int64: SplitMix64's finaliser (Steele, Lea & Flood 2014)."""
    x = object_id.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
