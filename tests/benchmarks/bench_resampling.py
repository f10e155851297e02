"""Redshifts of the same galaxies on other pixels, resampled to those of the model, beside their own.

python tests/benchmarks/bench_resampling.py TILE.zarr --model BUNDLE

The objects of a tile of ours, and real HSC stamps, are written as stores of other pixel scales and inferred;
the table says how far redshifts moved. In the last row of each, a store of 0.2 arcsec is said to
be of the scale of the model. The stamps are found through MMAE_SHARED_DATA.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import report
from astropy.io import fits

from catalogs.products.schema import Flag
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from catalogs.store.resampling import footprint, resample
from mmae.bundles.bundle import open_bundle

SCALE = 0.168
SCALES = (0.1, 0.14, 0.2, 0.263)
CALLED = 0.2
BOUND = 5e-3
"""Of the median |dz|/(1 + z) at 0.2 arcsec."""
Columns = dict[str, np.ndarray]


def mock_columns(tile: Path) -> Columns:
    store = open_store(tile)
    columns = {name: store.column(name) for name in ("object_id", "ra", "dec")}
    return columns | {"image": store.images(0, store.n)[0]}


def real_columns(data: Path) -> Columns:
    """The real stamps, side by side in the field they were cut from."""
    with np.load(data / "hsc_stamps64_grizy.npz") as stamps:
        image, place = stamps["images"], stamps["xy"].astype(np.float64) * SCALE / 3600
    ids = np.arange(1, len(image) + 1)
    return {"image": image, "object_id": ids, "ra": 150.1 + place[:, 0], "dec": 2.2 + place[:, 1]}


def infer(path: Path, columns: Columns, pixel_scale: float, bundle: Path) -> np.ndarray:
    """Rows of the catalogue of a store that is written for it."""
    n, size = len(columns["image"]), columns["image"].shape[-1]
    cutouts.write(
        path,
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=n,
        survey="bench",
        size=size,
        pixel_scale=pixel_scale,
    )
    command = [sys.executable, "-m", "mmae.infer", "--catalog", path, "--model", bundle, "--workers", "1"]
    subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    return fits.getdata(path.with_name(f"{path.stem}.photoz.fits"), 1)


def moved(usual: np.ndarray, catalogue: np.ndarray) -> np.ndarray:
    """|dz|/(1 + z) of the objects of both."""
    _, before, after = np.intersect1d(usual["OBJECT_ID"], catalogue["OBJECT_ID"], return_indices=True)
    z = usual["PHOTOZ_BEST"][before]
    return np.abs(catalogue["PHOTOZ_BEST"][after] - z) / (1 + z)


def rows(name: str, columns: Columns, bundle: Path, folder: Path) -> list[str]:
    """Lines of the table, of one set of galaxies."""
    usual = infer(folder / f"{name}.zarr", columns, SCALE, bundle)
    table = []
    for number, (scale, called) in enumerate([*((scale, scale) for scale in SCALES), (CALLED, SCALE)]):
        size = int(64 * SCALE / scale)
        known = np.where(columns["image"] == 0, np.nan, columns["image"])
        image = resample(known, scale / SCALE, size)
        catalogue = infer(folder / f"{name}-{number}.zarr", columns | {"image": image}, called, bundle)
        dz = moved(usual, catalogue)
        resampled = ((catalogue["PHOTOZ_FLAGS"] & Flag.RESAMPLED) != 0).mean()
        assert resampled == (called != SCALE), resampled
        assert scale != CALLED or called == SCALE or np.median(dz) < BOUND, np.median(dz)
        table.append(
            f"| {name} | {scale} | {called} | {len(dz)} of {len(usual)} | {np.median(dz):.1e} "
            f"| {np.percentile(dz, 90):.1e} | {(dz > 0.05).mean():.1%} |"
        )
        print(table[-1], flush=True)
    return table


def seconds_a_cutout(ratio: float, hole: bool) -> float:
    """Time of resampling on one core, for the pixels that it needs; with one pixel lost, or none."""
    image = (
        np.random.default_rng(0).normal(size=(256, 5, footprint(ratio), footprint(ratio))).astype(np.float32)
    )
    image[..., 5, 5] = np.nan if hole else 0
    resample(image[:1], ratio)
    started = time.monotonic()
    resample(image, ratio)
    return (time.monotonic() - started) / len(image)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tile", type=Path)
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    mock, real = mock_columns(options.tile), real_columns(Path(os.environ["MMAE_SHARED_DATA"]))
    trained_on = open_bundle(options.model).card["training_data"]
    with tempfile.TemporaryDirectory() as folder:
        table = rows("mock", mock, options.model, Path(folder))
        table += rows("real HSC", real, options.model, Path(folder))
    body = [
        f"{len(mock['image'])} objects of {options.tile.name} and {len(real['image'])} real HSC stamps,",
        f"all of {SCALE} arcsec, written as stores of other pixels by the same kernel. Redshifts move by",
        "what is lost on the way there and back: the finest detail, and pixels at the border. The model was",
        f"trained on {trained_on['galaxies']} {trained_on['survey']} galaxies.",
        "",
        "| galaxies | arcsec a pixel | said to be | in both | median abs(dz)/(1+z) | 90 % | over 0.05 |",
        "|---|---|---|---|---|---|---|",
        *table,
        "",
        "| from, arcsec | a cutout of five bands, on one core | with a lost pixel |",
        "|---|---|---|",
        *(
            f"| {scale} | {1e3 * seconds_a_cutout(SCALE / scale, hole=False):.1f} ms "
            f"| {1e3 * seconds_a_cutout(SCALE / scale, hole=True):.1f} ms |"
            for scale in SCALES
        ),
    ]
    report.write("resampling", "Pixels of another scale", "bench_resampling.py TILE --model BUNDLE", body)


if __name__ == "__main__":
    main()
