"""A trained model becomes a bundle on disk: calibrate, compile to TorchScript, compare, write.

The only file that compiles to TorchScript (bundle.py loads it), so that torch.export can take its place.
"""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from mmae import __version__
from mmae.bundles.agreement import CHECKED_ROWS, LIMITS, disagreement, precision_error
from mmae.bundles.bundle import BOUND, CARD, FORMAT, PROGRAMS, ROLES_FILE, VERSION
from mmae.bundles.calibrate import calibrate
from mmae.bundles.program import best_redshift, estimates, program_of
from mmae.bundles.rounding import reduce_precision
from mmae.bundles.sample import FITTED_ROWS, MEASURED_ROWS, Sample, with_bands_hidden
from mmae.hardware import BF16, FP32, Precision
from mmae.models.families import AnyModel


def write_bundle(out: Path, model: AnyModel, state: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """Calibrate, compile, compare, write; the card comes last and makes the programs count. Gives the card.

    Raises InputRefused where a program is not the model.
    """
    program, grid = program_of(model), model.config.grid
    calibration = calibrate(program, sample)
    of_trained, of_others = (
        conditions if conditions is None else conditions[:rows]
        for conditions, rows in zip(sample.conditions, (FITTED_ROWS, MEASURED_ROWS), strict=True)
    )
    coarse = reduce_precision(copy.deepcopy(program), sample.trained[:FITTED_ROWS], of_trained)
    programs = {FP32: torch.jit.script(program), BF16: torch.jit.script(coarse)}
    image = with_bands_hidden(sample.image[:CHECKED_ROWS], model.config.least_bands)
    told = None if of_others is None else of_others[:CHECKED_ROWS]
    double, told_double = copy.deepcopy(model).double(), None if told is None else told.double()
    agreement = {
        torch.float64: disagreement(double, program_of(double), image.double(), told_double),
        torch.float32: disagreement(model, programs[FP32], image, told),
    }
    for dtype, difference in agreement.items():
        if not difference <= LIMITS[dtype]:
            raise InputRefused(
                f"the program and the full model differ by |dz| = {difference:.1e}: not written"
            )
    exact, reduced = (
        best_redshift(estimates(program, sample.image[:MEASURED_ROWS], of_others), grid)
        for program in programs.values()
    )
    error = precision_error(exact, reduced)
    if not all(error[name] < bound for name, bound in BOUND.items()):
        del programs[BF16]

    card = {
        "format": FORMAT,
        "version": VERSION,
        "family": model.config.family,
        "grid": dataclasses.asdict(grid) if grid else None,
        "calibration": calibration,
        "model_config": state["config"]["model"],
        "least_bands": model.config.least_bands,
        "training_config": state["config"],
        "training_data": state["data"],
        "metrics": state["metrics"],
        "step": state["step"],
        "agreement": {"float64": agreement[torch.float64], "float32": agreement[torch.float32]},
        "reduced_precision": {"images": f"{len(exact)} {sample.name}", BF16: error},
        "code_version": __version__,
        "torch_version": torch.__version__,
    }
    return write_files(out, programs, sample.roles, card)


def check_out(out: Path) -> None:
    """Raise UsageError where something else than a bundle is in the place of one."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / CARD).is_file()):
        raise UsageError(f"{out} exists and is no model bundle: choose another --out")


def write_files(
    out: Path,
    programs: Mapping[Precision, torch.jit.ScriptModule],
    roles: np.ndarray | None,
    card: dict[str, Any],
) -> dict[str, Any]:
    """Write the files of a bundle, the card last; gives it with the sha256 of the others."""
    out.mkdir(parents=True, exist_ok=True)
    for precision, compiled in programs.items():
        with atomic.replacing(out / PROGRAMS[precision]) as temporary:
            temporary.write_bytes(compiled.save_to_buffer())  # a file saved by name has that name in it
    files = [PROGRAMS[precision] for precision in programs]
    if roles is not None:
        files.append(ROLES_FILE)
        with atomic.replacing(out / ROLES_FILE) as temporary, temporary.open("wb") as file:
            np.save(file, roles)
    card = card | {"files": {name: atomic.entry(out / name) for name in files}}
    atomic.write_json(out / CARD, atomic.sealed(card))
    for stale in {path.name for path in (*out.glob("redshift*.ts"), *out.glob("*.npy"))} - set(files):
        (out / stale).unlink()
    return card
