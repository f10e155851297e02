"""Checkpoints of a training run: written atomically, verified by checksum before use.

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
from catalogs.regular_file import refuse_special
from mmae.models.families import AnyModel, build, config_of

BEST = "best.pt"
KEEP = 2
"""Number of newest checkpoints kept."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Write the state to `path`; a previous file stays intact until it is replaced."""
    with atomic.replacing(path) as temporary:
        _write(temporary, state)
        digest = atomic.sha256(temporary)
        _write_sums(path, [*_sums(path), digest])  # valid are the old file until the rename, then the new
    _write_sums(path, [digest])


def _write(path: Path, state: dict[str, Any]) -> None:
    with path.open("wb") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:  # torch's words over a write that failed
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def _write_sums(path: Path, sums: list[str]) -> None:
    with atomic.replacing(checksum(path)) as temporary:
        temporary.write_text("".join(f"{digest}  {path.name}\n" for digest in sums))


def _sums(path: Path) -> list[str]:
    """Valid sha256 of a file; more than one only where a save was interrupted."""
    if not checksum(path).is_file():
        return []
    return [line[:64] for line in checksum(path).read_text(errors="replace").splitlines()]


def save_step(run: Path, state: dict[str, Any]) -> Path:
    """Save the state under its step, and delete all but the newest two checkpoints up to that step.

    Later checkpoints are ignored: they are damaged, or the run would have resumed from them.
    """
    path = run / f"mmae-{state['step']:08d}.pt"
    save(path, state)
    for old in [step for step in _steps(run) if step <= path][:-KEEP]:
        old.unlink()
        checksum(old).unlink(missing_ok=True)
    return path


def checksum(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def is_intact(path: Path) -> bool:
    """Whether the file exists with the bytes that were saved."""
    return path.is_file() and bool(sums := _sums(path)) and atomic.sha256(path) in sums


def sweep(run: Path) -> None:
    """Delete files that an interrupted save left, and obsolete checksums; for the only writer."""
    for orphan in run.glob(f".*{atomic.TEMPORARY}"):
        orphan.unlink()
    for sums in run.glob("*.pt.sha256"):
        path = sums.with_suffix("")
        if not path.exists():
            sums.unlink()
        elif len(_sums(path)) > 1 and is_intact(path):
            _write_sums(path, [atomic.sha256(path)])


def _steps(run: Path) -> list[Path]:
    return sorted(path for path in run.glob("mmae-*.pt") if re.fullmatch(r"mmae-\d{8,}\.pt", path.name))


def newest(run: Path) -> Path | None:
    """The newest intact checkpoint of a run; damaged ones are skipped."""
    return next((path for path in reversed(_steps(run)) if is_intact(path)), None)


def find(path: Path) -> Path:
    """The checkpoint at a path: the file itself, or the best, else the newest, of a run directory."""
    refuse_special(path)
    if path.is_file():
        if checksum(path).is_file() and not is_intact(path):
            raise InputRefused(f"{path} is damaged, by its {checksum(path).name}: take another checkpoint")
        return path
    if not path.is_dir():
        raise UsageError(f"{path} does not exist: name a run directory or a checkpoint")
    best = path / BEST
    checkpoint = best if is_intact(best) else newest(path)
    if checkpoint is None:
        raise InputRefused(f"{path} holds no whole checkpoint: train first, with --out {path}")
    return checkpoint


def load(path: Path) -> dict[str, Any]:
    """Load a checkpoint onto the CPU without executing any code in it."""
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (RuntimeError, pickle.UnpicklingError, EOFError, ValueError, TypeError) as error:
        raise InputRefused(f"{path} is not a checkpoint, or is damaged ({type(error).__name__})") from error


def load_model(path: Path) -> tuple[AnyModel, dict[str, Any]]:
    """Load the model, in evaluation mode, with averaged weights if there are any; and the state it is in."""
    state = load(path)
    try:
        model = build(config_of(state["family"], state["config"]["model"]))
        weights = state["average"] or state["model"]
    except (KeyError, TypeError) as error:
        raise InputRefused(f"{path} is not a checkpoint of this model ({type(error).__name__})") from error
    take_weights(model, weights, path)
    return model.eval(), state


def take_weights(model: AnyModel, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Give a model the weights of a checkpoint; InputRefused where this version has others."""
    try:
        model.load_state_dict(weights)
    except (RuntimeError, TypeError) as error:
        raise InputRefused(
            f"{path} has other weights than this version of the model: go on with the version that trained "
            "it, or train it anew"
        ) from error
