"""Processes killed with -9 in the middle of an inference run; the catalogue must not show it."""

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest
from killing import WAIT_SECONDS, wait_for

from catalogs import atomic
from mmae import cli
from mmae.production.ray_session import PREFIX, new_token


def command(tile, bundle, *flags):
    return [sys.executable, "-u", "-m", "mmae.infer", "--catalog", str(tile), "--model", str(bundle), *flags]


def digests(folder):
    names = ("rubin_tile.photoz.fits", "rubin_tile.rejects.fits")
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]


def manifests(tile):
    return list(tile.with_name("rubin_tile.photoz").glob("parts/*.json"))


def descendants(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def actors(process):
    found = []
    for child in descendants(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.cmdline()[:1] and "Predictor" in child.cmdline()[0]:
                found.append(child)
    return found


@pytest.fixture(scope="module")
def undisturbed(survey, bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    subprocess.run(command(survey / "rubin_tile.zarr", bundle, "--out", str(folder)), check=True)
    return digests(folder)


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


def test_a_store_that_is_rewritten_after_it_was_read_gives_no_catalogue(running, tile):
    """Its chunks pass their own checksums, and the actor has checked the shard before."""
    wait_for(lambda: manifests(tile), running)
    shards = tile / "image" / "c"
    shutil.copy(shards / "15" / "0" / "0" / "0", shards / "0" / "0" / "0" / "0")
    assert running.wait(WAIT_SECONDS) == cli.REFUSED
    assert "was changed while it was read" in running.stderr.read()
    assert not tile.with_name("rubin_tile.photoz.fits").exists()


def finish(tile, bundle):
    done = subprocess.run(command(tile, bundle), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tile.parent.rglob(f"*{atomic.TEMPORARY}"))
    return done.stdout


def test_driver_killed_half_way(tile, bundle, running, undisturbed):
    wait_for(lambda: manifests(tile), running)
    before = descendants(running)
    running.kill()
    running.wait()
    assert 0 < len(manifests(tile)) < 4
    assert not tile.with_name("rubin_tile.photoz.fits").exists()
    assert "units were done before" in finish(tile, bundle)
    assert digests(tile.parent) == undisturbed
    _, alive = psutil.wait_procs(before, timeout=60)
    assert not alive


def test_driver_terminated_says_how_to_go_on(tile, bundle, running, undisturbed):
    wait_for(lambda: manifests(tile), running)
    before = descendants(running)
    running.send_signal(signal.SIGTERM)
    error = running.stderr.read()
    assert running.wait() == 4
    assert "the same command goes on" in error
    _, alive = psutil.wait_procs(before, timeout=30)
    assert not alive
    finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


def test_actor_killed_in_the_middle_of_a_unit(tile, running, undisturbed):
    wait_for(lambda: manifests(tile) and actors(running), running)
    actors(running)[0].kill()
    assert running.wait(WAIT_SECONDS) == 0
    log = tile.with_name("rubin_tile.photoz") / "log"
    assert 1 <= log.read_text().count("a worker died over unit") <= 2  # it may have had a second one
    assert digests(tile.parent) == undisturbed


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


def idle(found, held):
    return [actor for actor in found if actor != held and not is_at_a_unit(actor)]


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
    wait_for(lambda: manifests(tile) and actors(running), running)
    before = descendants(running)
    (head,) = [child for child in before if child.name() == "gcs_server"]
    (session,) = Path("/tmp").glob(f"{PREFIX}*/ray/session_*_{running.pid}")
    actors(running)[0].suspend()  # or the run may end before it misses the head
    head.send_signal(fault)
    (sentence,) = running.stderr.read().splitlines()
    assert running.wait(WAIT_SECONDS) == cli.IO_FAILED
    assert sentence.endswith("has died or hangs; the same command goes on from here")
    assert not session.parent.exists()
    _, alive = psutil.wait_procs(before, timeout=10)
    assert not alive
    finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


IMPATIENT = """
import sys
from mmae import cli, infer
from mmae.production import scheduler

scheduler.NO_WORKER_SECONDS = 10.0
sys.exit(cli.run(infer.main, infer.Infer, sys.argv[1:], "mmae infer"))
"""


def test_the_raylet_hangs_and_no_actor_can_be_replaced(tile, bundle, undisturbed):
    flags = command(tile, bundle, "--workers", "1")[4:]
    with subprocess.Popen(
        [sys.executable, "-c", IMPATIENT, *flags],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        wait_for(lambda: manifests(tile) and actors(process), process)
        before = descendants(process)
        (raylet,) = [child for child in before if child.name() == "raylet"]
        raylet.suspend()
        actors(process)[0].kill()
        (sentence,) = process.stderr.read().splitlines()
        assert process.wait(WAIT_SECONDS) == cli.IO_FAILED
    assert sentence.endswith("there was no worker for 10 s; the same command goes on from here")
    _, alive = psutil.wait_procs(before, timeout=10)
    assert not alive
    finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


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


@pytest.mark.parametrize(
    ("size", "parts", "file"),
    [("344k", 2, "unit-000002.fits"), ("800k", 4, "rubin_tile.photoz.fits")],
    ids=["parts", "merge"],
)
def test_the_disk_is_full_half_way(survey, bundle, undisturbed, disk, size, parts, file):
    """The four parts take 144 kB each, the products 428 kB."""
    out = disk(size)
    infer = command(survey / "rubin_tile.zarr", bundle, "--out", str(out), "--workers", "1")
    done = subprocess.run(infer, capture_output=True, text=True)
    assert done.returncode == cli.IO_FAILED
    (sentence,) = done.stderr.splitlines()
    assert "No space left on device" in sentence
    assert file in sentence
    assert len(list(out.glob("rubin_tile.photoz/parts/*.json"))) == parts
    assert not (out / "rubin_tile.photoz.fits").exists()
    assert not list(out.rglob(f"*{atomic.TEMPORARY}"))
    disk("2m")
    done = subprocess.run(infer, capture_output=True, text=True)
    assert done.returncode == cli.OK, done.stderr
    assert f"{parts} of 4 units were done before" in done.stdout
    assert digests(out) == undisturbed


def test_a_part_without_its_manifest_is_done_again(tile, bundle, undisturbed):
    finish(tile, bundle)
    run = tile.with_name("rubin_tile.photoz")
    (run / "finished.json").unlink()
    (run / "parts" / "unit-000001.json").unlink()
    cut = run / "parts" / "unit-000002.fits"
    os.truncate(cut, 2880)
    tile.with_name("rubin_tile.photoz.fits").unlink()
    assert "2 of 4 units were done before" in finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


def test_a_second_driver_is_refused(tile, bundle):
    run = tile.with_name("rubin_tile.photoz")
    run.mkdir()
    with atomic.owned(run):
        second = subprocess.run(command(tile, bundle), capture_output=True, text=True)
    assert second.returncode == 2
    assert "is being written by another process" in second.stderr
    assert not list(run.iterdir())


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
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(new_token(root))}
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


def is_at_a_unit(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return "Predictor.process" in process.cmdline()[0]


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
    other = os.environ | {"RAY_AUTH_TOKEN_PATH": str(new_token(tmp_path))}
    done = subprocess.run(
        command(tile, bundle, "--ray-address", nodes.address), env=other, capture_output=True, text=True
    )
    assert done.returncode == 5
    assert f"the Ray cluster at {nodes.address} does not take us in" in done.stderr
