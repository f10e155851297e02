"""Real HSC pixels without a band, in another unit and on other pixels: to a catalogue, beside their own.

python tests/benchmarks/bench_real_bands.py --model BUNDLE

Stamps around the sources of a real field of HSC-Wide, and real stamps of COSMOS, are found through
MMAE_SHARED_DATA. The command checks flags, bands and headers of every catalogue, and fails where they are not
those of the store.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import report
from astropy.io import fits
from scipy import ndimage

from catalogs.bands import HSC
from catalogs.products.schema import Flag
from catalogs.store import cutouts
from catalogs.store.resampling import resample
from mmae.bundles.bundle import open_bundle

SCALE, ZERO_POINT = 0.168, 27.0
BRIGHT, I_BAND = 8.0, HSC.index("hsc_i")
"""Sources are peaks of the smoothed i band, so many times its noise."""
HALF = 32
MOST = {"zero point 31.4": 1e-6, "0.2 arcsec": 5e-3}
"""Of the median |dz|/(1+z)."""
ENOUGH = 50
"""Objects for their median to be judged; of ten it is one or two."""


class Store(NamedTuple):
    """A store of the same objects, and what its catalogue must say."""

    image: np.ndarray
    bands: tuple[str, ...] = HSC
    pixel_scale: float = SCALE
    zero_point: float = ZERO_POINT
    missing: str = ""
    """The band that is not there."""
    resampled: bool = False


def field_stamps(data: Path) -> np.ndarray:
    """Stamps (N, 5, 64, 64) around the sources of the field, cut at its edges: NaN."""
    with np.load(data / "hsc_field_grizy_191x191.npz") as field:
        image = field["images"]
    smooth = ndimage.gaussian_filter(image[I_BAND], 1.5)
    noise = 1.4826 * np.median(np.abs(smooth - np.median(smooth)))
    peaks = (smooth == ndimage.maximum_filter(smooth, 9)) & (smooth > BRIGHT * noise)
    padded = np.pad(image, ((0, 0), (HALF, HALF), (HALF, HALF)), constant_values=np.nan)
    return np.stack([padded[:, y : y + 2 * HALF, x : x + 2 * HALF] for y, x in np.argwhere(peaks)])


def cosmos_stamps(data: Path) -> np.ndarray:
    with np.load(data / "hsc_stamps64_grizy.npz") as stamps:
        return stamps["images"]


def stores(image: np.ndarray) -> Iterator[tuple[str, Store]]:
    yield "zero point 31.4", Store(image * np.float32(10 ** (0.4 * 4.4)), zero_point=31.4)
    known = np.where(image == 0, np.nan, image)
    on_lsst = resample(known, 0.2 / SCALE, int(64 * SCALE / 0.2))
    yield "0.2 arcsec", Store(on_lsst, pixel_scale=0.2, resampled=True)
    for band, name in enumerate(HSC):
        others = tuple(other for other in HSC if other != name)
        yield f"without {name}, no plane of it", Store(np.delete(image, band, 1), others, missing=name)
        dark = image.copy()
        dark[:, band] = np.nan
        yield f"without {name}, NaN", Store(dark, missing=name)


def infer(path: Path, store: Store, bundle: Path) -> np.ndarray:
    """The catalogue of a store that is written for it; what it says of bands and pixels is checked."""
    n, size = len(store.image), store.image.shape[-1]
    columns = {"image": store.image, "object_id": np.arange(1, n + 1), "ra": np.linspace(150, 151, n)}
    columns["dec"] = np.full(n, 2.2)
    cutouts.write(
        path,
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=n,
        survey="real HSC",
        bands=store.bands,
        size=size,
        pixel_scale=store.pixel_scale,
        zero_point=store.zero_point,
    )
    command = [sys.executable, "-m", "mmae.infer", "--catalog", path, "--model", bundle, "--workers", "1"]
    subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True)
    with fits.open(path.with_name(f"{path.stem}.photoz.fits")) as hdus:
        table, header = np.array(hdus[1].data), hdus[0].header
    flags, used = table["PHOTOZ_FLAGS"], HSC.index(store.missing) if store.missing else None
    assert [header[f"PZBAND{k}"] for k in range(5)] == list(HSC)
    assert len(table) > 0.9 * n, (len(table), n)
    if used is not None:
        assert (flags & Flag.MISSING_BAND).all()
        assert not (table["BANDMASK"] >> used & 1).any()
        assert (table["NBANDS_USED"] <= 4).all()
    assert ((flags & Flag.RESAMPLED) != 0).all() == store.resampled
    return table


def row(name: str, usual: np.ndarray, found: np.ndarray) -> str:
    """How far redshifts moved, and how often they are as near to each other as they say."""
    _, before, after = np.intersect1d(usual["OBJECT_ID"], found["OBJECT_ID"], return_indices=True)
    z, other = usual["PHOTOZ_BEST"][before], found["PHOTOZ_BEST"][after]
    dz = np.abs(other - z) / (1 + z)
    inside = (usual["PHOTOZ_ERR95_MIN"][before] <= other) & (other <= usual["PHOTOZ_ERR95_MAX"][before])
    inside |= (found["PHOTOZ_ERR95_MIN"][after] <= z) & (z <= found["PHOTOZ_ERR95_MAX"][after])
    assert len(dz) < ENOUGH or np.median(dz) < MOST.get(name, np.inf), (name, np.median(dz))
    widths = [
        np.median((table["PHOTOZ_ERR68_MAX"] - table["PHOTOZ_ERR68_MIN"])[rows] / 2 / (1 + z))
        for table, rows in ((usual, before), (found, after))
    ]
    return (
        f"| {name} | {len(dz)} of {len(usual)} | {np.median(dz):.1e} | {np.percentile(dz, 90):.1e} "
        f"| {widths[0]:.3f} | {widths[1]:.3f} | {100 * inside.mean():.0f} |"
    )


def tables(bundle: Path) -> Iterator[str]:
    data, trained_on = Path(os.environ["MMAE_SHARED_DATA"]), open_bundle(bundle).card["training_data"]
    yield f"The model was trained on {trained_on['galaxies']} {trained_on['survey']} galaxies."
    with tempfile.TemporaryDirectory() as folder:
        for name, image in (("HSC-Wide field", field_stamps(data)), ("COSMOS", cosmos_stamps(data))):
            place = Path(folder) / name.replace(" ", "-")
            place.mkdir()
            usual = infer(place / "as-it-is.zarr", Store(image), bundle)
            yield f"\n{name}: {len(image)} stamps, {len(usual)} redshifts.\n"
            yield (
                "| store | in both | median abs(dz)/(1+z) | 90 % | width before | width | "
                "% within the 95 % interval of either |"
            )
            yield "|---|---|---|---|---|---|---|"
            for number, (kind, store) in enumerate(stores(image)):
                yield row(kind, usual, infer(place / f"{number}.zarr", store, bundle))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    options = parser.parse_args()
    title = "Real pixels without a band, in another unit and on other pixels"
    report.write("real_bands", title, "bench_real_bands.py --model BUNDLE", tables(options.model))


if __name__ == "__main__":
    main()
