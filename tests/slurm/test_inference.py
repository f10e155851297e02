"""Inference over the nodes of a Slurm job: what a user gets on one machine, whatever becomes of a node."""

import contextlib
import hashlib
import subprocess
import sys
import time

import pytest
from conftest import TESTBED, missing

from mmae import cli

SLURM = ("--slurm.nodes=2", "--slurm.gpus-per-node=0", "--slurm.cpus-per-task=1", "--slurm.memory-gb=4")
TILES, DAMAGED = 40, "tile07"
LIMIT_SECONDS = 300

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


@pytest.fixture(scope="module")
def tiles(draw_tile, tmp_path_factory):
    """Stores of 64 to 512 objects; units are of 64 to 512, so nothing is even."""
    folder = tmp_path_factory.mktemp("tiles")
    for k in range(TILES):
        draw_tile(folder / f"tile{k:02d}.zarr", 37 * k, 64 * (1 + 7 * k % 8))
    return folder


def command(module, tiles, bundle, out, *flags):
    catalog = ("--catalog", tiles / "*.zarr", "--model", bundle, "--out", out)
    return list(map(str, (sys.executable, "-u", "-m", module, *catalog, *flags)))


def digests(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.fits")}


@pytest.fixture(scope="module")
def local(tiles, bundle, tmp_path_factory):
    """Products of a run on one machine."""
    out = tmp_path_factory.mktemp("local")
    subprocess.run(command("mmae.infer", tiles, bundle, out), check=True)
    return digests(out)


def test_of_forty_tiles_a_damaged_one_is_named_and_done_by_a_second_run(
    cluster, tiles, local, bundle, tmp_path
):
    metadata = tiles / f"{DAMAGED}.zarr/zarr.json"
    whole = metadata.read_text()
    metadata.write_text("{}")
    infer = command("jobs.infer", tiles, bundle, tmp_path, *SLURM)
    try:
        done = subprocess.run(infer, env=cluster, capture_output=True, text=True)
    finally:
        metadata.write_text(whole)
    assert done.returncode == cli.IO_FAILED, done.stdout
    assert f"failed: {tiles / DAMAGED}.zarr: " in done.stdout
    assert "ended as FAILED" in done.stderr
    others = {name: digest for name, digest in local.items() if not name.startswith(DAMAGED)}
    assert digests(tmp_path) == others
    done = subprocess.run(infer, env=cluster, capture_output=True, text=True)
    assert done.returncode == cli.OK, done.stdout + done.stderr
    assert "128 objects in" in done.stdout
    assert digests(tmp_path) == local


# ---------------------------------------------------------------- what happens half way


def run(cluster, *command):
    done = subprocess.run(list(map(str, command)), env=cluster, capture_output=True, text=True, check=True)
    return done.stdout


def job_of(out):
    (script,) = out.glob("slurm/*_submission.sh")
    return script.name.split("_")[0]


def wait_for(condition, what):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what} has not come"
        time.sleep(0.2)


def wait_for_requeue(cluster, out):
    wait_for(lambda: "Restarts=1" in run(cluster, "scontrol", "show", "job", job_of(out)), "a requeue")


def signal_actor(cluster, node, signal):
    """Send the actor on the node a signal; whether there is one that is at a unit."""
    kill = [TESTBED, "exec", node, "pkill", f"-{signal}", "-f", "^ray::Predictor.process"]
    return subprocess.run(kill, env=cluster, capture_output=True).returncode == 0


def kill_first_node(cluster, out):
    """Ray's head, the driver and the batch script are there; the other misses the head after a minute."""
    run(cluster, TESTBED, "kill-node", "node1")
    wait_for_requeue(cluster, out)
    run(cluster, TESTBED, "up")


def kill_other_node(cluster, out):
    run(cluster, TESTBED, "kill-node", "node2")
    signal_actor(cluster, "node1", "CONT")


def warn(cluster, out):
    """As Slurm does before the time limit."""
    run(cluster, "scancel", "--signal=USR2", job_of(out))


@pytest.mark.parametrize(("fault", "starts"), [(kill_first_node, 2), (kill_other_node, 1), (warn, 2)])
def test_what_happens_half_way_changes_nothing(cluster, tiles, local, bundle, tmp_path, fault, starts):
    if "SLURM_TESTBED_DIR" not in cluster:
        missing("only a node of the testbed may be killed")
    infer = command("jobs.infer", tiles, bundle, tmp_path, *SLURM)
    with (
        subprocess.Popen(infer, env=cluster, stdout=subprocess.PIPE, text=True) as job,
        contextlib.ExitStack() as end,
    ):
        end.callback(job.terminate)  # should the fault fail
        # the first node's actor is held, or on a busy machine it has done all before the other's is up
        wait_for(lambda: signal_actor(cluster, "node1", "STOP"), "work for the first node")
        wait_for(lambda: signal_actor(cluster, "node2", 0), "work for the other node")
        fault(cluster, tmp_path)
        printed = job.stdout.read()
        job.wait()
    if fault is kill_other_node:
        run(cluster, TESTBED, "up")
    assert job.returncode == cli.OK, printed
    assert len(list(tmp_path.glob("slurm/ray-*"))) == starts
    logs = [log.read_text() for log in tmp_path.glob("*.photoz/log")]
    assert any("a worker died over unit" in log for log in logs) == (fault is kill_other_node)
    assert digests(tmp_path) == local
