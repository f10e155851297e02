"""What a person sees of a training run: a progress bar, lines of text, metrics.jsonl, TensorBoard."""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from mmae.progress import bar

METRICS = "metrics.jsonl"


class RunLog:
    """Reports of rank 0; on other ranks it keeps silent."""

    def __init__(self, run: Path, step: int, speaks: bool):
        self.run = run
        self.writer = SummaryWriter(str(run / "tensorboard"), purge_step=step) if speaks else None

    def say(self, text: str) -> None:
        if self.writer:
            print(text, flush=True)

    def report(self, kind: str, step: int, values: dict[str, float]) -> None:
        """One line of metrics.jsonl, one point of each TensorBoard curve."""
        if not self.writer:
            return
        with (self.run / METRICS).open("a") as file:
            file.write(json.dumps({"kind": kind, "step": step} | values) + "\n")
        for name, value in values.items():
            self.writer.add_scalar(f"{kind}/{name}", value, step)
        self.writer.flush()

    @contextmanager
    def progress(self, total: int, done: int) -> Iterator[Callable[[float], None]]:
        """A bar over all steps; the function it gives takes the loss of one more."""
        with bar("train", "loss {task.fields[loss]:.4f}", disable=not self.writer) as shown:
            task = shown.add_task("train", total=total, completed=done, loss=math.nan)
            yield lambda loss: shown.update(task, advance=1, loss=loss)


def summary(metrics: dict[str, float]) -> str:
    """A few metrics on one line."""
    names = [name for name in ("loss", "bias", "sigma_NMAD", "|dz|>0.15") if name in metrics]
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in names)
