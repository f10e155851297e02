"""A trained model becomes a bundle on disk: calibrate, compile to TorchScript, record, compare, write.

The only file that compiles to TorchScript (bundle.py loads it), beside which torch.export records the same.
"""

import copy
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from mmae import __version__
from mmae.bundles.agreement import CHECKED_ROWS, LIMITS, difference, disagreement, precision_error
from mmae.bundles.bundle import BOUND, CARD, FORMAT, PROGRAMS, RECORDED, ROLES_FILE, SCRIPTED, VERSION
from mmae.bundles.calibrate import calibrate
from mmae.bundles.program import Program, best_redshift, estimates, program_of
from mmae.bundles.recorded import record, runnable, to_bytes
from mmae.bundles.rounding import reduce_precision
from mmae.bundles.sample import FITTED_ROWS, MEASURED_ROWS, Sample, with_bands_hidden
from mmae.hardware import BF16, FP32, Precision
from mmae.layers.conditions import unknown
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
    plain: dict[Precision, Program] = {FP32: program, BF16: coarse}
    programs: dict[Precision, Any] = {
        precision: torch.jit.script(each) if SCRIPTED else each for precision, each in plain.items()
    }
    image = with_bands_hidden(sample.image[:CHECKED_ROWS], model.config.least_bands)
    told = None if of_others is None else of_others[:CHECKED_ROWS]
    double, told_double = copy.deepcopy(model).double(), None if told is None else told.double()
    agreement = {
        torch.float64: disagreement(double, program_of(double), image.double(), told_double),
        torch.float32: disagreement(model, programs[FP32], image, told),
    }
    for dtype, largest in agreement.items():
        if not largest <= LIMITS[dtype]:
            raise InputRefused(f"the program and the full model differ by |dz| = {largest:.1e}: not written")
    exact, reduced = (
        best_redshift(estimates(program, sample.image[:MEASURED_ROWS], of_others), grid)
        for program in programs.values()
    )
    error = precision_error(exact, reduced)
    if not all(error[name] < bound for name, bound in BOUND.items()):
        del programs[BF16], plain[BF16]
    recorded, apart = recordings(plain, programs, image, told)

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
        "agreement": {
            "float64": agreement[torch.float64],
            "float32": agreement[torch.float32],
            "recorded": apart,
        },
        "reduced_precision": {"images": f"{len(exact)} {sample.name}", BF16: error},
        "code_version": __version__,
        "torch_version": torch.__version__,
    }
    return write_files(out, programs if SCRIPTED else {}, recorded, sample.roles, card)


def recordings(
    plain: Mapping[Precision, Program],
    programs: Mapping[Precision, Any],
    image: Tensor,
    conditions: Tensor | None,
) -> tuple[dict[Precision, ExportedProgram], dict[Precision, float]]:
    """What torch.export records of programs, and how far each is from the compiled one.

    By images (N, bands, 64, 64) and their conditions. One that is too far is left out; InputRefused if it is
    that in fp32.
    """
    recorded, apart = {}, {}
    for precision, each in plain.items():
        made = record(each, image, unknown(image) if conditions is None else conditions)
        again = estimates(runnable(made, image.device), image, conditions)
        apart[precision] = difference(again, estimates(programs[precision], image, conditions))
        if apart[precision] <= LIMITS[torch.float32]:
            recorded[precision] = made
        elif precision == FP32:
            raise InputRefused(f"what torch.export records is off by {apart[precision]:.1e}: not written")
    return recorded, apart


def check_out(out: Path) -> None:
    """Raise UsageError where something else than a bundle is in the place of one."""
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / CARD).is_file()):
        raise UsageError(f"{out} exists and is no model bundle: choose another --out")


def write_files(
    out: Path,
    programs: Mapping[Precision, Any],
    recorded: Mapping[Precision, ExportedProgram],
    roles: np.ndarray | None,
    card: dict[str, Any],
) -> dict[str, Any]:
    """Write the files of a bundle, the card last; gives it with the sha256 of the others."""
    out.mkdir(parents=True, exist_ok=True)
    contents = {  # a file saved by name has that name in it
        **{PROGRAMS[precision]: each.save_to_buffer() for precision, each in programs.items()},
        **{RECORDED[precision]: to_bytes(each) for precision, each in recorded.items()},
    }
    for name, content in contents.items():
        with atomic.replacing(out / name) as temporary:
            temporary.write_bytes(content)
    files = list(contents)
    if roles is not None:
        files.append(ROLES_FILE)
        with atomic.replacing(out / ROLES_FILE) as temporary, temporary.open("wb") as file:
            np.save(file, roles)
    card = card | {"files": {name: atomic.entry(out / name) for name in files}}
    atomic.write_json(out / CARD, atomic.sealed(card))
    for stale in {path.name for path in (*out.glob("redshift.*"), *out.glob("*.npy"))} - set(files):
        (out / stale).unlink()
    return card
