"""A Ray session of our own: closed to other users, gone with its driver, no danger to other processes."""

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from mmae.production import ray_session
from mmae.production.ray_session import (
    HTTP2_GREETING,
    PREFIX,
    RETRY_SECONDS,
    TOKEN_VARIABLE,
    answers,
    started,
)

pytestmark = pytest.mark.slow
NOBODY = 65534


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can act as another user")
def test_another_user_and_machine_reach_nothing_and_a_reader_of_logs_lives_on():
    """In a process of its own, as Ray reads a token once in the life of one."""
    done = subprocess.run([sys.executable, __file__], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_head_that_misses_one_connection_is_not_dead():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = "{}:{}".format(*server.getsockname())
    assert not answers(address)

    def listen():
        time.sleep(RETRY_SECONDS / 2)  # the first try finds nobody
        with socket.create_server(("127.0.0.1", int(address.split(":")[1]))) as server:
            server.settimeout(10 * RETRY_SECONDS)
            head, _ = server.accept()
            with head:
                head.recv(len(HTTP2_GREETING))
                head.sendall(b"\0")

    thread = threading.Thread(target=listen)
    thread.start()
    begun = time.monotonic()
    assert answers(address)
    assert time.monotonic() - begun >= RETRY_SECONDS
    thread.join()


def test_a_head_that_accepts_and_says_nothing_does_not_answer(monkeypatch):
    """As the system does for a process that is stopped."""
    monkeypatch.setattr(ray_session, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not answers("{}:{}".format(*server.getsockname()))


def listening(processes):
    """Addresses at which any of the processes, or this one, takes connections."""
    connections = [
        each for process in (psutil.Process(), *processes) for each in process.net_connections("tcp")
    ]
    return {
        each.laddr.ip.removeprefix("::ffff:") for each in connections if each.status == psutil.CONN_LISTEN
    }


def main():
    with started(1):
        pass
    with started(1) as address:  # as good as the first in this process
        assert listening(psutil.Process().children(recursive=True)) == {"127.0.0.1"}
        assert address.startswith("127.0.0.1:")
        root = Path(os.environ[TOKEN_VARIABLE]).parent
        sockets = list((root / "ray").glob("session_*/sockets"))
        assert sockets
        for command in (
            ["ls", root],
            ["cat", root / "token"],
            ["ls", sockets[0]],
            ["mv", root / "ray", "/tmp/x"],
        ):
            done = subprocess.run(command, user=NOBODY, group=NOBODY, capture_output=True, text=True)
            assert done.returncode != 0
            assert "Permission denied" in done.stderr or "not permitted" in done.stderr
        log = next(root.glob("ray/session_*/logs/raylet.out"))
        environment = {name: value for name, value in os.environ.items() if name != TOKEN_VARIABLE}
        reader = subprocess.Popen(["tail", "-f", log], stdout=subprocess.DEVNULL, env=environment)
        time.sleep(0.5)  # until it has opened the file
    assert reader.poll() is None
    reader.kill()
    reader.wait()
    assert not list(Path("/tmp").glob(f"{root.name}*"))
    assert root.name.startswith(PREFIX)


if __name__ == "__main__":
    main()
