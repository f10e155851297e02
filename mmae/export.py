"""Checkpoint -> model bundle: TorchScript programs for redshifts from images, and a card.

The only file that compiles to TorchScript (bundle.py loads it), so that torch.export can take its place.
"""

import copy
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tyro.conf import Positional

from catalogs import atomic
from catalogs.cutout_format import BANDS, SIZE
from catalogs.errors import InputRefused, UsageError
from mmae import __version__, checkpoint, cli
from mmae.bundle import BF16, BOUND, CARD, FORMAT, FP32, PROGRAMS, VERSION, said_of_bf16
from mmae.data import TRAIN, VALIDATION, TrainingSet
from mmae.image_mask import visible_tokens
from mmae.model import Himes2025, ModelConfig
from mmae.rounding import reduce_precision
from mmae.specialise import ImageRedshift

LIMITS = {torch.float64: 1e-10, torch.float32: 1e-5}
"""Largest |dz| allowed between a program and the full model, in either precision."""
CHECKED_ROWS, CHECKED_MASKS = 32, (0.0, 0.25, 0.75)
"""On which the programs are compared with the full model: images, and shares of them hidden."""
MEASURED_ROWS, BATCH = 1024, 64
"""On which precisions are compared with each other, so many at a time."""
FITTED_ROWS = 128
"""Other images, to which the rounding of the weights is fitted."""


@dataclass(frozen=True)
class Export:
    """Turn a checkpoint into a model bundle: TorchScript programs and their card.

    The bundle predicts redshifts from images alone, in fp32, and faster in bf16 if that is accurate enough.
    Programs are checked against the full model before they are kept; the card says how well they agree, and
    carries the sha256 of the programs, the architecture, the training configuration, what the images must be
    (bands, pixel scale, zero point), and the validation metrics.
    """

    checkpoint: Positional[Path]
    """A run directory (its best checkpoint is taken) or a checkpoint file."""
    out: Path | None = None
    """Bundle to write; by default `bundle` in the run directory."""
    data: Path | None = None
    """Training store to whose training split bf16 weights are fitted, and on whose validation split bf16 is
    compared with fp32; by default the one the checkpoint was trained on, or noise if that is not there."""


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
    fitted: Tensor
    """(M, 5, 64, 64), to which the rounding of the weights is fitted."""
    image: Tensor
    """(N, 5, 64, 64), on which its error is measured."""
    name: str


def find_sample(config: Export, state: dict[str, Any]) -> Sample:
    """Galaxies of the validation split; noise where the store of the training is not there."""
    trained_on = Path(state["config"]["data"])
    if config.data is None and not trained_on.is_dir():
        return noise_sample(FITTED_ROWS, MEASURED_ROWS)
    data = TrainingSet(config.data or trained_on)
    fitted, rows = data.rows(TRAIN)[:FITTED_ROWS], data.rows(VALIDATION)[:MEASURED_ROWS]
    return Sample(
        data.read(fitted).image, data.read(rows).image, f"{len(rows)} galaxies of the validation split"
    )


def noise_sample(fitted: int, measured: int) -> Sample:
    """For want of galaxies."""
    order = torch.randperm(fitted + measured, generator=torch.Generator().manual_seed(0))
    image = noise(fitted + measured)[order]  # which goes from faint to bright
    return Sample(image[:fitted], image[fitted:], "noise (the training store is not there)")


def noise(rows: int) -> Tensor:
    """(rows, 5, 64, 64) of several brightnesses."""
    image = torch.randn(rows, len(BANDS), SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return image * torch.logspace(-2, 1, rows)[:, None, None, None]


def disagreement(model: Himes2025, program: nn.Module, image: Tensor) -> float:
    """Largest |dz| between the full model and the program, with none and with parts of the images hidden."""
    rows, tokens = len(image), ModelConfig().image_tokens
    spectrum = torch.zeros(rows, ModelConfig.spectrum_length, dtype=image.dtype)
    no_spectrum = torch.ones(rows, ModelConfig().spectrum_tokens, dtype=torch.bool)
    largest = []
    for ratio in CHECKED_MASKS:
        visible = torch.from_numpy(visible_tokens(np.arange(rows), tokens, ratio, draw=0, seed=0))
        hidden = torch.ones(rows, tokens, dtype=torch.bool).scatter(1, visible, False)
        with torch.inference_mode():
            full = model(image, spectrum, hidden, no_spectrum).redshift
            own = program(image, visible if ratio else None)
        largest.append((full - own).abs().max())
    return float(torch.stack(largest).max())  # NaN if any is


def precision_error(exact: Tensor, reduced: Tensor) -> dict[str, float]:
    """|dz|/(1 + z) of redshifts (N,) against exact ones."""
    error = ((reduced - exact) / (1 + exact)).abs()
    return {"median": float(error.median()), "p99": float(error.quantile(0.99)), "max": float(error.max())}


# ---------------------------------------------------------------- the bundle on disk


def write_bundle(out: Path, model: Himes2025, state: dict[str, Any], sample: Sample) -> dict[str, Any]:
    """Compile, compare, write; the card, which makes the programs count, comes last. Gives the card.

    Raises InputRefused where a program is not the model.
    """
    programs = {
        FP32: torch.jit.script(ImageRedshift(model)),
        BF16: torch.jit.script(reduce_precision(ImageRedshift(model), sample.fitted)),
    }
    image, double = noise(CHECKED_ROWS), copy.deepcopy(model).double()
    agreement = {
        torch.float64: disagreement(double, ImageRedshift(double), image.double()),
        torch.float32: disagreement(model, programs[FP32], image),
    }
    for dtype, difference in agreement.items():
        if not difference <= LIMITS[dtype]:
            raise InputRefused(
                f"the program and the full model differ by |dz| = {difference:.1e}: not written"
            )
    with torch.inference_mode():
        exact, reduced = (
            torch.cat([program(part) for part in sample.image.split(BATCH)]) for program in programs.values()
        )
    error = precision_error(exact, reduced)
    if not all(error[name] < bound for name, bound in BOUND.items()):
        del programs[BF16]

    out.mkdir(parents=True, exist_ok=True)
    for precision, program in programs.items():
        with atomic.replacing(out / PROGRAMS[precision]) as temporary:
            temporary.write_bytes(program.save_to_buffer())  # a file saved by name has that name in it
    files = [PROGRAMS[precision] for precision in programs]
    card = {
        "format": FORMAT,
        "version": VERSION,
        "files": {name: atomic.entry(out / name) for name in files},
        "family": "himes2025",
        "model_config": state["config"]["model"],
        "training_config": state["config"],
        "training_data": state["data"],
        "metrics": state["metrics"],
        "step": state["step"],
        "agreement": {"float64": agreement[torch.float64], "float32": agreement[torch.float32]},
        "reduced_precision": {"images": sample.name, BF16: error},
        "code_version": __version__,
        "torch_version": torch.__version__,
    }
    atomic.write_json(out / CARD, card)
    for stale in {path.name for path in out.glob("redshift*.ts")} - set(files):
        (out / stale).unlink()
    return card


if __name__ == "__main__":
    sys.exit(cli.run(main, Export, sys.argv[1:], "python -m mmae.export"))
