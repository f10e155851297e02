"""A private Ray on this machine: reachable by its owner only, gone with its driver."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}

import ray

PREFIX = "mmae-ray-"
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
    root = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir="/tmp"))
    token = root / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    os.environ["RAY_AUTH_TOKEN_PATH"] = str(token)
    previous_umask = os.umask(0o077)
    try:
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
        os.umask(previous_umask)
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)
    finally:
        os.umask(previous_umask)
        ray.shutdown()
        shutil.rmtree(root, ignore_errors=True)


def sweep() -> None:
    """Remove the directories of drivers that were killed."""
    for root in Path("/tmp").glob(f"{PREFIX}*"):
        pid = root.name.removeprefix(PREFIX).split("-")[0]
        if root.stat().st_uid == os.getuid() and pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(root, ignore_errors=True)
