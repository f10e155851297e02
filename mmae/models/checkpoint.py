"""Checkpoints of a training run: whole or absent, verified before they are believed.

runs/NAME/mmae-00001200.pt   the state after 1200 steps    mmae-00001200.pt.sha256   for `sha256sum -c`
runs/NAME/best.pt            the best by validation        best.pt.sha256
"""

import pickle
import re
from pathlib import Path
from typing import Any

import torch

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from mmae.models.families import AnyModel, build, config_of

BEST = "best.pt"
KEEP = 2


def save(path: Path, state: dict[str, Any]) -> None:
    """Write the state under `path`; what bore that name before stays whole until it is replaced."""
    with atomic.replacing(path) as temporary:
        torch.save(state, temporary)
        new = atomic.sha256(temporary)
        _write_sums(path, [*_sums(path), new])  # until the rename the old bytes count, from then on the new
    _write_sums(path, [new])


def _write_sums(path: Path, sums: list[str]) -> None:
    with atomic.replacing(checksum(path)) as temporary:
        temporary.write_text("".join(f"{digest}  {path.name}\n" for digest in sums))


def _sums(path: Path) -> list[str]:
    """The sha256 that count for a file; more than one only where a save was cut off."""
    if not checksum(path).is_file():
        return []
    return [line[:64] for line in checksum(path).read_text(errors="replace").splitlines()]


def save_step(run: Path, state: dict[str, Any]) -> Path:
    """Save the state under its step and let go of all but the newest two up to there.

    What lies beyond that step was damaged, or the run would have gone on from it: it counts for nothing.
    """
    path = run / f"mmae-{state['step']:08d}.pt"
    save(path, state)
    for old in [step for step in _steps(run) if step <= path][:-KEEP]:
        old.unlink()
        checksum(old).unlink(missing_ok=True)
    return path


def checksum(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def is_whole(path: Path) -> bool:
    """Whether the file is there with the bytes that were saved."""
    return path.is_file() and bool(sums := _sums(path)) and atomic.sha256(path) in sums


def sweep(run: Path) -> None:
    """Delete what a save that was cut off left behind, and settle which bytes count; for the only writer."""
    for orphan in run.glob(f".*{atomic.TEMPORARY}"):
        orphan.unlink()
    for sums in run.glob("*.pt.sha256"):
        path = sums.with_suffix("")
        if not path.exists():
            sums.unlink()
        elif len(_sums(path)) > 1 and is_whole(path):
            _write_sums(path, [atomic.sha256(path)])


def _steps(run: Path) -> list[Path]:
    return sorted(path for path in run.glob("mmae-*.pt") if re.fullmatch(r"mmae-\d{8,}\.pt", path.name))


def newest(run: Path) -> Path | None:
    """The newest whole checkpoint of a run; a damaged one is passed over, the one before it serves."""
    return next((path for path in reversed(_steps(run)) if is_whole(path)), None)


def find(path: Path) -> Path:
    """The checkpoint that a user means by a file or a run directory: there, the best, else the newest."""
    if path.is_file():
        return path
    if not path.is_dir():
        raise UsageError(f"{path} does not exist: name a run directory or a checkpoint")
    best = path / BEST
    found = best if is_whole(best) else newest(path)
    if found is None:
        raise InputRefused(f"{path} holds no whole checkpoint: train first, with --out {path}")
    return found


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU without running anything that may be in it."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
        raise InputRefused(f"{path} is not a checkpoint, or is damaged ({type(error).__name__})") from error


def load_model(path: Path) -> tuple[AnyModel, dict[str, Any]]:
    """The model in a checkpoint, averaged where it is, in evaluation mode; and the whole state around it."""
    state = load(path)
    try:
        model = build(config_of(state["family"], state["config"]["model"]))
        model.load_state_dict(state["average"] or state["model"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise InputRefused(f"{path} is not a checkpoint of this model ({type(error).__name__})") from error
    return model.eval(), state
