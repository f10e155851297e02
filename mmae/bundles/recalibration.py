"""A bundle whose p(z) is as wide as its errors are on other galaxies: the same programs, other widths."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from catalogs.errors import UsageError
from mmae.bundles.agreement import precision_error
from mmae.bundles.bundle import RECORDED, Bundle
from mmae.bundles.calibrate import AS_THEY_ARE, MOST_NOISE, Width, Widths, looked_at
from mmae.bundles.compiler import write_files
from mmae.bundles.program import best_redshift, estimates
from mmae.bundles.recorded import with_state
from mmae.bundles.sample import MEASURED_ROWS
from mmae.bundles.stretch import Terms
from mmae.hardware import BF16, FP32, Precision
from mmae.layers.pdf import Grid


@dataclasses.dataclass(frozen=True)
class Known:
    """Galaxies with redshifts that a bundle was not trained on."""

    image: Tensor
    """(N, bands, 64, 64) as the model takes them"""
    conditions: Tensor
    """(N, 2 * bands + 1 + C)"""
    redshift: Tensor
    """(N,)"""
    weight: Tensor
    """(N,), how often each counts"""
    description: dict[str, Any]
    """Of them, for the card."""


def check(bundle: Bundle) -> None:
    """Raise UsageError for a model without p(z), and where there is no TorchScript."""
    if not bundle.scripted:
        raise UsageError("to calibrate p(z) anew takes TorchScript: use a Python before 3.14")
    if not bundle.card["grid"]:
        raise UsageError(f"{bundle.path} gives a redshift and no p(z): there is nothing to calibrate")


def recalibrated(bundle: Bundle, known: Known, out: Path) -> dict[str, Any]:
    """Write a bundle, one that `check` takes, whose p(z) is fitted to galaxies, for every set of bands.

    Gives its card.
    """
    grid, device = Grid(**bundle.card["grid"]), torch.device("cpu")
    programs: dict[Precision, Any] = {
        precision: bundle.load(device, precision) for precision in bundle.precisions
    }
    program = programs[FP32]
    sets = program.temperature.shape[1]
    widths = Widths(sets, known.image.shape[1], grid)
    before = as_given(program)
    as_the_model_says(program, sets)
    for depth, number, rows, estimate in looked_at(program, known.image, known.conditions, known.redshift):
        widths.fit(depth, number, estimate, known.redshift[rows], known.weight[rows])
    for depth, own in enumerate(before):
        for number in set(own) - set(widths.fits[AS_THEY_ARE]):  # of columns that none of these has, say
            widths.fits[depth][number] = own[number]
    for each in programs.values():
        widths.give(each)
    exact, *reduced = (
        best_redshift(estimates(each, known.image[:MEASURED_ROWS], known.conditions[:MEASURED_ROWS]), grid)
        for each in programs.values()
    )
    name = f"{len(known.redshift)} galaxies of {known.description['store']}"
    calibration = bundle.card["calibration"] | {
        "p(z)": widths.as_json(2 ** known.image.shape[1] - 1),
        "galaxies": name,
        "recalibrated": known.description,
    }
    card = {key: value for key, value in bundle.card.items() if key != "files"} | {"calibration": calibration}
    if reduced:
        card["reduced_precision"] = {"images": name, BF16: precision_error(exact, reduced[0])}
    recorded = {
        precision: same
        for precision, each in programs.items()
        if (same := with_state(bundle.path / RECORDED[precision], each.state_dict()))
    }
    return write_files(out, programs, recorded, bundle.roles(), card)


def as_given(program: Any) -> list[dict[int, Width]]:
    """The widths of a program by depth and set; none where p(z) is as the model gives it."""
    if not program.levels.shape[3]:
        return [{}, {}]
    terms = [getattr(program.stretch, name) for name in Terms._fields]
    parts = [program.temperature, program.levels, program.widths, program.shallow, *terms]
    return [
        {
            number: Width(*(part[depth, number].clone() for part in parts))
            for number in range(program.temperature.shape[1])
        }
        for depth in (AS_THEY_ARE, MOST_NOISE)
    ]


def as_the_model_says(program: Any, sets: int) -> None:
    """Make the p(z) of a program as wide as its model gives it."""
    program.temperature, program.levels = torch.ones(2, sets), torch.zeros(2, sets, 2, 0)
