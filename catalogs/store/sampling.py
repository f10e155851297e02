"""Rows from all of a store, for figures that need not see every one."""

import numpy as np

BLOCK = 64
"""Rows read at a time."""


def spread(n: int, blocks: int) -> list[tuple[int, int]]:
    """Row ranges (start, stop) of at most `blocks` blocks of BLOCK rows, spread evenly over n rows."""
    available = -(-n // BLOCK)
    chosen = np.linspace(0, max(available - 1, 0), min(blocks, available)).round().astype(int).tolist()
    return [(BLOCK * k, min(n, BLOCK * (k + 1))) for k in chosen]
