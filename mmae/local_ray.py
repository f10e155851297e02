"""A private Ray on this machine: reachable by its owner only, gone with its driver."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from catalogs import atomic

# Ray reads these when it is imported, and never again.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}

import ray

PREFIX = "mmae-ray-"
STARTING_SECONDS = 60.0
OBJECT_STORE = 100 * 2**20
"""Bytes; unit numbers and manifests pass through it, never pixels."""
ACTOR_VARIABLES = {
    "OMP_NUM_THREADS": "1",
    # else glibc returns large buffers and takes them anew at every batch, for 15-30 % of the time
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "99999999999",
}


@contextlib.contextmanager
def started(workers: int) -> Iterator[None]:
    """Run a local Ray for `workers` actors, whatever RAY_ADDRESS says; SIGTERM ends it as Ctrl-C does.

    Token authentication is on, the token and the sockets are in a directory of mode 0700 with a short name
    (a socket's path must stay below 107 bytes), and every port is bound to the loopback address.
    """
    sweep()
    root = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    token = root / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    with atomic.owned(root):
        try:
            with private_umask():
                ray.init(
                    address="local",
                    num_cpus=workers,
                    include_dashboard=False,
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    object_store_memory=OBJECT_STORE,
                    _temp_dir=str(root),
                    _node_ip_address="127.0.0.1",
                )
            previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                yield
            finally:
                signal.signal(signal.SIGTERM, previous)
        finally:
            ray.shutdown()
            shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    previous = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(previous)


def sweep() -> None:
    """Remove the directories of drivers that were killed.

    A living driver holds the lock of its own, in whatever PID namespace or container it lives; one that is
    just starting may not hold it yet.
    """
    for root in Path("/tmp").glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, in use, or gone by now
            if time.time() - root.stat().st_mtime > STARTING_SECONDS:
                with atomic.owned(root):
                    shutil.rmtree(root, ignore_errors=True)
