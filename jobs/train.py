"""Training as a Slurm job: `python -m jobs.train store.zarr --slurm.nodes 2` on a login node.

submitit writes the batch script and starts one task a rank; this process follows the log and ends as the job
does. The same as a batch job of one core: `sbatch slurm/train.sh store.zarr --slurm.nodes 2`.
"""

import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated

import submitit
import tyro
from submitit.helpers import DelayedSubmission, clean_env

from catalogs.errors import Interrupted, UsageError
from mmae import cli, train
from mmae.recipe import Train

POLL_SECONDS = 2.0
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
    """Time limit; a run that reaches it goes on when the same command is given again."""
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

    Takes the flags of `mmae train`, and those of the job as --slurm.*. The job's logs are in OUT/slurm. The
    state comes from Slurm's accounting (sacct).
    """

    train: Annotated[Train, tyro.conf.arg(name="")]
    slurm: Slurm = field(default_factory=Slurm)


class Training:
    """What submitit pickles and runs in every task; all state is on disk."""

    def __init__(self, config: Train):
        self.config = config

    def __call__(self) -> None:
        train.main(self.config)

    def checkpoint(self) -> DelayedSubmission:
        """Asked for when Slurm takes the nodes back: the requeued job goes on from the newest checkpoint."""
        return DelayedSubmission(Training(self.config))


def main(config: TrainJob) -> None:
    job = submit(config)
    print(f"job {job.job_id}: {job.paths.stdout}", flush=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for line in follow(job):
            print(line, end="", flush=True)
    except KeyboardInterrupt:
        job.cancel()
        raise Interrupted(f"job {job.job_id} was cancelled; the same command goes on from there") from None
    state = final_state(job)
    print(f"job {job.job_id}: {state}")
    if state != "COMPLETED":
        raise OSError(f"job {job.job_id} ended as {state}: {job.paths.stderr} says more")


def submit(config: TrainJob) -> submitit.Job[None]:
    folder = (config.train.out / "slurm").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # submitit unpickles what lies there
    slurm = config.slurm
    executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(
        job_name="mmae-train",
        nodes=slurm.nodes,
        ntasks_per_node=slurm.tasks_per_node,
        cpus_per_task=slurm.cpus_per_task,
        mem=f"{slurm.memory_gb}G",
        time=max(1, round(60 * slurm.hours)),
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
    """Lines of the log of rank 0 as they come, until the job has ended."""
    position = 0
    ended = False
    while not ended:
        ended = job.done(force_check=True)
        if not ended:
            time.sleep(POLL_SECONDS)
        if job.paths.stdout.exists():
            with job.paths.stdout.open(errors="replace") as log:
                log.seek(position)
                yield from log
                position = log.tell()


def final_state(job: submitit.Job[None]) -> str:
    """The job's last state; the accounting may be some seconds behind the job's end."""
    deadline = time.monotonic() + 30
    while True:
        state = str(job.watcher.get_state(job.job_id, mode="force")).split()[0]
        if state not in ("RUNNING", "PENDING", "COMPLETING", "UNKNOWN") or time.monotonic() > deadline:
            return state
        time.sleep(POLL_SECONDS)


if __name__ == "__main__":
    sys.exit(cli.run(main, TrainJob, sys.argv[1:], "python -m jobs.train"))
