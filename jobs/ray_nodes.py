"""A Ray cluster over the nodes of a job: the head in its first task, a node in each of the others.

They find each other (rendezvous) in the job's folder, which all nodes see and only its owner can enter: first
the token is there, then the head's address, and at the end a file that ends the cluster. Each node stops the
processes it has started, and no others.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from submitit.slurm.slurm import SlurmJobEnvironment

from catalogs import atomic
from mmae import environment
from mmae.production import ray_needs, ray_session

POLL_SECONDS = 0.5
STOPPING_SECONDS = 20.0
HEAD_SECONDS = 3600.0
"""Time that nodes wait for the head, which checks tiles and finished work first; it may also be dead."""


def own_address() -> str:
    """The address at which the other nodes of the job reach this one; the loopback's if there are none."""
    *others, last = SlurmJobEnvironment().hostnames
    if not others:
        return "127.0.0.1"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((last, 9))  # sends nothing, but has the system choose the way there
        return probe.getsockname()[0]


@dataclass(frozen=True)
class Rendezvous:
    """Files by which the tasks of a job find each other; every start of a requeued job has its own."""

    folder: Path

    @classmethod
    def of_this_job(cls, folder: Path) -> "Rendezvous":
        return cls(folder / f"ray-{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT', '0')}")

    @property
    def address(self) -> Path:
        return self.folder / "address"

    @property
    def over(self) -> Path:
        return self.folder / "over"

    @property
    def is_lost(self) -> bool:
        """Whether the head is gone without having ended the cluster."""
        if self.over.exists() or not self.address.exists():
            return False
        return not ray_session.answers(self.address.read_text())

    @contextlib.contextmanager
    def head(self, cpus: int) -> Iterator[str]:
        """Start the head on this node and publish its address, which is yielded."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        token = ray_session.token_file(self.folder)
        # Slurm warns every process of the job: those of Ray inherit that they ignore it
        warned = signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        with ray_session.started(cpus, own_address(), token) as address:
            signal.signal(signal.SIGUSR2, warned)
            with atomic.replacing(self.address) as temporary:
                temporary.write_text(address)
            try:
                yield address
            finally:
                token.unlink()

    def end(self) -> None:
        """Tell the other tasks that the cluster ends."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self.over.touch()

    def join(self, cpus: int) -> None:
        """Serve as a node of the cluster until it ends or is lost; wait an hour for its head."""
        deadline = time.monotonic() + HEAD_SECONDS
        while not self.address.exists():
            if self.over.exists() or time.monotonic() > deadline:
                return
            time.sleep(POLL_SECONDS)
        root = Path(tempfile.mkdtemp(prefix=ray_session.PREFIX, dir="/tmp"))
        with atomic.owned(root):
            try:
                self.serve(root, cpus)
            finally:
                shutil.rmtree(root, ignore_errors=True)

    def serve(self, root: Path, cpus: int) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray's processes inherit it
        flags = {
            "address": self.address.read_text(),
            "num-cpus": cpus,
            "object-store-memory": ray_needs.OBJECT_STORE,
            "temp-dir": root / ray_session.TEMPORARY,
            # any that is free: a node may belong to several jobs
            **dict.fromkeys(("min-worker-port", "max-worker-port", "dashboard-agent-listen-port"), 0),
        }
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block"]
        command += [f"--{name}={value}" for name, value in flags.items()]
        variables = os.environ | environment.WORKER
        variables |= {
            ray_session.TOKEN_VARIABLE: str(self.folder / "token"),
            "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",  # off for a Ray of one machine
            "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",  # else it waits half a minute for nothing
        }
        with subprocess.Popen(command, env=variables, umask=0o077) as node:
            while node.poll() is None and not self.over.exists():
                time.sleep(POLL_SECONDS)
            node.terminate()
            try:
                node.wait(STOPPING_SECONDS)
            except subprocess.TimeoutExpired:
                node.kill()
