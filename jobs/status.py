"""How a training run stands: `python -m jobs.status runs/first`, while it runs or after.

Its jobs as Slurm knows them, what was last measured, and how old the newest checkpoint is.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from catalogs.errors import UsageError
from jobs import queue
from mmae import checkpoint, cli
from mmae.runlog import METRICS, summary


@dataclass(frozen=True)
class Status:
    """Show the jobs of a training run, its last metrics and its newest checkpoint."""

    run: Positional[Path]
    """Run directory."""


def main(config: Status) -> None:
    """Raises UsageError where there is no run."""
    if not (config.run / "slurm").is_dir() and not (config.run / "config.json").is_file():
        raise UsageError(f"{config.run} is not a run directory: name what --out of a training named")
    for lines in (job_lines(config.run), metric_lines(config.run), checkpoint_lines(config.run)):
        print("\n".join(lines))


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


def metric_lines(run: Path) -> list[str]:
    """The last report of training and of validation, and the best validation."""
    path = run / METRICS
    lines = path.read_text().splitlines(keepends=True) if path.is_file() else []
    reports = [json.loads(line) for line in lines if line.endswith("\n")]  # the last may be half written
    validations = [report for report in reports if report["kind"] == "validation"]
    shown = []
    if training := [report for report in reports if report["kind"] == "train"]:
        losses = {name: value for name, value in training[-1].items() if name not in ("kind", "step")}
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        shown.append(f"training     step {training[-1]['step']}  {numbers}")
    if validations:
        best = min(validations, key=lambda report: report["loss"])
        shown.append(f"validation   step {validations[-1]['step']}  {summary(validations[-1])}")
        shown.append(f"best         step {best['step']}  {summary(best)}")
    return shown or ["metrics      none yet"]


def checkpoint_lines(run: Path) -> list[str]:
    newest = checkpoint.newest(run)
    if newest is None:
        return ["checkpoint   none yet"]
    saved = checkpoint.load(newest)
    minutes = (time.time() - newest.stat().st_mtime) / 60
    return [f"checkpoint   {newest.name}, epoch {saved['epoch']}, {minutes:.1f} minutes old"]


if __name__ == "__main__":
    sys.exit(cli.run(main, Status, sys.argv[1:], "python -m jobs.status"))
