"""What the quantiles of a catalogue say of p(z): its CDF F is the polyline through them.

The density is constant between two quantiles. At either end F continues with the slope of the adjacent
segment to level 0 or 1, but never below z = 0. The end segments hold 2.5 % each and are a guess: the
quantiles do not contain the true length of the tails.
"""

import itertools
from collections.abc import Callable

import numpy as np

from catalogs.products.schema import QUANTILE_LEVELS

LEVELS = np.array([0, *QUANTILE_LEVELS, 1])
"""(22,) F at the ends of the segments."""
MIN_WIDTH = 1e-6
"""Smallest width of a segment in z: float32 does not resolve closer redshifts."""


def polyline(quantiles: np.ndarray) -> np.ndarray:
    """Return the redshifts at which F is LEVELS: (N, 20) quantiles -> (22, N) float64.

    Raises ValueError where quantiles are not finite, are negative or decrease.
    """
    q = np.asarray(quantiles, np.float64).T
    if len(q) != len(QUANTILE_LEVELS):
        raise ValueError(f"must have {len(QUANTILE_LEVELS)} quantiles, not {len(q)}")
    if not (np.isfinite(q).all() and (q[0] >= 0).all() and (q[1:] >= q[:-1]).all()):
        raise ValueError("must be finite, not negative, and never decrease")
    first = np.maximum(q[0] - (q[1] - q[0]) / 2, 0)
    return np.vstack([first, q, q[-1] + (q[-1] - q[-2]) / 2])


def cumulative(quantiles: np.ndarray, z: np.ndarray) -> np.ndarray:
    """F at redshifts that all objects share: (N, 20), (M,) -> (N, M) float64."""
    line = polyline(quantiles)[:, :, None]  # (22, N, 1)
    total = np.zeros((len(quantiles), len(z)))
    for (low, high), mass in zip(itertools.pairwise(line), np.diff(LEVELS), strict=True):
        total += mass * ((z - low) / np.maximum(high - low, MIN_WIDTH)).clip(0, 1)
    return total


def density_on(quantiles: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Density at the points of a grid of equal steps, as `means`: (N, 20), (M,) -> (N, M) float64."""
    return means(lambda z: cumulative(quantiles, z), grid)


def means(cdf: Callable[[np.ndarray], np.ndarray], grid: np.ndarray) -> np.ndarray:
    """Mean density over a step about each point of a grid (M,) of equal steps, (N, M) float64.

    cdf : of N objects at redshifts, (m,) -> (N, m)

    The density is that of p(z) between the ends of the grid, of integral 1 by the trapezoidal rule; NaN where
    all of p(z) is beyond them.
    """
    edges = np.concatenate([grid[:1], (grid[1:] + grid[:-1]) / 2, grid[-1:]])
    density = np.diff(cdf(edges), axis=1).clip(min=0) / np.diff(edges)  # by rounding it may be -1e-17
    with np.errstate(invalid="ignore"):
        return density / np.trapezoid(density, grid, axis=1)[:, None]
