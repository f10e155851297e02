"""Tomographic bins: the mean redshift of the galaxies in a bin of z_phot, true, by z_phot and by p(z).

Weak lensing needs the distribution of redshifts of each bin, first of all its mean. Stacked, the p(z) of the
galaxies of a bin are an estimate of it (biased where p(z) are, Malz & Hogg 2022); so are their z_phot.
Errors are those of counts, by bootstrap: the variance of large-scale structure between fields is not in them.
"""

import itertools
from typing import NamedTuple

import numpy as np

from catalogs.products.quantiles import LEVELS, MIN_WIDTH, polyline
from mmae.scores.catalogue.requirements import verdict
from mmae.scores.metrics import spread

MASS = np.diff(LEVELS)
"""(21,) Probability of each segment of a p(z)."""


class Bin(NamedTuple):
    """Galaxies of a range of z_phot."""

    range: str
    n: int
    z_spec: float
    """Mean of the true redshifts."""
    z_spec_error: float
    z_spec_width: float
    """Standard deviation of the true redshifts."""
    by_point: float
    """Mean z_phot less the mean z_spec, over 1 + the latter."""
    by_point_error: float
    by_point_low: float
    by_point_high: float
    by_pdf: float
    """The same of the mean of the stacked p(z); NaN where there are none."""
    by_pdf_error: float
    by_pdf_low: float
    by_pdf_high: float
    pdf_width: float
    """Standard deviation of the stacked p(z)."""
    verdicts: dict[str, str]
    """Whether the error of the mean by p(z), or else by z_phot, is within the limit, by document."""


def moments(quantiles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means of z and of z^2 of each p(z), (N, 20) -> (N,), (N,), exact for the polyline.

    Where the density is constant from a to b, those are (a + b) / 2 and (a^2 + a b + b^2) / 3.
    """
    line = polyline(quantiles)
    a, b = line[:-1], line[1:]
    return MASS @ ((a + b) / 2), MASS @ ((a * a + a * b + b * b) / 3)


def stacked(quantiles: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Mean density of p(z) (N, 20) in bins of z between edges (k + 1,): (k,).

    The sum of all CDFs is a polyline, whose slope changes at the ends of all segments.
    """
    line = polyline(quantiles)
    slope = MASS[:, None] / np.maximum(np.diff(line, axis=0), MIN_WIDTH)  # (21, N)
    at = np.concatenate([line[:-1], line[:-1] + MASS[:, None] / slope]).ravel()
    change = np.concatenate([slope, -slope]).ravel()
    order = np.argsort(at)
    sums = np.cumsum(change[order]), np.cumsum(change[order] * at[order])
    last = np.searchsorted(at[order], edges, side="right") - 1
    cdf = np.where(last >= 0, sums[0][last] * edges - sums[1][last], 0) / len(quantiles)
    return np.diff(cdf) / np.diff(edges)


def measure(
    z_phot: np.ndarray,
    z_spec: np.ndarray,
    quantiles: np.ndarray | None,
    edges: tuple[float, ...],
    limits: dict[str, float],
    draws: int,
    rng: np.random.Generator,
) -> list[Bin]:
    """Measure each bin, low <= z_phot < high; (N,), (N,), (N, 20) or None: finite, but z_phot may be NaN."""
    columns = [z_spec, z_spec**2, z_phot, *(moments(quantiles) if quantiles is not None else ())]
    values = np.stack(columns)
    bins = []
    for low, high in itertools.pairwise(edges):
        inside = np.flatnonzero((low <= z_phot) & (z_phot < high))
        bins.append(_bin(_label(low, high), values[:, inside], limits, draws, rng))
    return bins


def _bin(
    label: str, values: np.ndarray, limits: dict[str, float], draws: int, rng: np.random.Generator
) -> Bin:
    """values (3, n) or (5, n): z_spec, its square, z_phot and the moments of p(z)."""
    n = values.shape[1]
    means = _means(values, np.ones(n))
    samples = np.empty((draws if n > 1 else 0, len(NUMBERS)))
    for sample in samples:
        sample[:] = _means(values, np.bincount(rng.integers(n, size=n), minlength=n))
    error, low, high = spread(samples)
    number = dict(zip(NUMBERS, zip(means, error, low, high, strict=True), strict=True))
    judged = number["by_pdf" if len(values) > 3 else "by_point"]
    return Bin(
        label,
        n,
        *number["z_spec"][:2],
        number["z_spec_width"][0],
        *number["by_point"],
        *number["by_pdf"],
        number["pdf_width"][0],
        {document: verdict(*judged[2:], limit) for document, limit in limits.items()},
    )


NUMBERS = ("z_spec", "z_spec_width", "by_point", "by_pdf", "pdf_width")


def _means(values: np.ndarray, counts: np.ndarray) -> list[float]:
    """NUMBERS of the galaxies, each `counts` (n,) times; NaN where there are none, or no p(z)."""
    if not len(counts):
        return [np.nan] * len(NUMBERS)
    z, square, z_phot, *pdf = (values @ counts / counts.sum()).tolist()
    by_pdf, width = ((pdf[0] - z) / (1 + z), _width(*pdf)) if pdf else (np.nan, np.nan)
    return [z, _width(z, square), (z_phot - z) / (1 + z), by_pdf, width]


def _width(mean: float, square: float) -> float:
    return max(square - mean**2, 0) ** 0.5


def _label(low: float, high: float) -> str:
    if not np.isfinite(low):
        return f"z_phot < {high:g}"
    return f"{low:g} <= z_phot < {high:g}" if np.isfinite(high) else f"z_phot >= {low:g}"
