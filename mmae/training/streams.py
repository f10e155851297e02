"""The streams of random numbers of a run, each with a seed of its own."""

import numpy as np

MASKS, DROPOUT = range(2)


def stream_seed(seed: int, *key: int) -> int:
    """Seed of one of the random streams of a run."""
    return int(np.random.SeedSequence(seed, spawn_key=key).generate_state(1, np.uint64)[0])
