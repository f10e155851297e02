"""A survey of few redshifts: training from nothing, and training that begins with another survey's model.

python tests/benchmarks/bench_fine_tuning.py FOLDER --from RUN [--redshifts 500] [--epochs 20] [--seeds 2]

RUN was trained on HSC, and what begins with nothing is as large; the survey is the Legacy Surveys' mock, in
three bands, other pixels and another unit.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import report
from astropy.table import Table

from mmae.scores.metrics import hsc_loss, outliers, sigma_nmad

MMAE = Path(sys.executable).with_name("mmae")
RATES = (3e-3, 1e-3, 3e-4)
BATCH, TILE = 32, 3000
SIZES = ("embed_dim", "depth", "decoder_dim", "decoder_depth", "photometry_dim")


def call(log: Path, *words: object) -> None:
    with log.open("a") as file:
        subprocess.run([str(word) for word in (MMAE, *words)], stdout=file, stderr=file, check=True)


def variants(start: Path) -> dict[str, list[object]]:
    """Ways to train, by name."""
    model = json.loads((start / "config.json").read_text())["config"]["model"]
    size = [word for name in SIZES for word in (f"--model.{name}".replace("_", "-"), model[name])]
    ways: dict[str, list[object]] = {"from nothing, lr 0.003": size}
    return ways | {f"from HSC, lr {rate:g}": ["--from", start, "--lr", rate] for rate in RATES}


def measure(
    folder: Path, name: str, flags: list[object], seed: int, options: argparse.Namespace
) -> np.ndarray:
    """sigma_NMAD, outliers, HSC loss and coverage (%) of a way to train, on a tile of its own."""
    run = folder / f"{name}, seed {seed}".replace(" ", "-").replace(",", "")
    log = folder / f"{run.name}.log"
    length = ["--epochs", options.epochs, "--batch", BATCH, "--seed", seed]
    if not (run / "bundle/card.json").exists():
        call(log, "train", folder / "few/train.zarr", "--out", run, *length, *flags)
        call(log, "export", run)
    out = run / "catalogue"
    tile = folder / "tile/legacy_tile.zarr"
    call(log, "infer", "--catalog", tile, "--model", run / "bundle", "--workers", "1", "--out", out)
    catalogue, truth = (
        Table.read(out / "legacy_tile.photoz.fits", hdu=1),
        Table.read(tile.with_suffix(".truth.fits")),
    )
    truth = truth[np.isfinite(truth["Z_SPEC"])]
    _, one, other = np.intersect1d(catalogue["OBJECT_ID"], truth["OBJECT_ID"], return_indices=True)
    z, spec = np.array(catalogue["PHOTOZ_BEST"][one], float), np.array(truth["Z_SPEC"][other], float)
    low, high = (np.array(catalogue[f"PHOTOZ_ERR68_{end}"][one]) for end in ("MIN", "MAX"))
    held = 100 * ((low <= spec) & (spec <= high)).mean()
    return np.array([sigma_nmad(z, spec), outliers(z, spec), hsc_loss(z, spec), held])


def rows(options: argparse.Namespace) -> Iterator[str]:
    folder = options.folder
    ways = variants(options.start)
    tasks = [(name, seed) for name in ways for seed in range(options.seeds)]
    with ThreadPoolExecutor(2) as pool:
        done = list(pool.map(lambda task: measure(folder, task[0], ways[task[0]], task[1], options), tasks))
    yield f"{options.redshifts} redshifts, {options.epochs} epochs, seeds: {options.seeds}; {TILE} objects."
    yield ""
    yield "| training | sigma_NMAD | outliers | HSC loss | 68 % hold |"
    yield "|---|---|---|---|---|"
    for name in ways:
        mean = np.mean([scores for (way, _), scores in zip(tasks, done, strict=True) if way == name], 0)
        yield f"| {name} | {mean[0]:.4f} | {mean[1]:.4f} | {mean[2]:.4f} | {mean[3]:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--from", dest="start", type=Path, required=True)
    parser.add_argument("--redshifts", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=2)
    options = parser.parse_args()
    options.start = options.start.resolve()
    few, tile = options.folder / "few", options.folder / "tile"
    legacy = ["--survey", "legacy"]
    if not tile.exists():
        galaxies = round(options.redshifts / 0.7)
        few.mkdir(parents=True, exist_ok=True)
        call(few / "log", "mock", few, *legacy, "--galaxies", galaxies, "--tile", 1, "--seed", 6)
        call(few / "log", "mock", tile, *legacy, "--galaxies", 1, "--tile", TILE, "--seed", 7)
    report.write(
        "fine_tuning",
        "A survey of few redshifts, from nothing and from another survey",
        f"bench_fine_tuning.py FOLDER --from RUN --epochs {options.epochs} --seeds {options.seeds}",
        rows(options),
    )


if __name__ == "__main__":
    main()
