"""`python -m jobs.status OUT`: the Slurm jobs of a run, and the output of `mmae status`."""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("jobs.status", "Status")

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from catalogs.errors import UsageError
from jobs import queue
from mmae import cli, status


@dataclass(frozen=True)
class Status:
    """Show the jobs of a run, and how it stands."""

    run: Positional[Path]
    """What --out of a training named, or the folder of the catalogues."""


def main(config: Status) -> None:
    """Raises UsageError where there is no run."""
    try:
        lines = list(status.lines(config.run))
    except UsageError:
        if not (config.run / "slurm").is_dir():
            raise
        lines = ["progress     none yet"]  # the job waits in the queue
    print("\n".join([*job_lines(config.run), *lines]))


def job_lines(run: Path) -> list[str]:
    """A line a job that was submitted for this run."""
    ids = queue.submitted(run / "slurm")
    if not ids:
        return ["job          none submitted"]
    try:
        states = queue.states(ids)
    except OSError as error:
        return [f"job          {', '.join(ids)}: {error}"]
    return [f"job          {job_id} {states.get(job_id, 'not in the accounting')}" for job_id in ids]
