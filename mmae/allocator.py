"""How the C library keeps large buffers."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of glibc's malloc.h."""
VARIABLES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "99999999999"}
"""What `keep_freed` does, for processes that are started with it: 15-30 % of the time of inference."""


def keep_freed() -> None:
    """Keep what this process frees for its next buffers, instead of giving it back to the system.

    To be given it anew, page by page, takes longer than filling it.
    """
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
