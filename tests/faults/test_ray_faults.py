"""Processes of Ray killed or stopped in the middle of an inference run; the catalogue must not show it."""

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest
from infer_runs import actors, command, descendants, digests, finish, is_at_a_unit, manifests
from killing import WAIT_SECONDS, wait_for

from mmae import cli
from mmae.production.ray_session import PREFIX


def test_an_idle_actor_is_killed(tile, bundle, undisturbed):
    """It has done its last unit, and another is held at one."""
    infer = command(tile, bundle, "--workers", "2")
    with subprocess.Popen(infer, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: any(map(is_at_a_unit, actors(process))), process)
        held = next(actor for actor in actors(process) if is_at_a_unit(actor))
        held.suspend()
        wait_for(lambda: manifests(tile) and idle(actors(process), held), process)
        for actor in idle(actors(process), held):
            actor.kill()
        held.resume()
        assert process.wait(WAIT_SECONDS) == 0
    assert digests(tile.parent) == undisturbed


def hold_an_actor(running):
    """Or the run may end before it misses what is killed."""
    wait_for(lambda: any(map(is_at_a_unit, actors(running))), running)
    for actor in actors(running):
        actor.suspend()


def idle(found, held):
    return [actor for actor in found if actor != held and not is_at_a_unit(actor)]


def test_the_cluster_of_ray_address_is_left_alone(tile, bundle, undisturbed, nodes):
    """Whoever set it, for another program."""
    raylet = nodes.add()
    environment = nodes.environment | {"RAY_ADDRESS": nodes.address}
    with subprocess.Popen(command(tile, bundle), env=environment, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: actors(process), process)
        assert not [each for each in raylet.children(recursive=True) if "Predictor" in each.cmdline()[0]]
        assert process.wait(WAIT_SECONDS) == 0
    assert digests(tile.parent) == undisturbed


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_the_head_of_ray_is_killed_or_hangs(tile, bundle, running, undisturbed, fault):
    hold_an_actor(running)
    before = descendants(running)
    (head,) = [child for child in before if child.name() == "gcs_server"]
    (session,) = Path("/tmp").glob(f"{PREFIX}*/ray/session_*_{running.pid}")
    head.send_signal(fault)
    (sentence,) = running.stderr.read().splitlines()
    assert running.wait(WAIT_SECONDS) == cli.IO_FAILED
    assert sentence.endswith("has died or hangs; the same command goes on from here")
    assert not session.parent.exists()
    _, alive = psutil.wait_procs(before, timeout=10)
    assert not alive
    finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


@pytest.mark.parametrize("fault", [signal.SIGKILL, signal.SIGSTOP])
def test_the_raylet_is_killed_or_hangs(tile, bundle, running, undisturbed, fault):
    """The head misses a stopped one after a minute."""
    hold_an_actor(running)
    before, held = descendants(running), actors(running)
    (raylet,) = [child for child in before if child.name() == "raylet"]
    raylet.send_signal(fault)
    for actor in held:  # suspended, they cannot end by themselves, and are no children of a killed one
        with contextlib.suppress(psutil.NoSuchProcess):
            actor.kill()
    shown = running.stderr.read()
    assert running.wait(WAIT_SECONDS) == cli.IO_FAILED, shown
    *_, sentence = shown.splitlines()
    assert sentence.endswith("has died or hangs; the same command goes on from here")
    _, alive = psutil.wait_procs(before, timeout=10)
    assert not alive
    finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


def test_a_node_is_lost_and_another_joins(tile, bundle, undisturbed, nodes):
    raylet = nodes.add()
    with subprocess.Popen(
        command(tile, bundle, "--ray-address", nodes.address),
        env=nodes.environment,
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_for(lambda: manifests(tile), process)
        wait_for(lambda: any(map(is_at_a_unit, raylet.children(recursive=True))), process)
        for lost in [raylet, *raylet.children(recursive=True)]:
            lost.kill()
        nodes.add()
        assert process.wait(WAIT_SECONDS) == 0
    log = tile.with_name("rubin_tile.photoz") / "log"
    assert 1 <= log.read_text().count("a worker died over unit") <= 2  # it may have had a second one
    assert digests(tile.parent) == undisturbed


def test_a_cluster_without_the_right_token_is_not_joined(tile, bundle, nodes, tmp_path):
    (tmp_path / "token").write_text("0" * 64)
    other = os.environ | {"RAY_AUTH_TOKEN_PATH": str(tmp_path / "token")}
    done = subprocess.run(
        command(tile, bundle, "--ray-address", nodes.address), env=other, capture_output=True, text=True
    )
    assert done.returncode == 5
    assert f"the Ray cluster at {nodes.address} does not take us in" in done.stderr


def test_shared_memory_is_tiny(tile, bundle, undisturbed):
    """1 MB, as in a container; Ray has a file instead."""
    small = 'mount -t tmpfs -o size=1m tmpfs /dev/shm && df --output=size /dev/shm && exec "$0" "$@"'
    infer = ["unshare", "--mount", "bash", "-c", small, *command(tile, bundle)]
    done = subprocess.run(infer, capture_output=True, text=True)
    if "unshare" in done.stderr:
        pytest.skip("no file system can be mounted here: it takes root")
    assert done.returncode == cli.OK, done.stderr
    assert "1024" in done.stdout.splitlines()[1]
    assert digests(tile.parent) == undisturbed
