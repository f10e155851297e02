"""How the C library keeps large buffers."""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of glibc's malloc.h."""


def keep_freed() -> None:
    """Keep what this process frees for its next buffers, instead of giving it back to the system.

    To be given it anew, page by page, takes longer than filling it.
    """
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
