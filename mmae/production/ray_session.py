"""A Ray session: a private one that ends with its driver, or a cluster that is joined by its address."""

import contextlib
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from catalogs import atomic
from mmae import cli, environment
from mmae.production import ray_needs

# Ray reads these when it is imported, and never again.
os.environ |= {
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # the user's own; by default 15, a ninetieth of the rate beside other work
    "RAY_IGNORE_UNHANDLED_ERRORS": "1",  # each a page; the first one ends the run with a sentence of ours
    # The node is not there at the first try: the second was after a second, and there were ten.
    "RAY_raylet_client_connect_timeout_milliseconds": "100",
    "RAY_raylet_client_num_connect_attempts": "100",
    "RAY_NUM_REDIS_GET_RETRIES": "1",  # tries to reach the head, of 40 s each
    # On Linux too; with clusters Ray takes another address for 127.0.0.1, and listens on all there are.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}

import ray

PREFIX = "mmae-ray-"
TEMPORARY = "ray"
"""Folder of Ray's sockets and logs, below one of mode 0700: Ray opens it to everybody, whatever the umask."""
TOKEN_VARIABLE = "RAY_AUTH_TOKEN_PATH"
TOKEN = secrets.token_hex(32)
"""Of every session that this process starts: Ray reads its file once."""
STARTING_SECONDS = 55.0
"""How long Ray may take to start, or to take us in; after a minute without its head it ends us."""
IN_FLIGHT = 2
"""Units an actor has at a time: one to compute, one to prefetch."""
CONTROL = "control"
"""Concurrency group of an actor whose calls are answered while it works."""
CAPACITY_SECONDS = 5.0
"""How long the size of the cluster is taken as known."""
ANSWER_SECONDS, ANSWER_TRIES, RETRY_SECONDS = 10.0, 3, 1.0
"""How long the head of the cluster may take to answer, how often it is asked, and when again."""
HTTP2_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Preface and empty settings, as gRPC begins; a server answers with its own settings (RFC 9113, 3.4)."""
QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}


@contextlib.contextmanager
def started(workers: int, node_address: str = "127.0.0.1", token: Path | None = None) -> Iterator[str]:
    """Start a Ray of our own for `workers` actors here, whatever RAY_ADDRESS says; yields its address.

    Token authentication is on; the token, unless one is given, and the sockets are below a directory of mode
    0700 with a short name (a socket's path must stay below 107 bytes). At 127.0.0.1 Ray listens nowhere else;
    at any other address it listens on all of the machine, and the token keeps others out. Raises OSError
    where Ray does not start.
    """
    sweep()
    root = Path(tempfile.mkdtemp(prefix=PREFIX, dir="/tmp"))
    with atomic.owned(root):
        try:
            ray_needs.check(root, workers, node_address)
            os.environ[TOKEN_VARIABLE] = str(token or token_file(root))
            with (
                private_umask(),
                worker_environment(),
                failing_as("Ray does not start on this machine", root),
            ):
                ray.init(
                    address="local",
                    num_cpus=workers,
                    include_dashboard=False,
                    object_store_memory=ray_needs.OBJECT_STORE,
                    _temp_dir=str(root / TEMPORARY),
                    _node_ip_address=node_address,
                    **QUIET,
                )
            with terminated_as_interrupted():
                yield ray.get_runtime_context().gcs_address
        except OSError:
            kill_users(root)  # of which one may hang, and Ray would wait for it
            raise
        finally:
            ray.shutdown()
            kill_users(root)
            shutil.rmtree(root, ignore_errors=True)


@contextlib.contextmanager
def joined(address: str) -> Iterator[str]:
    """Connect as a driver to the cluster at HOST:PORT, of which this machine is a node.

    The token is the one that RAY_AUTH_TOKEN_PATH names. Raises OSError where the cluster does not accept us.
    """
    with failing_as(f"the Ray cluster at {address} does not take us in"):
        ray.init(address=address, runtime_env={"env_vars": environment.WORKER}, **QUIET)
    try:
        with terminated_as_interrupted():
            yield address
    finally:
        ray.shutdown()


@contextlib.contextmanager
def failing_as(sentence: str, root: Path | None = None) -> Iterator[None]:
    """Raise OSError with the sentence for whatever Ray raises; end this process where it raises nothing.

    Ray may wait in its C++ for a process that has died or hangs, where no error can be raised from outside.
    """

    def failure(reason: str) -> OSError:
        return OSError(f"{sentence} ({reason.rstrip('.: ')}); the same command goes on from here")

    def give_up() -> None:
        reason = f"it gave no answer for {STARTING_SECONDS:.0f} s"
        print(f"mmae: {failure(reason)}", file=sys.stderr, flush=True)
        if root:
            kill_users(root)
            shutil.rmtree(root, ignore_errors=True)
        os._exit(cli.IO_FAILED)

    timer = threading.Timer(STARTING_SECONDS, give_up)
    timer.start()
    try:
        yield
    except SystemExit:  # Ray's own answer to SIGTERM
        raise KeyboardInterrupt from None
    except Exception as error:  # of any class: ConnectionError, RuntimeError, Exception itself
        raise failure(str(error).partition("\n")[0] or type(error).__name__) from error
    finally:
        timer.cancel()


def token_file(folder: Path) -> Path:
    """Write the secret of this process to a file that only its owner can read."""
    token = folder / "token"
    token.touch(mode=0o600)
    token.write_text(TOKEN)
    return token


@contextlib.contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Make SIGTERM, which Ray has taken, end this process as Ctrl-C does."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class Capacity:
    """How many actors the nodes of the cluster have room for: one a GPU, or one a core if there is none.

    most : actors at most; 0: as many as there is room for
    alone : whether this machine is the only node, and none can join
    """

    def __init__(self, most: int, alone: bool):
        self.most, self.alone = most, alone
        self.updated, self.resources = -CAPACITY_SECONDS, dict[str, float]()

    def __call__(self) -> int:
        """Raises OSError where the head of the cluster does not answer, or the only node is lost."""
        if time.monotonic() - self.updated > CAPACITY_SECONDS:
            address = ray.get_runtime_context().gcs_address
            if not answers(address):  # Ray would wait for a minute, and end this process without a word
                raise OSError(
                    f"Ray's head at {address} has died or hangs; the same command goes on from here"
                )
            self.updated, self.resources = time.monotonic(), ray.cluster_resources()
        room = int(self.resources.get("GPU", 0) or self.resources.get("CPU", 0))
        if self.alone and not room:
            raise OSError(
                "Ray's raylet on this machine has died or hangs; the same command goes on from here"
            )
        return min(room, self.most) if self.most else room


def answers(address: str) -> bool:
    """Whether the head of the cluster at HOST:PORT answers; a connection may be lost on a busy network.

    The system accepts connections also for a process that hangs, which then says nothing.
    """
    host, _, port = address.rpartition(":")
    for _ in range(ANSWER_TRIES):
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, int(port)), ANSWER_SECONDS) as head,
        ):
            head.sendall(HTTP2_GREETING)
            if head.recv(1):
                return True
        time.sleep(RETRY_SECONDS)
    return False


def actor_type(kind: type) -> Any:
    """The class as a Ray actor with a core, and a GPU where the cluster has some."""
    options: dict[str, Any] = {
        "num_cpus": 1,
        "num_gpus": 1 if ray.cluster_resources().get("GPU") else 0,
        "max_concurrency": IN_FLIGHT,
        "concurrency_groups": {CONTROL: 1},
    }
    return ray.remote(**options)(kind)


@contextlib.contextmanager
def private_umask() -> Iterator[None]:
    previous = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(previous)


@contextlib.contextmanager
def worker_environment() -> Iterator[None]:
    """Set up libraries as for workers in the processes that are started meanwhile, which hand it on.

    Ray starts a process for each core together with its node; an actor that asks for another environment
    would not take it, but wait for one of its own.
    """
    previous = {name: os.environ.get(name) for name in environment.WORKER}
    os.environ |= environment.WORKER
    try:
        yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name)
            if value is not None:
                os.environ[name] = value


def kill_users(folder: Path) -> None:
    """Kill processes of our Ray with files open below the folder: its agents outlive its head by a minute.

    They have inherited the path of our token, or have written `ray::` and a title over their environment;
    whoever reads a log there with a program of his own has not.
    """
    token = f"{TOKEN_VARIABLE}={os.environ.get(TOKEN_VARIABLE)}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone by now
            title, environment = ((process / name).read_bytes() for name in ("cmdline", "environ"))
            if process.name == str(os.getpid()) or not (title.startswith(b"ray::") or token in environment):
                continue
            if any(file.resolve().is_relative_to(folder) for file in (process / "fd").iterdir()):
                os.kill(int(process.name), signal.SIGKILL)


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
