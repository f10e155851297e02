"""Peak memory of training: does it depend on the number of objects?

    python tests/benchmarks/bench_training_memory.py [--most 100000] [--folder FOLDER]

Every case is a process of its own that trains for one epoch on three stores of equal size: galaxies with
spectra, with redshifts alone, and images alone. The model is a small one, so that what is measured is what
reads and shuffles. Stores are the same 64 galaxies over and over under new ids, up to 3 GB in all, and are
deleted again.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import report
from bench_ingest_memory import peak

from catalogs.store import cutouts
from catalogs.store.writer import Rows

ROWS, PIXELS = 64, 7783
WAVE = 3600 + 0.8 * np.arange(PIXELS)
KINDS = {"spectra": ("flux", "ivar", "redshift"), "redshifts": ("redshift",), "images": ()}
SMALL = ("embed-dim 64", "depth 1", "decoder-dim 32", "decoder-depth 1", "photometry-dim 32", "templates 0")


def galaxies() -> dict[str, np.ndarray]:
    """64 galaxies: round, brighter than the noise, and of whole numbers, which compress."""
    rng = np.random.default_rng(0)
    y, x = np.indices((64, 64)) - 31.5
    light = 400 * np.exp(-np.hypot(x, y) / 4) * rng.uniform(0.5, 2, (ROWS, 5, 1, 1))
    image = np.rint(light + 3 * rng.standard_normal(light.shape)).astype(np.float32)
    flux = np.rint(10 + rng.standard_normal((ROWS, PIXELS))).astype(np.float32)
    redshift = rng.uniform(0.05, 1, ROWS)
    return {"image": image, "flux": flux, "ivar": np.ones_like(flux), "redshift": redshift}


def make(folder: Path, n: int) -> list[Path]:
    """Stores of n objects of each kind."""
    drawn = galaxies()

    def rows_of(kind: int, names: tuple[str, ...]) -> Rows:
        def rows(start: int, stop: int) -> dict[str, np.ndarray]:
            number = kind * n + np.arange(start, stop)
            place = {"object_id": 1 + number, "ra": number * 360 / (3 * n), "dec": number % 60 - 30.0}
            return place | {name: drawn[name][number % ROWS] for name in ("image", *names)}

        return rows

    for kind, (name, names) in enumerate(KINDS.items()):
        wave = WAVE if "flux" in names else None
        known = ("redshift",) if names == ("redshift",) else ()
        cutouts.write(
            folder / f"{name}.zarr", rows_of(kind, names), n=n, survey="test", wave=wave, known=known
        )
    return [folder / f"{name}.zarr" for name in KINDS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=100_000, help="objects in the largest case")
    parser.add_argument("--folder", type=Path, help="where to write; by default that of temporary files")
    options = parser.parse_args()
    table = ["| objects | images, GB | peak memory, MB | objects/s |", "|---|---|---|---|"]
    small = [word for flag in SMALL for word in f"--model.{flag}".split()]
    for total in (options.most // 10, options.most * 3 // 10, options.most):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            stores = make(Path(folder), total // len(KINDS))
            train = (sys.executable, "-m", "mmae.cli", "train", *stores, "--out", Path(folder, "run"))
            memory, seconds = peak(*train, "--epochs", 1, *small)
            shutil.rmtree(folder, ignore_errors=True)
            Path(folder).mkdir()
        size = total * 5 * 64 * 64 * 4 / 1e9
        table.append(f"| {total:,} | {size:.1f} | {memory:,.0f} | {total / seconds:,.0f} |")
        print(table[-1], flush=True)
    body = [
        "One run each, of one epoch; a third of the objects each with spectrum and redshift, with a redshift "
        "alone, with an image alone. The rate includes the start.",
        "",
        *table,
    ]
    report.write(
        "training_memory", "Memory of training", f"bench_training_memory.py --most {options.most}", body
    )


if __name__ == "__main__":
    main()
