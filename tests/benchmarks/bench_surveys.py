"""The same galaxies in the images of HSC and of Rubin after ten years and after one, by the same commands.

python tests/benchmarks/bench_surveys.py FOLDER [--galaxies 12000] [--tile 3000] [--epochs 3] [--batch 64]

FOLDER keeps mock surveys, runs and catalogues; what is there already is not made again.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import report
from astropy.table import Table

from mmae.scores.metrics import EDGES, hsc_loss, outliers, sigma_nmad

SURVEYS = {
    "HSC Wide": ["--survey", "hsc"],
    "Rubin, 10 years": ["--survey", "rubin"],
    "Rubin, 1 year": ["--survey", "rubin", "--years", "1"],
}
MMAE = Path(sys.executable).with_name("mmae")


def call(log: Path, *words: object) -> None:
    with log.open("a") as file:
        subprocess.run([str(word) for word in (MMAE, *words)], stdout=file, stderr=file, check=True)


def make(folder: Path, options: list[str], arguments: argparse.Namespace) -> None:
    """Mock, training, bundle, catalogue and metrics of a survey."""
    tile, store, run = folder / "rubin_tile.zarr", folder / "train.zarr", folder / "run"
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log"
    if not tile.exists():
        size = ["--galaxies", arguments.galaxies, "--tile", arguments.tile, "--seed", "5", "--processes", "1"]
        call(log, "mock", folder, *options, *size)
    if not store.exists():
        call(log, "ingest", folder / "galaxies.hdf5", store)
    if not (run / "bundle/card.json").exists():
        call(log, "train", store, "--out", run, "--epochs", arguments.epochs, "--batch", arguments.batch)
        call(log, "export", run)
    call(log, "infer", "--catalog", tile, "--model", run / "bundle", "--workers", "1")
    call(log, "evaluate", folder / "rubin_tile.photoz.fits", "--truth", folder / "rubin_tile.truth.fits")


def rows(folders: dict[str, Path]) -> Iterator[str]:
    """The table, of the galaxies that all catalogues have."""
    catalogues = {
        name: Table.read(folder / "rubin_tile.photoz.fits", hdu=1) for name, folder in folders.items()
    }
    truths = {name: Table.read(folder / "rubin_tile.truth.fits") for name, folder in folders.items()}
    shared = set.intersection(*(set(table["OBJECT_ID"]) for table in catalogues.values()))
    for truth in truths.values():
        shared &= set(truth["OBJECT_ID"][np.isfinite(truth["Z_SPEC"])])
    ids = np.array(sorted(shared))
    yield f"{len(ids)} galaxies of the tile that are in all catalogues.\n"
    yield "| survey | range | galaxies | sigma_NMAD | outliers | HSC loss | 68 % hold |"
    yield "|---|---|---|---|---|---|---|"
    for name, catalogue in catalogues.items():
        catalogue, truth = (at(table, ids) for table in (catalogue, truths[name]))
        z, spec = np.array(catalogue["PHOTOZ_BEST"], float), np.array(truth["Z_SPEC"], float)
        held = (catalogue["PHOTOZ_ERR68_MIN"] <= spec) & (spec <= catalogue["PHOTOZ_ERR68_MAX"])
        for label, inside in (("all", spec > -1), (f"z < {EDGES[0]}", spec < EDGES[0]), ("z > 1", spec > 1)):
            scores = [score(z[inside], spec[inside]) for score in (sigma_nmad, outliers, hsc_loss)]
            cells = " | ".join(f"{score:.4f}" for score in scores)
            yield f"| {name} | {label} | {inside.sum()} | {cells} | {100 * held[inside].mean():.1f} |"


def at(table: Table, ids: np.ndarray) -> Table:
    order = np.argsort(table["OBJECT_ID"])
    return table[order[np.searchsorted(table["OBJECT_ID"], ids, sorter=order)]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--galaxies", type=int, default=12_000)
    parser.add_argument("--tile", type=int, default=3000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    folders = {name: arguments.folder / name.lower().replace(" ", "-").replace(",", "") for name in SURVEYS}
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda name: make(folders[name], SURVEYS[name], arguments), SURVEYS))
    title = "The same galaxies in two surveys"
    report.write("surveys", title, "bench_surveys.py FOLDER", rows(folders))


if __name__ == "__main__":
    main()
