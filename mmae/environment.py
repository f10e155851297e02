"""How the libraries are set up: OpenMP's threads, MKL's sums, the C library's buffers, a home.

They read the environment once, when they are loaded: `mmae/__init__.py` sets DEFAULTS before torch is, and
workers of inference are started with WORKER.
"""

import contextlib
import ctypes
import os
import pwd

DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads that wait for each other sleep. Spinning, they take the cores that the others wait for, where
another process is at work: an epoch then takes four times as long."""
NOBODY = {"HOME": "/nonexistent", "USER": "nobody"}
"""Of a user whom the system does not know, as in containers: libraries ask for a home and a name, and fail
without; one that is not there they can do without."""
WORKER = {
    "OMP_NUM_THREADS": "1",  # two workers of one thread are faster than one of two
    "MKL_CBWR": "AUTO,STRICT",  # sums in one order, wherever a row stands: 3 % of the time of fp32 products
    "MALLOC_MMAP_MAX_": "0",  # freed buffers are kept, as by keep_freed: 15-30 % of the time of inference
    "MALLOC_TRIM_THRESHOLD_": "99999999999",
}
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Numbers of glibc's malloc.h."""


def set_defaults() -> None:
    """Set what the user has not set; to be called before torch is imported."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    with contextlib.suppress(KeyError):
        pwd.getpwuid(os.getuid())
        return
    for name, value in NOBODY.items():
        os.environ.setdefault(name, value)


def keep_freed() -> None:
    """Make the C library keep freed memory for the next buffers, instead of returning it to the system.

    Getting it anew, page by page, takes longer than filling it.
    """
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
