"""An inference run at work, what it gives undisturbed, and the places in which it runs."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from infer_runs import command, digests

from mmae.production.ray_session import token_file


@pytest.fixture(scope="session")
def undisturbed(catalogue):
    """sha256 of the products of a run that nothing disturbs."""
    return digests(catalogue)


@pytest.fixture
def running(tile, bundle):
    """The command at work on a tile, in a session of its own."""
    process = subprocess.Popen(
        command(tile, bundle, "--workers", "1"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process
        if process.poll() is None:
            process.kill()


@pytest.fixture
def disk(tmp_path):
    """`disk(size)`: a folder that holds so much, with what it held before."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: it takes root")

    def resize(size):
        subprocess.run(["mount", "-o", f"remount,size={size}", folder], check=True)
        return folder

    yield resize
    subprocess.run(["umount", folder], check=True)


class Nodes:
    """A Ray cluster, to which nodes can be added."""

    def __init__(self, process, environment):
        self.process, self.environment = process, environment
        self.address = process.stdout.readline().strip()

    def add(self):
        """One more node with a core; gives its raylet."""
        print(file=self.process.stdin, flush=True)
        return psutil.Process(int(self.process.stdout.readline()))


@pytest.fixture
def nodes():
    root = Path(tempfile.mkdtemp(prefix="mmae-test-", dir="/tmp"))  # for the length of sockets' names
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token_file(root))}
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("ray_nodes.py"), root],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        yield Nodes(process, environment)
        process.stdin.close()
    shutil.rmtree(root)


@pytest.fixture(scope="session")
def library(tmp_path_factory):
    """The library that makes calls fail."""
    if not (compiler := shutil.which("cc")):
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("library") / "failing_calls.so"
    source = Path(__file__).with_name("failing_calls.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", made, source, "-ldl"], check=True)
    return made
