"""A training job that Slurm stops in any of its ways ends with the weights of one that was left alone."""

import hashlib
import re
import subprocess
import sys
import time

import psutil
import pytest
from conftest import TESTBED, missing

from mmae import cli
from mmae.models import checkpoint

EPOCHS = 8
LIMIT_SECONDS = 240
FLAGS = [
    *("--batch=32", "--precision=fp32", "--model.embed-dim=64", "--model.depth=1"),
    *("--model.decoder-dim=32", "--model.decoder-depth=1"),
    *("--slurm.nodes=2", "--slurm.tasks-per-node=2", "--slurm.gpus-per-node=0"),
    *("--slurm.cpus-per-task=1", "--slurm.memory-gb=4"),
]

pytestmark = [pytest.mark.slurm, pytest.mark.slow]


class Controller:
    """`python -m jobs.train` on the login node, and what can be seen of it."""

    def __init__(self, environment, store, run, *flags):
        self.environment, self.run = environment, run
        run.mkdir()
        self.log = run / "controller.log"
        command = [sys.executable, "-m", "jobs.train", store, "--out", run, *FLAGS, *flags]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                list(map(str, command)), env=environment, stdout=log, stderr=subprocess.STDOUT
            )

    def slurm(self, *command):
        return subprocess.run(
            list(map(str, command)), env=self.environment, capture_output=True, text=True, check=True
        ).stdout

    def wait_for(self, seen, what):
        deadline = time.monotonic() + LIMIT_SECONDS
        while not (found := seen()):
            assert time.monotonic() < deadline, f"no {what}:\n{self.log.read_text()}"
            time.sleep(0.2)
        return found

    def wait_for_line(self, pattern):
        return self.wait_for(lambda: re.search(pattern, self.log.read_text()), pattern)

    @property
    def job(self):
        return self.wait_for_line(r"^job (\d+): /")[1]

    def restarts(self):
        return int(re.search(r"Restarts=(\d+)", self.slurm("scontrol", "show", "job", self.job))[1])

    def end(self):
        code = self.process.wait(LIMIT_SECONDS)
        if "job " in self.log.read_text():
            print(self.slurm("sacct", "-D", "-X", "-j", self.job, "-o", "JobID,State,ExitCode,Start,End"))
        return code

    def weights(self):
        model = checkpoint.load(checkpoint.newest(self.run))["model"]
        return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in model.values())).hexdigest()


@pytest.fixture(scope="module")
def start(cluster, survey, tmp_path_factory):
    """`start(name, flags...)`: a controller; none outlives the tests."""
    started = []

    def start(name, *flags):
        run = tmp_path_factory.mktemp("runs") / name
        started.append(Controller(cluster, survey / "train.zarr", run, *flags))
        return started[-1]

    yield start
    for controller in started:
        controller.process.terminate()
        controller.process.wait(60)


@pytest.fixture(scope="module")
def undisturbed(start):
    """Weights of a run that nothing stopped."""
    controller = start("undisturbed", f"--epochs={EPOCHS}")
    assert controller.end() == cli.OK, controller.log.read_text()
    assert controller.restarts() == 0
    return controller.weights()


def warn(controller):
    controller.slurm("scancel", "--signal=USR2", controller.job)


def requeue(controller):
    controller.slurm("scontrol", "requeue", controller.job)


def preempt(controller):
    if not controller.slurm("sinfo", "--noheader", "--partition=high"):
        missing("Slurm has no partition 'high' that pre-empts others")
    controller.slurm("sbatch", "--partition=high", "--nodes=2", "--exclusive", "-o/dev/null", "--wrap=:")


def kill_node(controller):
    if "SLURM_TESTBED_DIR" not in controller.environment:
        missing("only a node of the testbed may be killed")
    restarts = controller.restarts()
    subprocess.run([TESTBED, "kill-node", "node2"], env=controller.environment, check=True)
    controller.wait_for(lambda: controller.restarts() > restarts, "requeue after the node's death")
    subprocess.run([TESTBED, "up"], env=controller.environment, check=True)


def kill_rank(controller):
    """kill -9 one of the four ranks: the others notice, and the batch script asks for a requeue."""
    ranks = [process for process in processes_of(controller.run) if process.name().startswith("python")]
    rank, *_ = [process for process in ranks if "submitit.core._submit" in process.cmdline()]
    rank.kill()


@pytest.mark.parametrize("faults", [(warn, requeue, kill_rank), (preempt, kill_node)])
def test_a_stopped_job_ends_with_the_weights_of_an_undisturbed_one(start, undisturbed, faults):
    controller = start("stopped", f"--epochs={EPOCHS}")
    for number, fault in enumerate(faults, start=1):
        controller.wait_for_line(f"(?m)^epoch {2 * number}/")
        fault(controller)
        controller.wait_for(lambda: controller.restarts() == number, f"requeue {number}")  # noqa: B023
    assert controller.end() == cli.OK, controller.log.read_text()
    assert controller.restarts() == len(faults)
    assert controller.log.read_text().count("ranks: 4") == len(faults) + 1
    assert controller.weights() == undisturbed


def test_a_time_limit_ends_in_a_requeue(start):
    """Four minutes; Slurm warns two minutes before their end, or up to three.

    One rank, which leaves the other core alone all that time, as does the end of the job once it is seen.
    """
    alone = ("--slurm.nodes=1", "--slurm.tasks-per-node=1")
    controller = start("out_of_time", "--epochs=1000", f"--slurm.hours={4 / 60}", *alone)
    controller.wait_for(lambda: controller.restarts() == 1, "requeue")
    controller.wait_for_line("stopped and saved at step")
    controller.process.terminate()
    assert controller.end() == cli.INTERRUPTED


def test_three_starts_without_a_newer_checkpoint_are_enough(start):
    controller = start("stuck", "--epochs=1000")
    for number in range(1, 4):
        controller.wait_for(lambda: f'"starts": {number}' in starts(controller), "count")  # noqa: B023
        requeue(controller)
    assert controller.end() == cli.IO_FAILED
    assert "the job started 3 times without a checkpoint newer than none" in controller.log.read_text()


def starts(controller):
    path = controller.run / "slurm" / "starts.json"
    return path.read_text() if path.exists() else ""


def test_a_stopped_controller_leaves_no_job_and_no_process(start):
    controller = start("cancelled", "--epochs=1000")
    controller.wait_for_line("(?m)^epoch 2/")  # on a busy machine Slurm kills before a save is done
    controller.process.terminate()
    assert controller.end() == cli.INTERRUPTED
    assert not controller.slurm("squeue", "-h", "-j", controller.job)
    assert not processes_of(controller.run)
    assert checkpoint.newest(controller.run)


def test_a_job_cancelled_while_it_spawns_its_ranks_leaves_nothing(start):
    """None of them has a handler of signals yet; Slurm kills what ignores its TERM."""
    controller = start("spawning", "--epochs=1000")
    controller.wait_for(lambda: ranks(controller), "rank")
    spawned = ranks(controller)
    assert "ranks: 4" not in controller.log.read_text()
    controller.slurm("scancel", controller.job)
    assert controller.end() == cli.INTERRUPTED, controller.log.read_text()
    assert f"job {controller.job} was cancelled; the same command goes on" in controller.log.read_text()
    _, alive = psutil.wait_procs(spawned, timeout=20)
    assert not alive
    assert not processes_of(controller.run)
    assert controller.restarts() == 0
    assert not [path for path in controller.run.iterdir() if path.name not in ("slurm", "controller.log")]


def ranks(controller):
    return [each for each in processes_of(controller.run) if "submitit.core._submit" in each.info["cmdline"]]


def processes_of(run):
    """Processes, of any node, with the run directory in their command line."""
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if str(run) in " ".join(process.info["cmdline"] or [])]
