"""Redshifts of one model without some of the bands, and at other depths, on the galaxies of its test split.

python tests/benchmarks/bench_bands.py STORE RUN...

Every RUN has a bundle (`mmae export`), which is calibrated on whole images of its validation split.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import torch
from torch import Tensor

from catalogs.products.screen import ATYPICAL
from mmae.bundles.bundle import open_bundle
from mmae.bundles.program import estimates
from mmae.hardware import FP32
from mmae.models import pdf
from mmae.models.families import config_of
from mmae.models.pdf import Grid
from mmae.scores.metrics import hsc_loss, outliers, sigma_nmad
from mmae.training.data import TEST, TrainingSet

DEPTHS = (1.5, 2.0, 3.0)
"""Noise of the sky, in units of what it is."""
HEADER = ["seen", "sigma_NMAD", "outliers", "HSC loss", "68 % hold", "95 % hold", "median width", "ATYPICAL"]


def cases(image: Tensor, bands: tuple[str, ...], noise: np.ndarray) -> Iterator[tuple[str, Tensor]]:
    """Images as they come, without one band or two or three, and with white noise added."""
    yield "all bands", image
    lost = [{band} for band in bands]
    lost += [set(pair) for pair in itertools.islice(itertools.combinations(bands, 2), 0, None, 3)]
    lost += [set(bands[:-2]), set(bands[2:])]
    for without in lost:
        hidden = torch.tensor([band in without for band in bands])
        yield (
            f"without {' '.join(band.rpartition('_')[2] for band in bands if band in without)}",
            image.masked_fill(hidden[:, None, None], torch.nan),
        )
    white = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    sigma = torch.from_numpy(noise).float()[:, None, None]
    for depth in DEPTHS:
        yield f"noise x {depth:g}", image + white * sigma * (depth**2 - 1) ** 0.5


def row(program: torch.jit.ScriptModule, grid: Grid, image: Tensor, redshift: Tensor) -> list[str]:
    estimate = estimates(program, image)
    mass = estimate.mass / estimate.mass.sum(1, keepdim=True)
    levels = torch.tensor([0.025, 0.16, 0.84, 0.975]).expand(len(mass), -1)
    low95, low68, high68, high95 = pdf.quantiles(mass, grid, levels).unbind(1)
    best, z = pdf.best(mass, grid)[0].numpy(), redshift.numpy()
    held = [
        float(((low <= redshift) & (redshift <= high)).float().mean())
        for low, high in ((low68, high68), (low95, high95))
    ]
    width = float(((high68 - low68) / 2 / (1 + redshift)).median())
    scores = [sigma_nmad(best, z), outliers(best, z), hsc_loss(best, z)]
    unlike = float((estimate.typical < ATYPICAL).float().mean())
    return [*(f"{x:.4f}" for x in scores), *(f"{100 * x:.1f}" for x in held), f"{width:.4f}", f"{unlike:.3f}"]


def tables(store: Path, runs: list[Path]) -> Iterator[str]:
    for run in runs:
        bundle = open_bundle(run / "bundle", FP32)
        card = bundle.card
        data = TrainingSet(store, config_of(card["family"], card["model_config"]), card["training_data"])
        batch = data.read(data.rows(TEST))
        program, grid = bundle.load(torch.device("cpu")), Grid(**card["grid"])
        galaxies, steps = card["training_data"]["galaxies"], card["step"]
        yield f"{run.name}: {galaxies} galaxies, {steps} steps; {len(batch.image)} of the test split"
        yield ""
        yield f"| {' | '.join(HEADER)} |"
        yield "|---" * len(HEADER) + "|"
        for name, image in cases(batch.image, bundle.input.bands, bundle.noise):
            yield f"| {name} | {' | '.join(row(program, grid, image, batch.redshift))} |"
        yield ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    arguments = parser.parse_args()
    body = tables(arguments.store, arguments.runs)
    report.write("bands", "Without some bands, and at other depths", "bench_bands.py STORE RUN...", body)


if __name__ == "__main__":
    main()
