"""Training as a Slurm job: `python -m jobs.train store.zarr --slurm.nodes 2` on a login node.

One task a rank; this process follows the log and ends as the job does. The same as a batch job of one core:
`sbatch slurm/train.sh store.zarr --slurm.nodes 2`. See submission.py for what a job is.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("jobs.train", "TrainJob", "slurm")

import dataclasses
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from catalogs.errors import Interrupted, UsageError
from jobs import submission
from mmae import cli, train
from mmae.training.recipe import CONFIG_FILE, Train


@dataclass(frozen=True)
class Ranks(submission.Slurm):
    """The job that trains."""

    tasks_per_node: int = 1
    """Ranks a node: one a GPU."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks_per_node < 1:
            raise UsageError(f"there must be a rank on each node, got {self.tasks_per_node}")


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
    slurm: Ranks = field(default_factory=Ranks)

    config_file: ClassVar[Path] = CONFIG_FILE

    @classmethod
    def preset(cls, name: str | None, data: Sequence[str] = ()) -> "TrainJob":
        """The defaults of a preset of `mmae train`."""
        return cls(Train.preset(name, data))


class Training:
    """The callable that submitit pickles and runs in every task; all state is on disk."""

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
    """Raises UsageError where there is no training store, before anything is submitted."""
    config.train.check_data()
    folder = (config.train.out / "slurm").resolve()
    recipe = config.train
    start = None if recipe.start is None else recipe.start.resolve()
    data = tuple(path.resolve() for path in recipe.data)
    task = Training(dataclasses.replace(recipe, data=data, out=folder.parent, start=start))
    slurm = config.slurm
    submit = partial(submission.submit, task, folder, "mmae-train", slurm, slurm.tasks_per_node)
    submission.run(folder, submit)
