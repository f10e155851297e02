"""What `mmae infer` and `mmae embed` share before they start: flags, model, Ray session, workers."""

import os
import re
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from catalogs.cpus import cpus
from catalogs.errors import UsageError
from mmae.bundles.bundle import CARD
from mmae.hardware import gpus
from mmae.production import ray_session

MODEL_VARIABLE = "MMAE_MODEL"
RUNS = Path("runs")
Session = Callable[[int], AbstractContextManager[str]]
"""Starts or joins a Ray for so many actors."""


def check_flags(catalog: Sequence[str], workers: int, ray_address: str) -> None:
    """Raises UsageError for flags that make no sense."""
    if not catalog:
        raise UsageError("--catalog names no store")
    if workers < 0:
        raise UsageError(f"--workers must not be negative, got {workers}")
    if ray_address and not re.fullmatch(r"[^:/]+:\d+", ray_address):
        raise UsageError(f"--ray-address must be HOST:PORT, got {ray_address!r}")


def find_bundle(model: Path | None) -> Path:
    """--model, else $MMAE_MODEL, else the newest bundle under runs/."""
    if model:
        return model
    if variable := os.environ.get(MODEL_VARIABLE):
        return Path(variable)
    bundles = sorted(RUNS.glob(f"**/{CARD}"), key=lambda card: card.stat().st_mtime_ns)
    if not bundles:
        raise UsageError(
            f"no model: pass --model, set {MODEL_VARIABLE}, or make a bundle under {RUNS}/ with "
            "`mmae train` and `mmae export` (`make demo` does both on mock data)"
        )
    return bundles[-1].parent


def session_of(address: str) -> Session:
    """The session of the cluster at an address, else a private one."""
    if address:
        return lambda places: ray_session.joined(address)
    return ray_session.started


def default_workers() -> int:
    """A worker a GPU, or a core that this process may use where there is none."""
    return gpus() or cpus()


def current_umask() -> int:
    """The umask of this process, which can only be read by setting it."""
    umask = os.umask(0o077)
    os.umask(umask)
    return umask
