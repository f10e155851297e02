"""One model without some of the bands, and at other depths, beside models made for nothing else.

python tests/benchmarks/bench_bands.py FOLDER [--galaxies 12000] [--epochs 3] [--batch 64]

FOLDER keeps mock surveys of HSC, of the same galaxies with more and with less noise, and the runs; what is
there already is not made again. Every model sees as many galaxies as the others. Twelve thousand galaxies and
three epochs take an hour on two cores.
"""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
import studies
import torch

from catalogs.bands import HSC
from catalogs.mock import cameras
from catalogs.mock.cameras import Camera
from catalogs.mock.objects import TRAINING
from catalogs.mock.survey import Mock, write_store
from catalogs.mock.workers import workers
from mmae import export, train
from mmae.bundles import calibrate
from mmae.training.recipe import Train

SEEDS = (0, 1)
LOST = ("g", "r", "i", "z", "y", "g y", "r y", "z y")
"""Bands of which a model is made for the others alone."""
MORE_LOST = ("g r", "g r i", "i z y")
DEPTHS = (0.5, 2.0, 3.0)
"""Noise of the sky, in units of that of HSC Wide."""
HEADER = ["seen", *studies.SCORES, "made for it: sigma_NMAD", "68 % hold", "ratio of sigma_NMAD"]


class Case(NamedTuple):
    """What is seen of galaxies."""

    name: str
    noise: float = 1.0
    lost: str = ""
    has_own: bool = True
    """Whether a model is made for it alone."""

    @property
    def bands(self) -> tuple[str, ...]:
        return tuple(band for band in HSC if band[-1] not in self.lost.split())


CASES = [
    Case("all bands"),
    *(Case(f"without {lost}", lost=lost) for lost in LOST),
    *(Case(f"without {lost}", lost=lost, has_own=False) for lost in MORE_LOST),
    *(Case(f"noise x {noise:g}", noise=noise) for noise in DEPTHS),
]


@dataclasses.dataclass(frozen=True)
class Scaled(Mock):
    """HSC with so many times its noise of the sky."""

    noise: float = 1.0

    @property
    def camera(self) -> Camera:
        hsc = cameras.HSC
        sky_sigma = tuple(self.noise * sigma for sigma in hsc.sky_sigma)
        gain = tuple(gain / self.noise**2 for gain in hsc.gain)
        return dataclasses.replace(hsc, sky_sigma=sky_sigma, gain=gain)


@dataclasses.dataclass(frozen=True)
class Specialist(Train):
    """Training on some of the bands of a store."""

    only: tuple[str, ...] = HSC

    def on_bands(self, bands: tuple[str, ...], of_stores: Sequence[Sequence[str]]) -> Train:
        return super().on_bands(self.only, [self.only])


class Folder(NamedTuple):
    path: Path
    galaxies: int
    epochs: int
    batch: int

    def store(self, case: Case) -> Path:
        return self.path / f"noise-{case.noise:g}.zarr"

    def draw(self, case: Case) -> None:
        if not self.store(case).exists():
            config = Scaled(self.path, galaxies=self.galaxies, seed=5, noise=case.noise)
            with workers(config.processes) as pool:
                write_store(self.store(case), config, pool, TRAINING)

    def recipes(self) -> dict[str, Train]:
        """Runs by name: the model of all cases, by its seed, and those of a case."""
        length = {"epochs": self.epochs, "batch": self.batch}
        everything = self.store(CASES[0])
        recipes: dict[str, Train] = {
            f"seed {seed}": Train((everything,), self.path / "runs" / f"seed {seed}", seed=seed, **length)
            for seed in SEEDS
        }
        for case in CASES:
            out = self.path / "runs" / case.name
            if case.has_own:
                recipes[case.name] = Specialist(
                    (self.store(case),), out, band_dropout=0.0, noisier=0.0, only=case.bands, **length
                )
        return recipes


def make(recipe: Train) -> None:
    if not (recipe.out / "bundle" / "card.json").exists():
        train.main(recipe)
        if isinstance(recipe, Specialist):  # other sets of bands are not asked of it
            calibrate.MOST_IMAGES = 0
        export.main(export.Export(recipe.out))


def scores(bundle_of: Path, store: Path, lost: str = "") -> list[float]:
    """The scores of a bundle for the test split of a store, without some of the bands."""
    bundle = studies.opened(bundle_of)
    batch = studies.held_out(bundle, store)
    hidden = torch.tensor([band[-1] in lost.split() for band in bundle.input.bands])
    image = batch.image.masked_fill(hidden[:, None, None], torch.nan)
    return studies.measured(bundle, batch._replace(image=image))


def rows(folder: Folder) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    for case in CASES:
        runs = [folder.path / "runs" / f"seed {seed}" for seed in SEEDS]
        one = np.mean([scores(run, folder.store(case), case.lost) for run in runs], 0)
        cells = studies.cells(one)
        if case.has_own:
            own = scores(folder.path / "runs" / case.name, folder.store(case))
            cells += [f"{own[0]:.4f}", f"{own[3]:.1f}", f"{one[0] / own[0]:.2f}"]
        else:
            cells += [""] * 3
        yield f"| {case.name} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--run", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    folder = Folder(arguments.folder, arguments.galaxies, arguments.epochs, arguments.batch)
    if arguments.run:
        torch.set_num_threads(1)
        make(folder.recipes()[arguments.run])
        return
    for case in CASES:
        folder.draw(case)

    def started(run: str) -> None:
        with (folder.path / f"{run}.log").open("w") as log:
            subprocess.run([sys.executable, *sys.argv, "--run", run], stdout=log, stderr=log, check=True)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(started, folder.recipes()))
    title = "Without some bands, and at other depths"
    length = " ".join(sys.argv[2:])
    report.write("bands", title, f"bench_bands.py FOLDER {length}".strip(), rows(folder))


if __name__ == "__main__":
    main()
