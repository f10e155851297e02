"""A Slurm job, from submission to end; submitit runs a callable in each of its tasks.

A warning (USR2 before the time limit or pre-emption, or TERM) makes the tasks save and exit with code 4. Then
the batch script, which outlives any task, asks Slurm for a requeue. The requeued job is the same job: same
script, same logs, and it resumes from what is on disk.
"""

import contextlib
import io
import os
import re
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import submitit
from submitit.core.utils import FailedJobError
from submitit.helpers import clean_env

from catalogs.errors import Interrupted, UsageError
from catalogs.place import Place
from jobs import queue
from mmae import cli

WARNING_SECONDS = 120
"""Time between warning and time limit: a step and a checkpoint, or a start of Ray, must fit."""
STRAGGLER_SECONDS = 60
"""Time that the other tasks have to end once one has ended."""
TASK_COMMAND = ("sh", "-c", 'trap "" USR2 TERM; exec "$0" "$@"', sys.executable)
"""Ignores warnings until Python has its handlers: one would kill the task instead of stopping it."""
AFTER_TASKS = f"""\
code=$?
# {cli.INTERRUPTED}: stopped and saved, or a task was lost; above 128: a task was killed, maybe with its node.
# A job that is not RUNNING by now was cancelled or requeued by others: leave it so.
if [ $code -eq {cli.INTERRUPTED} ] || [ $code -gt 128 ]; then
    [ "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%T)" = RUNNING ] && scontrol requeue $SLURM_JOB_ID
fi
exit $code"""
CANCEL_SIGNALS = {signal.SIGINT, signal.SIGTERM}
OWN_OPTIONS = {
    *(
        "account",
        "array",
        "cpus-per-task",
        "error",
        "gpus-per-node",
        "input",
        "job-name",
        "mem",
        "no-requeue",
    ),
    *("nodes", "ntasks", "ntasks-per-node", "open-mode", "output", "partition", "requeue", "signal", "time"),
    *("wait", "wrap"),
}
"""Options of sbatch that are flags of ours, or that the job is built on."""
OWN_VARIABLES = {
    *("SBATCH_ARRAY_INX", "SBATCH_ERROR", "SBATCH_GPUS_PER_NODE", "SBATCH_INPUT", "SBATCH_JOB_NAME"),
    *("SBATCH_MEM_PER_NODE", "SBATCH_NO_REQUEUE", "SBATCH_OPEN_MODE", "SBATCH_OUTPUT", "SBATCH_REQUEUE"),
    *("SBATCH_SIGNAL", "SBATCH_TIMELIMIT", "SBATCH_WAIT"),
}
"""Variables of sbatch for these, which would win over its script."""
PASSING = ("Unable to contact slurm controller", "timed out", "temporarily", "standby", "Zero Bytes")
"""Words of sbatch about Slurm itself, not about the job."""


MAX_HOURS = 24.0 * 366
DEFAULTS = queue.Node(cpus=8, memory_gb=64, gpus=1)
"""What a job asks of each node, and cores of each task, where its nodes have as much."""


class Resources(NamedTuple):
    """What a job asks for."""

    gpus_per_node: int
    cpus_per_task: int
    memory_gb: int


@dataclass(frozen=True)
class Slurm:
    """The job."""

    nodes: int = 1
    """Nodes."""
    gpus_per_node: int | None = None
    """GPUs a node; 0 computes on the CPU. By default one, where the nodes of the partition have any."""
    cpus_per_task: int | None = None
    """CPU cores a task; by default 8, or what a node has for each if that is less."""
    memory_gb: int | None = None
    """Memory a node; by default 64, or what a node has if that is less."""
    hours: float = 24.0
    """Time limit; a job that reaches it saves, waits in the queue and goes on."""
    partition: str = ""
    """Partition; the cluster's default if empty."""
    account: str = ""
    """Account to charge; the user's default if empty."""
    options: tuple[str, ...] = ()
    """Other options of sbatch, without dashes: `constraint=gpu qos=regular exclusive`."""

    def __post_init__(self) -> None:
        counts = [count for count in (self.nodes, self.cpus_per_task, self.memory_gb) if count is not None]
        if min(counts) < 1 or (self.gpus_per_node or 0) < 0 or not 0 < self.hours <= MAX_HOURS:
            raise UsageError(
                "nodes, tasks, cores, memory and hours must be positive, GPUs not negative, hours at most "
                f"{MAX_HOURS:g}"
            )
        for option in self.options:
            if not re.fullmatch(r"[a-z][a-z-]*(=[^\n]+)?", option):
                raise UsageError(f"--slurm.options are KEY=VALUE or KEY, as sbatch has them; got {option!r}")
            if (name := option.partition("=")[0]) in OWN_OPTIONS:
                raise UsageError(f"--slurm.options cannot have {name}, which the job itself decides")

    @property
    def parameters(self) -> dict[str, str | bool]:
        """The free options as submitit takes them."""
        return {key: value or True for key, _, value in (option.partition("=") for option in self.options)}


def resources(slurm: Slurm, tasks_per_node: int = 1) -> Resources:
    """What a job asks for: what the user says, else the defaults, as far as its nodes have it."""
    try:
        node = queue.least_node(slurm.partition)
    except OSError:  # sbatch will say what is wrong
        node = DEFAULTS
    asked = (slurm.gpus_per_node, slurm.cpus_per_task, slurm.memory_gb)
    fitting = (
        min(DEFAULTS.gpus, node.gpus),
        max(1, min(DEFAULTS.cpus, node.cpus // tasks_per_node)),
        max(1, min(DEFAULTS.memory_gb, node.memory_gb)),
    )
    return Resources(*(mine if value is None else value for value, mine in zip(asked, fitting, strict=True)))


def run(folder: Path, submit: Callable[[], submitit.Job[None]]) -> None:
    """Submit the job, or find it in the queue if its controller was lost; follow it to its end.

    SIGTERM and Ctrl-C cancel it. Raises Interrupted where it is cancelled, by whomever, OSError where it does
    not complete, and UsageError on a machine without Slurm.
    """
    if not shutil.which("sbatch"):
        raise UsageError(
            "sbatch is not on the PATH: log in where Slurm is, or run `mmae` itself on this machine"
        )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, CANCEL_SIGNALS)  # until the job has a number to cancel it by
    job = queued(folder) or submit()
    print(f"job {job.job_id}: {job.paths.stdout}", flush=True)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CANCEL_SIGNALS)
        for line in follow(job):
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        cancel(job)
        raise cancelled(job) from None
    state = queue.final_state(job.job_id)
    print(f"job {job.job_id}: {state}")
    if state == "CANCELLED":
        raise cancelled(job)
    if state != "COMPLETED":
        raise OSError(f"job {job.job_id} ended as {state}: {job.paths.stderr} says more")


def queued(folder: Path) -> submitit.Job[None] | None:
    """The job that was submitted from this folder before and has not ended."""
    alive = queue.queued_jobs().intersection(queue.submitted(folder))
    return submitit.SlurmJob(folder, max(alive, key=int)) if alive else None


def cancelled(job: submitit.Job[None]) -> Interrupted:
    return Interrupted(f"job {job.job_id} was cancelled; the same command goes on from there")


def cancel(job: submitit.Job[None]) -> None:
    """Cancel the job and wait until its tasks have saved and gone."""
    job.cancel()
    while queue.is_queued(job.job_id):
        time.sleep(queue.POLL_SECONDS)


def submit(
    task: Callable[[], None],
    folder: Path,
    name: str,
    slurm: Slurm,
    tasks_per_node: int = 1,
    flags: Sequence[str] = (),
    straggler_seconds: int = STRAGGLER_SECONDS,
    run: Place | None = None,
) -> submitit.Job[None]:
    """Submit a job called `name` that runs `task` in each of its tasks; logs and script are in `folder`.

    `run` is where its progress shows, by default the folder that `folder` is in.
    `flags` are for both sbatch and srun, without their dashes. With `straggler_seconds` 0, tasks may end any
    time before the others. Raises UsageError where sbatch refuses, with nothing left of the job, or OSError
    where Slurm may accept it later.
    """
    asked = resources(slurm, tasks_per_node)
    starts = ("-m", "jobs.starts", str(run or folder.parent), "--folder", str(folder))
    created = [directory for directory in (folder, *folder.parents) if not directory.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # submitit unpickles what lies there
    executor = submitit.SlurmExecutor(folder, python=shlex.join(TASK_COMMAND))
    executor.update_parameters(
        job_name=name,
        nodes=slurm.nodes,
        ntasks_per_node=tasks_per_node,
        cpus_per_task=asked.cpus_per_task,
        mem=f"{asked.memory_gb}G",
        time=max(1, round(60 * slurm.hours)),
        signal_delay_s=WARNING_SECONDS,
        additional_parameters={"requeue": True, **dict.fromkeys(flags, True), **slurm.parameters},
        setup=[f"{shlex.join((sys.executable, *starts))} 2>&1 || exit"],
        srun_args=["--kill-on-bad-exit=0", f"--wait={straggler_seconds}", *(f"--{flag}" for flag in flags)],
        teardown=[AFTER_TASKS],
        **({"gpus_per_node": asked.gpus_per_node} if asked.gpus_per_node else {}),
        **({"partition": slurm.partition} if slurm.partition else {}),
        **({"account": slurm.account} if slurm.account else {}),
    )
    before = set(folder.iterdir())
    kept = sbatch_variables(slurm)
    try:
        with clean_env(), contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises
            os.environ.update(kept)
            return executor.submit(task)
    except FailedJobError as error:
        for file in set(folder.iterdir()) - before:
            file.unlink()
        for directory in created:
            directory.rmdir()
        raise refusal(str(error)) from None


def sbatch_variables(slurm: Slurm) -> dict[str, str]:
    """The user's own variables for sbatch, but those that would win over flags of ours, and where Slurm is.

    Those that Slurm gave the controller's job (SLURM_*) are not among them.
    """
    given = [*slurm.parameters, *(name for name in ("account", "partition") if getattr(slurm, name))]
    ours = OWN_VARIABLES | {f"SBATCH_{name.upper().replace('-', '_')}" for name in given}
    users = {name: value for name, value in os.environ.items() if name.startswith("SBATCH_")}
    where = {name: value for name, value in os.environ.items() if name == "SLURM_CONF"}
    return where | {name: value for name, value in users.items() if name not in ours}


def refusal(words: str) -> Exception:
    """What to raise where sbatch submits nothing, in its own words."""
    said = "; ".join(line.removeprefix("sbatch: ").removeprefix("error: ") for line in words.splitlines())
    if any(word in said for word in PASSING):
        return OSError(f"sbatch cannot submit the job now ({said}); try the same command later")
    return UsageError(f"sbatch refuses the job: {said}")


def follow(job: submitit.Job[None]) -> Iterator[str]:
    """Yield lines of the first task's log as they come, until the job has left the queue."""
    position = 0
    ended = False
    while not ended:
        ended = not queue.is_queued(job.job_id)
        if not ended:
            time.sleep(queue.POLL_SECONDS)
        if job.paths.stdout.exists():
            with job.paths.stdout.open(errors="replace") as log:
                log.seek(position)
                yield from log
                position = log.tell()
