"""Maps of the sky by HEALPix: how many objects, how far, how sure, how many flagged or rejected, how deep."""

from typing import NamedTuple

import numpy as np
from astropy import units as u
from astropy_healpix import HEALPix
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from catalogs.products.coverage import FINEST, ROW_ORDER
from mmae.scores.page.facts import Facts

LEAST = 30
"""Objects of a cell, in the mean: the order is the finest that has them."""
MOST_CELLS = 20_000
ACROSS = 3
"""Maps beside each other."""


def order_of(cells29: np.ndarray) -> int:
    """The finest order at which occupied cells hold LEAST objects in the mean, and are not too many."""
    for order in range(FINEST, 0, -1):
        occupied = len(np.unique(cells29 >> 2 * (ROW_ORDER - order)))
        if occupied * LEAST <= len(cells29) and occupied <= MOST_CELLS:
            return order
    return 0


class Depths(NamedTuple):
    """Of k images in one band."""

    band: str
    cells: np.ndarray
    """(k,) HEALPix cells of ROW_ORDER, negative where there is no position"""
    depth: np.ndarray
    """(k,) AB mag"""


def maps(facts: Facts, depths: Depths | None = None) -> Figure | None:
    """Maps of all objects of the sample with a position; None where there is none."""
    rows = facts.sample[facts.sample["HEALPIX29"] >= 0]
    if not len(rows):
        return None
    order = order_of(rows["HEALPIX29"])
    cells, place, number = np.unique(
        rows["HEALPIX29"] >> 2 * (ROW_ORDER - order), return_inverse=True, return_counts=True
    )
    grid = HEALPix(2**order, "nested")
    area = grid.pixel_area.to_value(u.arcmin**2)
    width = (rows["PHOTOZ_ERR68_MAX"] - rows["PHOTOZ_ERR68_MIN"]) / 2 / (1 + rows["PHOTOZ_BEST"])
    lost = facts.reject_cells >> 2 * (FINEST - order)
    rejected = np.bincount(np.searchsorted(cells, lost[np.isin(lost, cells)]), minlength=len(cells))
    values = {
        "objects per arcmin²": number * facts.every / area,
        "median PHOTOZ_BEST": _medians(rows["PHOTOZ_BEST"], place, len(cells)),
        "median half width of p(z), over 1 + z": _medians(width, place, len(cells)),
        "share of flagged objects": np.bincount(place, rows["PHOTOZ_FLAGS"] != 0, len(cells)) / number,
        "median OOD_SCORE": _medians(rows["OOD_SCORE"], place, len(cells)),
        "share of rejected objects": rejected / (rejected + number * facts.every),
    }
    if depths is not None:
        values[f"median depth in {depths.band}, mag"] = depth_of(cells, order, depths)
    corners = np.stack([angle.to_value(u.deg) for angle in grid.boundaries_lonlat(cells, 1)], 2)
    return _drawn(corners, values)


def depth_of(cells: np.ndarray, order: int, depths: Depths) -> np.ndarray:
    """Median depths of cells (c,) of an order, ascending; NaN where no image was measured."""
    of_images = depths.cells >> 2 * (ROW_ORDER - order)
    measured = np.isin(of_images, cells) & np.isfinite(depths.depth)
    place = np.searchsorted(cells, of_images[measured])
    return _medians(depths.depth[measured], place, len(cells))


def _medians(values: np.ndarray, place: np.ndarray, cells: int) -> np.ndarray:
    order = np.argsort(place, kind="stable")
    groups = np.split(values[order], np.cumsum(np.bincount(place, minlength=cells))[:-1])
    return np.array([np.median(group) if len(group) else np.nan for group in groups])


def _drawn(corners: np.ndarray, values: dict[str, np.ndarray]) -> Figure:
    """Maps of cells with corners (n, 4, 2), degrees; right ascension grows to the left."""
    ra = corners[..., 0]
    middle, first = _middle(ra), ra[:, :1]
    of_cell = (first - middle + 180) % 360 - 180 + middle
    # the other corners about the first: a cell on the edge of a map of all the sky is not drawn across it
    corners = np.stack([of_cell + (ra - first + 180) % 360 - 180, corners[..., 1]], 2)
    low, high = corners.reshape(-1, 2).min(0), corners.reshape(-1, 2).max(0)
    down = -(-len(values) // ACROSS)
    plot = Figure(figsize=(9.6, 3 * down), layout="constrained")
    every = plot.subplots(down, ACROSS).flatten()
    for axes in every[len(values) :]:
        axes.remove()
    for axes, (name, value) in zip(every, values.items(), strict=False):
        shown = np.ma.masked_invalid(value)
        cells = PolyCollection(list(corners), array=shown, cmap="viridis", edgecolors="face", linewidths=0.2)
        axes.add_collection(cells)
        axes.set(xlim=(high[0], low[0]), ylim=(low[1], high[1]))
        axes.set_aspect(1 / max(0.1, np.cos(np.radians((low[1] + high[1]) / 2))), adjustable="box")
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_formatter(lambda ra, _: f"{ra % 360:g}")
        if name.startswith("share"):
            cells.set_clim(0, max(0.01, float(shown.max())))
        scale = plot.colorbar(cells, ax=axes, location="bottom", shrink=0.8, ticks=MaxNLocator(5))
        scale.ax.tick_params(labelsize=7)
    plot.supxlabel("right ascension, degrees", fontsize=8)
    plot.supylabel("declination, degrees", fontsize=8)
    return plot


def _middle(ra: np.ndarray) -> float:
    """Mean direction of right ascensions, degrees, also where they go over 360."""
    angle = np.radians(ra)
    return float(np.degrees(np.arctan2(np.sin(angle).mean(), np.cos(angle).mean())) % 360)
