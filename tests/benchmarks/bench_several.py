"""One model of three surveys beside a model of each: the same galaxies in HSC, Rubin and Legacy.

python tests/benchmarks/bench_several.py FOLDER [--galaxies 12000] [--tile 3000] [--epochs 3] [--batch 64]

FOLDER keeps mock surveys, runs and catalogues; what is there already is not made again. Every model sees as
many galaxies as the others: the one of all three has a third of the epochs, of three times the galaxies.
"""

import argparse
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import report
from astropy.table import Table
from bench_surveys import call

from mmae.scores.metrics import hsc_loss, outliers, sigma_nmad

SURVEYS = ("hsc", "rubin", "legacy")
ALL = "all three"
HEADER = ["survey", "model of", "sigma_NMAD", "outliers", "HSC loss", "68 % hold", "95 % hold", "ratio"]


def draw(folder: Path, survey: str, arguments: argparse.Namespace) -> Path:
    """The mock of a survey, and its training store."""
    place = folder / survey
    place.mkdir(parents=True, exist_ok=True)
    store, log = place / "train.zarr", place / "log"
    if not list(place.glob("*_tile.truth.fits")):
        size = ["--galaxies", arguments.galaxies, "--tile", arguments.tile, "--processes", "1"]
        call(log, "mock", place, "--survey", survey, "--seed", "5", *size)
    if not store.exists():
        call(log, "ingest", place / "galaxies.hdf5", store)
    return store


def train(folder: Path, name: str, stores: list[Path], epochs: int, seed: int, batch: int) -> Path:
    """The bundle of a model, made once."""
    run = folder / "runs" / f"{name} {seed}"
    run.mkdir(parents=True, exist_ok=True)
    if not (run / "bundle/card.json").exists():
        length = ["--epochs", epochs, "--batch", batch, "--seed", seed]
        call(run / "log", "train", *stores, "--out", run, *length)
        call(run / "log", "export", run)
    return run / "bundle"


def judged(folder: Path, survey: str, bundle: Path) -> list[float]:
    """sigma_NMAD, outliers, HSC loss, and how many truths the 68 and 95 % intervals hold, on the tile."""
    (tile,), out = (folder / survey).glob("*_tile.zarr"), bundle.parent / survey
    call(bundle.parent / "log", "infer", "--catalog", tile, "--model", bundle, "--out", out, "--workers", "1")
    catalogue = Table.read(out / f"{tile.stem}.photoz.fits", hdu=1)
    truth = Table.read(tile.with_suffix(".truth.fits"))
    rows = np.searchsorted(truth["OBJECT_ID"], catalogue["OBJECT_ID"])
    spec = np.array(truth["Z_SPEC"], float)[rows]
    known = np.isfinite(spec)
    catalogue, spec = catalogue[known], spec[known]
    z = np.array(catalogue["PHOTOZ_BEST"], float)
    held = [
        100 * np.mean((catalogue[f"PHOTOZ_ERR{p}_MIN"] <= spec) & (spec <= catalogue[f"PHOTOZ_ERR{p}_MAX"]))
        for p in (68, 95)
    ]
    return [*(score(z, spec) for score in (sigma_nmad, outliers, hsc_loss)), *held]


def rows(folder: Path, own: dict[str, list[Path]], one: list[Path]) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    for survey, bundles in own.items():
        alone, together = (
            np.mean([judged(folder, survey, bundle) for bundle in of], axis=0) for of in (bundles, one)
        )
        for name, values, ratio in ((survey, alone, ""), (ALL, together, f"{together[0] / alone[0]:.2f}")):
            cells = [f"{value:.4f}" for value in values[:3]] + [f"{value:.1f}" for value in values[3:]]
            yield f"| {survey} | {name} | {' | '.join(cells)} | {ratio} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=12_000)
    parser.add_argument("--tile", type=int, default=3_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.folder
    stores = {survey: draw(folder, survey, arguments) for survey in SURVEYS}

    def made(job: tuple[str, list[Path], int, int]) -> Path:
        return train(folder, *job, arguments.batch)

    seeds = range(arguments.seeds)
    jobs = [(name, [store], arguments.epochs, seed) for name, store in stores.items() for seed in seeds]
    jobs += [(ALL, list(stores.values()), arguments.epochs // len(stores), seed) for seed in seeds]
    with ThreadPoolExecutor(2) as pool:
        bundles = list(pool.map(made, jobs))
    *own, one = [bundles[k : k + arguments.seeds] for k in range(0, len(jobs), arguments.seeds)]
    command = " ".join(["bench_several.py", "FOLDER", *sys.argv[2:]])
    report.write(
        "several_surveys",
        "One model of three surveys",
        command,
        rows(folder, dict(zip(SURVEYS, own, strict=True)), one),
    )


if __name__ == "__main__":
    main()
