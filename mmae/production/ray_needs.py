"""What Ray needs of a machine, tried before it starts.

Where one of these is missing, Ray aborts this process or waits for half a minute, and does not say why.
"""

import resource
import shutil
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OBJECT_STORE = 100 * 2**20
"""Bytes of Ray's shared memory; unit numbers and manifests pass through it, never pixels."""
FOLDER_BYTES = 10 * 2**20
"""Of Ray's sockets and logs, at their start."""
THREADS, THREADS_A_WORKER = 160, 30
"""Of Ray 2.60 on two cores: 157 in its own processes, and 26 in each actor."""
STACK = 64 * 2**10
CONNECT_SECONDS = 5.0


def check(folder: Path, workers: int, address: str) -> None:
    """Raises OSError where Ray, in `folder` and with so many workers, could not start at this address."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    needed = OBJECT_STORE + FOLDER_BYTES
    if most != resource.RLIM_INFINITY and most < needed:
        raise OSError(f"files may have {most} bytes here, and Ray needs {needed}: raise `ulimit -f`")
    if (free := shutil.disk_usage(folder).free) < FOLDER_BYTES:
        raise OSError(f"{folder.parent} has {free} bytes left, and Ray needs {FOLDER_BYTES}: make room there")
    check_threads(THREADS + THREADS_A_WORKER * workers)
    check_address(address)


def check_threads(number: int) -> None:
    """Start as many threads as Ray will, in it and in its workers; a container's limit counts them too."""
    with small_stacks():
        end, threads = threading.Event(), [threading.Thread(target=lambda: end.wait()) for _ in range(number)]
        started = 0
        try:
            for thread in threads:
                thread.start()
                started += 1
        except RuntimeError:
            raise OSError(
                f"{started} more threads may be started here, and Ray with its workers needs {number}: "
                "raise `ulimit -u`, or the limit of the container or job, or give fewer --workers"
            ) from None
        finally:
            end.set()
            for thread in threads[:started]:
                thread.join()


@contextmanager
def small_stacks() -> Iterator[None]:
    previous = threading.stack_size(STACK)
    try:
        yield
    finally:
        threading.stack_size(previous)


def check_address(address: str) -> None:
    """Listen on a free port of the address, and connect to it."""
    try:
        with socket.create_server((address, 0)) as server:
            socket.create_connection(server.getsockname(), CONNECT_SECONDS).close()
    except OSError as error:
        raise OSError(
            f"the processes of Ray cannot reach each other at {address} ({error.strerror or error}): "
            "is the network interface up, and a port free?"
        ) from error
