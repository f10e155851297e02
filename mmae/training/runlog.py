"""Log of a training run: a progress bar, text, metrics.jsonl, figures, TensorBoard, MLflow."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from torch.utils.tensorboard import SummaryWriter

from catalogs import atomic
from mmae.progress import bar
from mmae.training.mlflow_mirror import open_mirror

METRICS = "metrics.jsonl"
TRAIN, VALIDATION = "train", "validation"
"""Kinds of reports."""


class RunLog:
    """Log of rank 0; on other ranks it does nothing.

    `step` is where the run resumes, and `validated` whether the validation at that step is done. Later
    reports, whose steps are about to be repeated, are deleted.
    """

    def __init__(self, run: Path, config: dict[str, Any], step: int, validated: bool, enabled: bool):
        self.run = run
        self.mirror = open_mirror(run, flat(config)) if enabled else None
        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=step + 1) if enabled else None
        if enabled and (run / METRICS).exists():
            reports = [
                report
                for report in read_reports(run)
                if (report["step"], report["kind"] == VALIDATION) <= (step, validated)
            ]
            with atomic.replacing(run / METRICS) as temporary:
                temporary.write_text("".join(json.dumps(report) + "\n" for report in reports))

    def print(self, text: str) -> None:
        if self.writer:
            print(text, flush=True)

    def report(self, kind: str, step: int, values: dict[str, float]) -> None:
        """Add a line to metrics.jsonl and a point to each TensorBoard curve."""
        if not self.writer:
            return
        with atomic.naming(self.run / METRICS), (self.run / METRICS).open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step} | values) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()
        if self.mirror:
            self.mirror(kind, step, values)

    def figure(self, name: str, step: int, figure: Figure) -> None:
        """Write RUN/NAME.png, over the last one; TensorBoard keeps all."""
        if not self.writer:
            return
        with atomic.replacing(self.run / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=150)
        self.writer.add_figure(name, figure, step)

    @contextmanager
    def progress(self, total: int, done: int) -> Iterator[Callable[[float], None]]:
        """Progress bar over all steps; yields a function that advances it by a step, given the loss."""
        with bar("train", "loss {task.fields[loss]:.4f}", disable=not self.writer) as progress:
            task = progress.add_task("train", total=total, completed=done, loss=math.nan)
            yield lambda loss: progress.update(task, advance=1, loss=loss)


def flat(config: dict[str, Any]) -> dict[str, Any]:
    """Flatten settings to the names of their flags: {"model": {"depth": 2}} -> {"model.depth": 2}."""
    parts = [
        flat({f"{k}.{n}": x for n, x in v.items()}) if isinstance(v, dict) else {k: v}
        for k, v in config.items()
    ]
    return {name: value for part in parts for name, value in part.items()}


def read_reports(run: Path) -> list[dict[str, Any]]:
    """The reports of a run, in order; lines that are damaged, as the last may be, are left out."""
    path = run / METRICS
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    return [report for line in lines if (report := _report(line))]


def _report(line: str) -> dict[str, Any] | None:
    try:
        report = json.loads(line)
        numbers = [value for name, value in report.items() if name != "kind"]
        complete = isinstance(report["step"], int) and (report["kind"] == TRAIN or "loss" in report)
    except (ValueError, RecursionError, AttributeError, LookupError):
        return None
    known = report["kind"] in (TRAIN, VALIDATION)
    return report if complete and known and all(isinstance(x, int | float) for x in numbers) else None


def summary(metrics: dict[str, float]) -> str:
    """Main metrics on one line."""
    names = [name for name in ("loss", "bias", "sigma_NMAD", "|dz|>0.15") if name in metrics]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names)
