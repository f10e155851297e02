"""Stores as people write them, each with one thing wrong or otherwise, beside the same store as it should be.

python tests/benchmarks/bench_odd_stores.py TILE.zarr --model BUNDLE

64 objects of a tile of ours are written without a manifest, changed in one way, and inferred; the table says
how far redshifts moved, how many objects bear a flag that they did not bear before, and how sure they are.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import report
import zarr
from astropy.io import fits

from catalogs.store.cutouts import open_store

N = 64
Variant = Callable[[np.ndarray], dict[str, Any]]
"""Image -> `image`, and what else `write` takes."""


def masked(image: np.ndarray, where: Any, value: float) -> np.ndarray:
    image = image.copy()
    image[where] = value
    return image


def framed(image: np.ndarray, value: float) -> np.ndarray:
    frame = np.full_like(image, value)
    frame[..., 8:56, 8:56] = image[..., 8:56, 8:56]
    return frame


HOLE, HALF = np.s_[:, :, 30:34, 30:34], np.s_[:, :, :, 32:]
NJY = np.float32(10 ** (0.4 * (31.4 - 27.0)))
VARIANTS: dict[str, Variant] = {
    "as it should be": lambda image: {"image": image},
    "packed (scale_factor 0.01)": lambda image: {"image": image / 0.01, "attributes": {"scale_factor": 0.01}},
    "hole of NaN": lambda image: {"image": masked(image, HOLE, np.nan)},
    "hole of -9999": lambda image: {"image": masked(image, HOLE, -9999)},
    "hole of a _FillValue": lambda image: {
        "image": masked(image, HOLE, 1234.5),
        "attributes": {"_FillValue": 1234.5},
    },
    "48 pixels": lambda image: {"image": np.ascontiguousarray(image[..., 8:56, 8:56])},
    "margin of zeros": lambda image: {"image": framed(image, 0)},
    "margin of NaN": lambda image: {"image": framed(image, np.nan)},
    "half of zeros": lambda image: {"image": masked(image, HALF, 0)},
    "a chunk lost": lambda image: {"image": image, "lost": "image/c/0/0/1/1"},
    "a pedestal of 100": lambda image: {"image": image + 100},
    "nJy called zero point 27": lambda image: {"image": image * NJY},
    "y band in other units (1e-3)": lambda image: {
        "image": image * np.array([1, 1, 1, 1, 1e-3], np.float32)[:, None, None]
    },
    "noise alone": lambda image: {
        "image": np.random.default_rng(0).normal(0, 0.1, image.shape).astype(np.float32)
    },
}


def write(
    path: Path,
    columns: dict[str, np.ndarray],
    attributes_of_store: dict[str, Any],
    image: np.ndarray,
    attributes: dict[str, Any] | None = None,
    lost: str = "",
) -> None:
    group = zarr.create_group(path, attributes=attributes_of_store)
    pixels = group.create_array(
        "image", data=image, chunks=(8, 5, 32, 32), config={"write_empty_chunks": True}
    )
    pixels.attrs.update(attributes or {})
    for name, values in columns.items():
        group.create_array(name, data=values, chunks=(8,))
    if lost:
        (path / lost).unlink()


def infer(path: Path, bundle: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Rows of catalogue and rejects, and whether the run began with a warning."""
    command = [sys.executable, "-m", "mmae.infer", "--catalog", path, "--model", bundle, "--workers", "1"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    products = (path.with_name(f"{path.stem}.{name}.fits") for name in ("photoz", "rejects"))
    return (*(fits.getdata(file, 1) for file in products), "warning:" in done.stdout)


def row(name: str, usual: np.ndarray, catalogue: np.ndarray, rejects: np.ndarray, warned: bool) -> str:
    _, before, after = np.intersect1d(usual["OBJECT_ID"], catalogue["OBJECT_ID"], return_indices=True)
    before, after = usual[before], catalogue[after]
    moved = np.abs(after["PHOTOZ_BEST"] - before["PHOTOZ_BEST"]) / (1 + before["PHOTOZ_BEST"])
    flagged = (after["PHOTOZ_FLAGS"] & ~before["PHOTOZ_FLAGS"]) != 0
    reasons = ", ".join(sorted(set(rejects["REASON"])))
    return (
        f"| {name} | {np.median(moved):.3f}, {moved.max():.3f} | {flagged.sum()} of {len(after)} "
        f"| {len(rejects)} {reasons} | {np.median(after['PHOTOZ_RISK_BEST']):.3f} "
        f"| {'yes' if warned else ''} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tile", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    store = open_store(options.tile)
    image, _ = store.images(0, N)
    columns = {name: store.column(name, 0, N) for name in ("object_id", "ra", "dec")}
    attributes = {"bands": list("grizy"), "pixel_scale": store.pixel_scale, "zero_point": store.zero_point}
    table, usual = [], None
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, variant) in enumerate(VARIANTS.items()):
            path = Path(folder, f"{number}.zarr")
            write(path, columns, attributes, **variant(image))
            catalogue, rejects, warned = infer(path, options.model)
            usual = catalogue if usual is None else usual
            table.append(row(name, usual, catalogue, rejects, warned))
            print(table[-1], flush=True)
    body = [
        f"{N} objects of {options.tile.name} ({store.survey}), in {len(VARIANTS)} versions.",
        "",
        "| store | median, largest abs(dz)/(1+z) | newly flagged | rejected | median RISK_BEST | warning |",
        "|---|---|---|---|---|---|",
        *table,
    ]
    report.write("odd_stores", "Stores with one thing wrong", "bench_odd_stores.py TILE --model BUNDLE", body)


if __name__ == "__main__":
    main()
