"""Training as a Slurm job: `python -m jobs.train store.zarr --slurm.nodes 2` on a login node.

submitit writes the batch script and starts one task a rank; this process follows the log and ends as the job
does. The same as a batch job of one core: `sbatch slurm/train.sh store.zarr --slurm.nodes 2`.

The ranks know when to stop, the batch script what comes next. A warning (USR2 before the time limit or
pre-emption, or TERM) makes all ranks save and end with code 4; then the script, which outlives any rank,
asks Slurm for a requeue. The requeued job is the same job: same script, same logs, newest checkpoint.
"""

import dataclasses
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import submitit
import tyro
from submitit.helpers import clean_env

from catalogs.errors import Interrupted, UsageError
from jobs import queue
from mmae import cli, train
from mmae.recipe import Train

WARNING_SECONDS = 120
"""How long before its time limit the job is warned: a step and a checkpoint must fit."""
STRAGGLER_SECONDS = 60
"""Once a rank has ended, the others have so long to end too."""
RANK_COMMAND = ("sh", "-c", 'trap "" USR2 TERM; exec "$0" "$@"', sys.executable)
"""Until Python has its handlers, a warning would kill the rank instead of stopping it."""
AFTER_RANKS = f"""\
code=$?
# {cli.INTERRUPTED}: stopped and saved, or a rank was lost; above 128: a rank was killed, maybe with its node.
# A job that is not RUNNING by now was cancelled or requeued by others: leave it so.
if [ $code -eq {cli.INTERRUPTED} ] || [ $code -gt 128 ]; then
    [ "$(squeue --noheader --jobs=$SLURM_JOB_ID --format=%T)" = RUNNING ] && scontrol requeue $SLURM_JOB_ID
fi
exit $code"""
CANCEL_SIGNALS = {signal.SIGINT, signal.SIGTERM}
KEPT_VARIABLES = ("SLURM_CONF",)
"""Where the cluster is; all else that Slurm tells the controller is no concern of the job it submits."""


@dataclass(frozen=True)
class Slurm:
    """The job that trains."""

    nodes: int = 1
    """Nodes."""
    tasks_per_node: int = 1
    """Ranks a node: one a GPU."""
    gpus_per_node: int = 1
    """GPUs a node; 0 trains on the CPU."""
    cpus_per_task: int = 8
    """CPU cores a rank."""
    memory_gb: int = 64
    """Memory a node."""
    hours: float = 24.0
    """Time limit; a run that reaches it saves, waits in the queue and goes on."""
    partition: str = ""
    """Partition; the cluster's default if empty."""
    account: str = ""
    """Account to charge; the user's default if empty."""

    def __post_init__(self) -> None:
        counts = (self.nodes, self.tasks_per_node, self.cpus_per_task, self.memory_gb)
        if min(counts) < 1 or self.gpus_per_node < 0 or not self.hours > 0:
            raise UsageError("nodes, tasks, cores, memory and hours must be positive, GPUs not negative")


@dataclass(frozen=True)
class TrainJob:
    """Train on Slurm: submit the training as a job, follow its log, end with its state.

    Takes the flags of `mmae train`, and those of the job as --slurm.*. The job's logs are in OUT/slurm;
    `python -m jobs.status OUT` says how it stands.

    Pre-empted, out of time, or with a node or a rank lost, the job goes back to the queue and on from its
    newest checkpoint; after three starts without a newer one it fails. To end it, use scancel or Ctrl-C. If a
    job for OUT is queued already, that one is followed.
    """

    train: Annotated[Train, tyro.conf.arg(name="")]
    slurm: Slurm = field(default_factory=Slurm)


class Training:
    """What submitit pickles and runs in every task; all state is on disk."""

    def __init__(self, config: Train):
        self.config = config

    def __call__(self) -> None:
        # submitit's own handler saves on rank 0 only, requeues at once, and gives up after three time limits
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        try:
            train.main(self.config)
        except (Interrupted, ConnectionError) as error:
            print(error, flush=True)
            sys.exit(cli.INTERRUPTED)


def main(config: TrainJob) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pthread_sigmask(signal.SIG_BLOCK, CANCEL_SIGNALS)  # until the job has a number to cancel it by
    folder = (config.train.out / "slurm").resolve()
    job = queued(folder) or submit(config, folder)
    print(f"job {job.job_id}: {job.paths.stdout}", flush=True)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, CANCEL_SIGNALS)
        for line in follow(job):
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        cancel(job)
        raise Interrupted(f"job {job.job_id} was cancelled; the same command goes on from there") from None
    state = queue.final_state(job.job_id)
    print(f"job {job.job_id}: {state}")
    if state != "COMPLETED":
        raise OSError(f"job {job.job_id} ended as {state}: {job.paths.stderr} says more")


def queued(folder: Path) -> submitit.Job[None] | None:
    """The job that trains this run already, as after the loss of its controller."""
    alive = queue.queued_jobs().intersection(queue.submitted(folder))
    return submitit.SlurmJob(folder, max(alive, key=int)) if alive else None


def cancel(job: submitit.Job[None]) -> None:
    """Cancel the job and wait until its ranks have saved and gone."""
    job.cancel()
    while queue.is_queued(job.job_id):
        time.sleep(queue.POLL_SECONDS)


def submit(config: TrainJob, folder: Path) -> submitit.Job[None]:
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # submitit unpickles what lies there
    slurm = config.slurm
    executor = submitit.SlurmExecutor(folder, python=shlex.join(RANK_COMMAND))
    executor.update_parameters(
        job_name="mmae-train",
        nodes=slurm.nodes,
        ntasks_per_node=slurm.tasks_per_node,
        cpus_per_task=slurm.cpus_per_task,
        mem=f"{slurm.memory_gb}G",
        time=max(1, round(60 * slurm.hours)),
        signal_delay_s=WARNING_SECONDS,
        additional_parameters={"requeue": True},
        setup=[f"{shlex.join((sys.executable, '-m', 'jobs.starts', str(folder.parent)))} 2>&1 || exit"],
        srun_args=["--kill-on-bad-exit=0", f"--wait={STRAGGLER_SECONDS}"],
        teardown=[AFTER_RANKS],
        **({"gpus_per_node": slurm.gpus_per_node} if slurm.gpus_per_node else {}),
        **({"partition": slurm.partition} if slurm.partition else {}),
        **({"account": slurm.account} if slurm.account else {}),
    )
    task = Training(dataclasses.replace(config.train, data=config.train.data.resolve(), out=folder.parent))
    kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
    with clean_env():
        os.environ.update(kept)
        return executor.submit(task)


def follow(job: submitit.Job[None]) -> Iterator[str]:
    """Lines of the log of rank 0 as they come, until the job has left the queue."""
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


if __name__ == "__main__":
    sys.exit(cli.run(main, TrainJob, sys.argv[1:], "python -m jobs.train"))
