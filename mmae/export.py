"""Checkpoint -> model bundle: TorchScript programs for redshifts from images, and a card.

The only file that compiles to TorchScript (bundle.py loads it), so that torch.export can take its place.
"""

import copy
import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tyro.conf import Positional

from catalogs import atomic
from catalogs.cutout_format import BANDS, SIZE
from catalogs.errors import InputRefused, UsageError
from mmae import __version__, checkpoint, cli, pdf
from mmae.bundle import (
    BF16,
    BOUND,
    CARD,
    CHOSEN_BY,
    FORMAT,
    FP32,
    PROGRAMS,
    ROLES,
    ROLES_FILE,
    TRAINED_ON,
    VERSION,
    said_of_bf16,
)
from mmae.data import TRAIN, VALIDATION, TrainingSet
from mmae.families import AnyModel, Program, config_of, program_of
from mmae.image_mask import visible_tokens
from mmae.output import Estimate
from mmae.patches import IMAGE_TOKENS
from mmae.pdf import Grid
from mmae.program import ImagePdf
from mmae.rounding import reduce_precision

LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest |dz| allowed between a program and the full model, in either precision."""
CHECKED_ROWS, CHECKED_MASKS = 32, (0.0, 0.25, 0.75)
"""On which the programs are compared with the full model: images, and shares of them hidden."""
CALIBRATED_ROWS, MEASURED_ROWS, BATCH = 4096, 1024, 64
"""To which p(z) is calibrated, and on which precisions are compared with each other; so many at a time."""
PIT_PIECES, PIT_RESOLUTION = 16, 5e-3
"""Of the polylines that p(z) is calibrated by, and the least step between two of their levels."""
LEAST_APART = 0.1
"""Entropies, in nats, between which one map of p(z) passes into the other: so that no rounding decides."""
FITTED_ROWS = 128
"""Other images, to which the rounding of the weights is fitted."""


@dataclasses.dataclass(frozen=True)
class Export:
    """Turn a checkpoint into a model bundle: TorchScript programs and their card.

    The bundle predicts redshifts from images alone, in fp32, and faster in bf16 if that is accurate enough.
    The width of p(z), and what a typical galaxy is, are fitted to the validation split.
    Programs are checked against the full model before they are kept; the card says how well they agree, and
    carries the sha256 of the programs, the architecture, the training configuration, what the images must be
    (bands, pixel scale, zero point), and the validation metrics.
    """

    checkpoint: Positional[Path]
    """A run directory (its best checkpoint is taken) or a checkpoint file."""
    out: Path | None = None
    """Bundle to write; by default `bundle` in the run directory."""
    data: Path | None = None
    """Training store to whose splits calibration and bf16 weights are fitted, and on which bf16 is compared
    with fp32; by default the one the checkpoint was trained on. If that is not there, p(z) stays as it is,
    and bf16 is tried on noise."""


def main(config: Export) -> None:
    source = checkpoint.find(config.checkpoint)
    model, state = checkpoint.load_model(source)
    out = config.out or source.parent / "bundle"
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / CARD).is_file()):
        raise UsageError(f"{out} exists and is no model bundle: choose another --out")
    card = write_bundle(out, model, state, find_sample(config, state))
    print(f"checkpoint: {source} (step {state['step']})")
    print(f"agrees with the full model to |dz| <= {card['agreement']['float64']:.1e} in float64")
    print(said_of_bf16(card))
    print(f"wrote {', '.join(str(out / name) for name in (*card['files'], CARD))}")


# ---------------------------------------------------------------- what the programs are tried on


class Sample(NamedTuple):
    """Galaxies, or for want of them noise, of which no redshift is known and none was trained on."""

    name: str
    trained: Tensor
    """(M, 5, 64, 64), to the first of which the rounding of the weights is fitted."""
    image: Tensor
    """(N, 5, 64, 64), that the model was not trained on."""
    redshift: Tensor | None = None
    """(N,)"""
    roles: np.ndarray | None = None
    """(L,) of bundle.ROLES, by id: all galaxies that the model was made with."""


def find_sample(config: Export, state: dict[str, Any]) -> Sample:
    """Galaxies of the training and the validation split; noise where the training store is not there."""
    trained_on = Path(state["config"]["data"])
    if config.data is None and not trained_on.is_dir():
        return noise_sample(FITTED_ROWS, MEASURED_ROWS)
    data = TrainingSet(config.data or trained_on, config_of(state["family"], state["config"]["model"]))
    rows, others = data.rows(TRAIN), data.rows(VALIDATION)[:CALIBRATED_ROWS]
    read = data.read(others)
    return Sample(
        "galaxies of the validation split",
        data.read(rows[:CALIBRATED_ROWS]).image,
        read.image,
        read.redshift,
        roles(data) if data.store.fingerprint == state["data"]["fingerprint"] else None,
    )


def roles(data: TrainingSet) -> np.ndarray:
    """(L,) of bundle.ROLES, by id: the galaxies of the training and of the validation split."""
    parts = [
        np.array([(object_id, role) for object_id in data.object_id[data.rows(split)]], ROLES)
        for split, role in ((TRAIN, TRAINED_ON), (VALIDATION, CHOSEN_BY))
    ]
    return np.sort(np.concatenate(parts), order="object_id")


def noise_sample(fitted: int, measured: int) -> Sample:
    """For want of galaxies."""
    order = torch.randperm(fitted + measured, generator=torch.Generator().manual_seed(0))
    image = noise(fitted + measured)[order]  # which goes from faint to bright
    return Sample("images of noise (the training store is not there)", image[:fitted], image[fitted:])


def noise(rows: int) -> Tensor:
    """(rows, 5, 64, 64) of several brightnesses."""
    image = torch.randn(rows, len(BANDS), SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return image * torch.logspace(-2, 1, rows)[:, None, None, None]


def estimates(program: nn.Module, image: Tensor) -> Estimate:
    """What a program says of images (N, 5, 64, 64)."""
    with torch.inference_mode():
        parts = [program(part) for part in image.split(BATCH)]
    return Estimate(*map(torch.cat, zip(*parts, strict=True)))


def judged(estimate: Estimate, grid: Grid | None) -> Tensor:
    """The redshifts (N,) that a catalogue is judged by."""
    return pdf.best(estimate.mass, grid)[0] if grid else estimate.point


def disagreement(model: AnyModel, program: nn.Module, image: Tensor) -> float:
    """Largest difference between the full model and the program, with none and with parts of images hidden.

    In the redshift of the scalar head, and in the mass of a bin of p(z).
    """
    rows = len(image)
    spectrum = torch.zeros(rows, model.config.spectrum_length, dtype=image.dtype)
    no_spectrum = torch.ones(rows, model.config.spectrum_tokens, dtype=torch.bool)
    calibrated = getattr(program, "calibrated", lambda logits: logits)  # the paper's model has no p(z)
    largest = []
    for ratio in CHECKED_MASKS:
        visible = torch.from_numpy(visible_tokens(np.arange(rows), IMAGE_TOKENS, ratio, draw=0, seed=0))
        hidden = torch.ones(rows, IMAGE_TOKENS, dtype=torch.bool).scatter(1, visible, False)
        with torch.inference_mode():
            full = model(image, spectrum, hidden, no_spectrum)
            own = program(image, visible if ratio else None)
        mass = calibrated(full.logits)
        largest += [(full.point - own.point).abs().max(), *(mass - own.mass).abs().amax(0)]
    return float(torch.stack(largest).max())  # NaN if any is


def precision_error(exact: Tensor, reduced: Tensor) -> dict[str, float]:
    """|dz|/(1 + z) of redshifts (N,) against exact ones."""
    error = ((reduced - exact) / (1 + exact)).abs()
    return {"median": float(error.median()), "p99": float(error.quantile(0.99)), "max": float(error.max())}


# ---------------------------------------------------------------- fitted after training


def calibrate(program: Program, sample: Sample) -> dict[str, Any]:
    """Fit the width of p(z), and what is typical, to galaxies; gives what the card says of it."""
    if sample.redshift is None:
        return {"galaxies": "none", "p(z)": "as the model gives it", "typicality": "not known"}
    others = estimates(program, sample.image)
    program.typicality.fit(estimates(program, sample.trained).joint, others.joint)
    fitted = calibrate_pdf(program, others.mass, sample.redshift) if isinstance(program, ImagePdf) else "none"
    return {
        "galaxies": f"{len(others.joint)} {sample.name}",
        "p(z)": fitted,
        "typicality": f"distances of {len(others.joint)} galaxies from {len(sample.trained)}",
    }


def calibrate_pdf(program: ImagePdf, mass: Tensor, redshift: Tensor) -> dict[str, Any]:
    """Fit the width of p(z), mass (N, K) so far, and then its CDF, to redshifts (N,).

    The temperature alone would make bright galaxies pay for the outliers: the likelihood asks for wide tails,
    and one width serves tails and core. The CDFs of the narrower half, those of bright galaxies, and of the
    wider one are mapped apart.
    """
    logits = mass.clamp(min=1e-30).log()
    program.temperature.fill_(temperature(logits, redshift, program.grid))
    mass = program.calibrated(logits)
    pit, width = pdf.cdf(mass, program.grid, redshift), pdf.entropy(mass)
    order, n = width.argsort(), len(width)
    halves = order[: n - n // 2], order[n // 2 :]
    program.levels = torch.stack([pit_levels(pit[half]) for half in halves])
    narrow, wide = (width[half].median() for half in halves)
    program.widths = torch.stack([narrow, torch.maximum(wide, narrow + LEAST_APART)])
    return {
        "temperature": float(program.temperature),
        "entropies": program.widths.tolist(),
        "PIT levels": program.levels.tolist(),
    }


def pit_levels(pit: Tensor) -> Tensor:
    """Quantiles of the PIT (N,) of galaxies, from 0 to 1, ascending: (PIT_PIECES + 1,)."""
    levels = pit.quantile(torch.linspace(0, 1, PIT_PIECES + 1))
    levels[0], levels[-1] = 0.0, 1.0
    least = PIT_RESOLUTION * torch.arange(PIT_PIECES + 1)
    return (levels - least).cummax(0).values.clamp(max=1 - least[-1]) + least


def temperature(logits: Tensor, redshift: Tensor, grid: Grid) -> float:
    """What to divide logits (N, K) by for the redshifts (N,) to be likeliest, from 1/4 to 4."""
    candidates = torch.logspace(-2, 2, 161, base=2.0)
    bins = grid.bin(redshift)
    losses = [nn.functional.cross_entropy(logits / candidate, bins) for candidate in candidates]
    return float(candidates[torch.stack(losses).argmin()])


# ---------------------------------------------------------------- the bundle on disk


def write_bundle(out: Path, model: AnyModel, state: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """Calibrate, compile, compare, write; the card comes last and makes the programs count. Gives the card.

    Raises InputRefused where a program is not the model.
    """
    program, grid = program_of(model), model.config.grid
    calibration = calibrate(program, sample)
    coarse = reduce_precision(copy.deepcopy(program), sample.trained[:FITTED_ROWS])
    programs = {FP32: torch.jit.script(program), BF16: torch.jit.script(coarse)}
    image, double = noise(CHECKED_ROWS), copy.deepcopy(model).double()
    agreement = {
        torch.float64: disagreement(double, program_of(double), image.double()),
        torch.float32: disagreement(model, programs[FP32], image),
    }
    for dtype, difference in agreement.items():
        if not difference <= LIMITS[dtype]:
            raise InputRefused(
                f"the program and the full model differ by |dz| = {difference:.1e}: not written"
            )
    exact, reduced = (
        judged(estimates(program, sample.image[:MEASURED_ROWS]), grid) for program in programs.values()
    )
    error = precision_error(exact, reduced)
    if not all(error[name] < bound for name, bound in BOUND.items()):
        del programs[BF16]

    out.mkdir(parents=True, exist_ok=True)
    for precision, compiled in programs.items():
        with atomic.replacing(out / PROGRAMS[precision]) as temporary:
            temporary.write_bytes(compiled.save_to_buffer())  # a file saved by name has that name in it
    files = [PROGRAMS[precision] for precision in programs]
    if sample.roles is not None:
        files.append(ROLES_FILE)
        with atomic.replacing(out / ROLES_FILE) as temporary, temporary.open("wb") as file:
            np.save(file, sample.roles)
    card = {
        "format": FORMAT,
        "version": VERSION,
        "files": {name: atomic.entry(out / name) for name in files},
        "family": model.config.family,
        "grid": dataclasses.asdict(grid) if grid else None,
        "calibration": calibration,
        "model_config": state["config"]["model"],
        "training_config": state["config"],
        "training_data": state["data"],
        "metrics": state["metrics"],
        "step": state["step"],
        "agreement": {"float64": agreement[torch.float64], "float32": agreement[torch.float32]},
        "reduced_precision": {"images": f"{len(exact)} {sample.name}", BF16: error},
        "code_version": __version__,
        "torch_version": torch.__version__,
    }
    atomic.write_json(out / CARD, card)
    for stale in {path.name for path in (*out.glob("redshift*.ts"), *out.glob("*.npy"))} - set(files):
        (out / stale).unlink()
    return card


if __name__ == "__main__":
    sys.exit(cli.run(main, Export, sys.argv[1:], "python -m mmae.export"))
