"""Colour composites of cutouts, and a contact sheet of them."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from astropy.visualization import make_lupton_rgb
from matplotlib.figure import Figure

from catalogs import atomic
from catalogs.bands import HSC, TABLE
from catalogs.store.cutouts import CutoutStore

RGB = {"i": 0.7, "r": 1.0, "g": 1.5}
"""Bands shown as red, green, blue; their weights make a galaxy of moderate redshift nearly white. Without
them, the reddest, the middle and the bluest are shown."""
ZERO_POINT = 27.0
SKY, STRETCH, SOFTENING = -0.1, 1.0, 8
"""Parameters of the asinh stretch, in flux at that zero point: black level, range above it, softening."""
NO_VALUE = (255, 0, 255)
"""Colour of pixels that are NaN or infinite in a band that is shown: magenta, a colour of no galaxy."""

CELL, GAP, LABEL = 128, 6, 30
"""Contact sheet, in screen pixels: minimum width of a cutout, gap around it, height of its label."""
DPI = 100


def shown(bands: Sequence[str]) -> list[int]:
    """Places of the bands shown as red, green and blue."""
    letters = [band.rpartition("_")[2] for band in bands]
    if all(letters.count(letter) == 1 for letter in RGB):
        return [letters.index(letter) for letter in RGB]
    blue_to_red = sorted(
        range(len(bands)), key=lambda k: TABLE[bands[k]].wavelength if bands[k] in TABLE else k
    )
    return [blue_to_red[-1], blue_to_red[len(bands) // 2], blue_to_red[0]]


def composite(image: np.ndarray, bands: Sequence[str] = HSC, zero_point: float = ZERO_POINT) -> np.ndarray:
    """Colour composites of cutouts with the asinh stretch of Lupton et al. (2004), which preserves colour.

    The same flux always gives the same colour, so that cutouts can be compared.

    image : (n, bands, s, s) float, flux
    zero_point : AB magnitude of flux 1
    Returns (n, s, s, 3) uint8; pixels without a value are magenta.
    """
    n, _, height, width = image.shape
    image = image[:, shown(bands)] * np.float32(10 ** (0.4 * (ZERO_POINT - zero_point)))
    valid = np.isfinite(image).all(1)  # (n, s, s)
    planes = (
        weight * np.where(valid, plane, 0).astype(np.float64)
        for plane, weight in zip(image.swapaxes(0, 1), RGB.values(), strict=True)
    )
    stacked = (plane.reshape(n * height, width) for plane in planes)  # astropy takes one image at a time
    rgb = make_lupton_rgb(*stacked, minimum=SKY, stretch=STRETCH, Q=SOFTENING).reshape(n, height, width, 3)
    rgb[~valid] = NO_VALUE
    return rgb


def read_composites(store: CutoutStore, rows: Iterable[int]) -> np.ndarray:
    """Composites of rows of a store, (n, s, s, 3) uint8; damaged rows are magenta."""
    images = []
    for row in rows:
        image, damaged = store.images(row, row + 1)
        image[damaged] = np.nan
        images.append(image)
    return composite(np.concatenate(images), store.bands, store.zero_point)


def contact_sheet(images: np.ndarray, labels: Sequence[str], path: Path, columns: int = 8) -> None:
    """Write a PNG of labelled cutouts, row by row from the top left, north up.

    images : (n, s, s, 3) uint8, as returned by `composite`
    labels : n texts of up to two lines of 20 characters
    """
    n, size = images.shape[:2]
    columns = min(columns, n)
    rows = -(-n // columns)
    zoom = -(-CELL // size)
    step_x, step_y = zoom * size + GAP, zoom * size + GAP + LABEL
    width, height = columns * step_x + GAP, rows * step_y + GAP
    sheet = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        left, top = GAP + k % columns * step_x, height - GAP - k // columns * step_y
        bottom = top - zoom * size
        sheet.figimage(image.repeat(zoom, 0).repeat(zoom, 1), left, bottom, origin="lower")
        middle = (left + zoom * size / 2) / width
        sheet.text(middle, (bottom - 2) / height, label, ha="center", va="top", fontsize=7)
    with atomic.replacing(path) as temporary:
        sheet.savefig(temporary, format="png", dpi=DPI)
