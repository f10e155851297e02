"""A process of Ray that is killed, or hangs, while Ray starts: the run ends in a minute with a sentence."""

import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from killing import wait_for

from mmae import cli
from mmae.production.ray_session import PREFIX, STARTING_SECONDS

pytestmark = pytest.mark.slow
START = """
import sys
from mmae import cli
from mmae.production import ray_session

def main():
    ray_session.STARTING_SECONDS = float(sys.argv[1])
    with ray_session.started(1):
        print("Ray is up before the fault", file=sys.stderr)

sys.exit(cli.exit_code(main, "started"))
"""


@pytest.mark.parametrize(
    ("name", "fault", "seconds"),
    [
        ("gcs_server", signal.SIGSTOP, STARTING_SECONDS),
        ("gcs_server", signal.SIGSTOP, 3.0),  # while Ray waits in its C++
        ("raylet", signal.SIGKILL, STARTING_SECONDS),
        ("raylet", signal.SIGSTOP, STARTING_SECONDS),
    ],
)
def test_a_start_that_fails_is_one_sentence_and_leaves_nothing(name, fault, seconds):
    begun = time.monotonic()
    command = [sys.executable, "-c", START, str(seconds)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        session = f"{PREFIX}*/ray/session_*_{process.pid}"
        head_listens = f"{session}/gcs_server_port_*"
        wait_for(lambda: list(Path("/tmp").glob(head_listens)) and child(process, name), process)
        before = psutil.Process(process.pid).children(recursive=True)
        child(process, name).send_signal(fault)
        before += psutil.Process(process.pid).children(recursive=True)
        words = process.stderr.read()
    assert process.returncode == cli.IO_FAILED, words
    *warnings, sentence = words.splitlines()
    assert "Ray does not start on this machine (" in sentence
    assert sentence.endswith("; the same command goes on from here")
    assert all(" W " in line for line in warnings)  # of Ray, while it waits for its head
    assert time.monotonic() - begun < seconds + 10
    assert not list(Path("/tmp").glob(session))
    _, alive = psutil.wait_procs(before, timeout=10)
    assert not alive


def child(process, name):
    with contextlib.suppress(psutil.NoSuchProcess):
        for found in psutil.Process(process.pid).children(recursive=True):
            if found.name() == name:
                return found
    return None
