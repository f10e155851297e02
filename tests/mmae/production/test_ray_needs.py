"""Where the machine lacks what Ray needs, a run ends with one sentence that says so, and leaves nothing.

Each in a process of its own, with the limit set from outside, as a shell or a batch system sets it.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from catalogs import atomic
from mmae import cli
from mmae.production import ray_needs
from mmae.production.ray_session import PREFIX, started

ROOT = Path(__file__).parents[3]
NOBODY = [
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    # to read this checkout, wherever it is: root itself is above the limit
    *("--inh-caps=+dac_override,+dac_read_search", "--ambient-caps=+dac_override,+dac_read_search"),
]
HELD_PORTS = """
import socket, subprocess, sys
held = [socket.create_server(("0.0.0.0", port)) for port in range(40000, 40004)]
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""
IN_A_NETWORK_WITH_FOUR_PORTS = (
    'ip link set lo up && sysctl -qw net.ipv4.ip_local_port_range=\'40000 40003\' && exec "$0" -c "$@"'
)

SMALL_TMP = """
mount -t tmpfs -o size=1m tmpfs "$0"
case "$1" in /tmp/*) mkdir -p "$0/${1#/tmp/}" && mount --bind "$1" "$0/${1#/tmp/}" ;; esac  # or it is hidden
mount --rbind "$0" /tmp && shift && exec "$@"
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user, or mount")


def refused(*prefix):
    """The sentence with which a start of Ray ends, by a command line that begins with `prefix`."""
    before = set(Path("/tmp").glob(f"{PREFIX}*"))
    command = map(str, (*prefix, sys.executable, __file__))
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    assert done.returncode == cli.IO_FAILED, done.stderr
    assert not [root for root in set(Path("/tmp").glob(f"{PREFIX}*")) - before if is_left(root)]
    (sentence,) = done.stderr.splitlines()
    return sentence


def is_left(root):
    """Whether the folder belongs to no living driver, such as that of another test."""
    with contextlib.suppress(OSError), atomic.owned(root):
        return True
    return False


@as_root
@pytest.mark.parametrize("limit", [10, 130])
def test_too_few_processes(limit):
    """With 130 Ray comes up, and its C++ aborts the driver."""
    sentence = refused(*NOBODY, "bash", "-c", f'ulimit -u {limit}; exec "$0" "$@"')
    assert "more threads may be started here, and Ray with its workers needs" in sentence
    assert "`ulimit -u`" in sentence


@pytest.mark.parametrize("blocks", [0, 20, ray_needs.OBJECT_STORE // 1024])
def test_too_small_files(blocks):
    sentence = refused("bash", "-c", f'ulimit -f {blocks}; exec "$0" "$@"')
    assert f"files may have {1024 * blocks} bytes here" in sentence


@as_root
def test_no_loopback():
    assert "cannot reach each other at 127.0.0.1 (Network is unreachable)" in refused("unshare", "--net")


@as_root
def test_no_free_port():
    network = ("unshare", "--net", "bash", "-c", IN_A_NETWORK_WITH_FOUR_PORTS)
    sentence = refused(*network, sys.executable, HELD_PORTS)
    assert "cannot reach each other at 127.0.0.1 (Address already in use" in sentence


@as_root
def test_no_room_for_sockets_and_logs(tmp_path):
    sentence = refused("unshare", "--mount", "bash", "-c", SMALL_TMP, tmp_path, ROOT)
    assert sentence.startswith("started: /tmp has 1048576 bytes left, and Ray needs")


def main():
    with started(1):
        pass


if __name__ == "__main__":
    sys.exit(cli.exit_code(main, "started"))
