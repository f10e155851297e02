"""Magnitudes and colours of a catalogue's objects beside those of the galaxies with redshifts behind it."""

from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from catalogs.errors import UsageError
from catalogs.store.cutouts import CutoutStore
from mmae.bundles.bundle import Bundle
from mmae.bundles.likeness.selection import Standing, target_of
from mmae.layers.photometry import central_pixels
from mmae.scores.page.figures import DEEP, WARM

HELD = (0.5, 0.9)
"""Shares of the galaxies with redshifts within the contours."""
FEW = 500
"""Objects up to which each is a point."""
BINS, SHOWN = 40, (0.005, 0.995)
"""Bins of a plane along an axis, and quantiles of the objects between which it is drawn."""


class Planes(NamedTuple):
    """AB magnitudes in one aperture, NaN where the flux is not above its noise."""

    bands: tuple[str, ...]
    objects: np.ndarray
    """(N, bands) of an even sample of the catalogue's objects"""
    behind: np.ndarray
    """(M, bands) of galaxies with redshifts that the model was trained on"""
    standing: str = ""
    """How well these stand for a target sample, if they were made to."""


def planes_of(store: CutoutStore, bundle: Bundle) -> Planes:
    """Measure the objects of a store as a model sees them.

    Raises UsageError for a bundle that keeps no galaxies, InputRefused where its model does not take the
    images.
    """
    known = bundle.galaxies()
    if not len(known):
        raise UsageError(f"{bundle.path} keeps no galaxies with redshifts: export a model of ours again")
    noise = torch.from_numpy(bundle.noise).float()
    seen = target_of(store, bundle.input, noise, bundle.own_light)
    zero_point = bundle.input.zero_point
    objects, behind = (ab_magnitudes(each, bundle.noise, zero_point) for each in (seen, known))
    return Planes(bundle.input.bands, objects, behind, standing_of(bundle.card))


def standing_of(card: dict[str, Any]) -> str:
    """What was done, in training and when p(z) was calibrated anew, to stand for a sample."""
    said = []
    if like := card["training_data"].get("like"):
        said.append(f"In training, {Standing(**like)}.")
    again = card["calibration"].get("recalibrated", {})
    if again:
        said.append(f"p(z) was calibrated on {card['calibration']['galaxies']}.")
    if "like" in again:
        said.append(
            f"They count as {again['effective']:.0f}; {again['target_unlike']:.1%} of the sample they stand "
            "for are unlike any of them."
        )
    return " ".join(said)


def ab_magnitudes(central: np.ndarray, noise: np.ndarray, zero_point: float) -> np.ndarray:
    """AB magnitudes of the aperture CENTRAL, (N, bands), from `Photometry.central`; NaN below the noise."""
    flux = np.sinh(central) * noise * np.sqrt(central_pixels())
    return zero_point - 2.5 * np.log10(np.where(central > np.arcsinh(1), flux, np.nan))


def drawn(planes: Planes) -> Figure:
    """A magnitude and a colour, and two colours: objects in blue, galaxies with redshifts as contours."""
    plot = Figure(figsize=(9, 3.8), layout="constrained")
    bands = planes.bands
    middle, last = len(bands) // 2, len(bands) - 1
    pairs: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((middle,), (0, middle))]
    if last > middle:
        pairs.append(((0, middle), (middle, last)))
    for axes, (x, y) in zip(np.atleast_1d(plot.subplots(1, len(pairs))), pairs, strict=True):
        _plane(axes, *(np.stack([_of(each, along) for along in (x, y)]) for each in planes[1:3]))
        axes.set(xlabel=" - ".join(bands[k] for k in x), ylabel=" - ".join(bands[k] for k in y))
    return plot


def _of(magnitudes: np.ndarray, bands: tuple[int, ...]) -> np.ndarray:
    """A magnitude, or the difference of two, (N,)."""
    return magnitudes[:, bands[0]] - (magnitudes[:, bands[1]] if len(bands) > 1 else 0)


def _plane(axes: Axes, objects: np.ndarray, behind: np.ndarray) -> None:
    objects, behind = (each[:, np.isfinite(each).all(0)] for each in (objects, behind))
    if not objects.shape[1]:
        return
    ends = [np.quantile(each, SHOWN, axis=1) for each in (objects, behind) if each.shape[1]]
    low, high = np.min(ends, 0)[0], np.max(ends, 0)[1]
    span = [(float(a), float(b) + 1e-3) for a, b in zip(low, high, strict=True)]
    if objects.shape[1] > FEW:
        axes.hist2d(objects[0], objects[1], bins=BINS, range=span, cmin=1, cmap="Blues")
    else:
        axes.plot(objects[0], objects[1], ".", color=DEEP, ms=3)
    axes.set(xlim=span[0], ylim=span[1])
    counts, *edges = np.histogram2d(behind[0], behind[1], bins=BINS // 2, range=span)
    ordered = np.sort(counts.ravel())[::-1]
    within = np.cumsum(ordered)
    if counts.any():  # else no galaxy with a redshift has all of these bands
        levels = sorted({float(ordered[np.searchsorted(within, share * within[-1])]) for share in HELD})
        middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
        axes.contour(*middles, counts.T, levels=levels, colors=WARM, linewidths=1.3)
    axes.plot([], [], color=WARM, label="galaxies with redshifts (half, nine tenths)")
    axes.plot([], [], "s", color=DEEP, label="objects")
    axes.legend(frameon=False, fontsize="small")
