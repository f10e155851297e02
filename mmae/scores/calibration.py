"""Calibration of p(z), measured with spectroscopic redshifts (Schmidt et al. 2020, MNRAS 499, 1587).

A catalogue keeps the quantiles of a p(z). Its CDF F is taken to be the polyline through them, with ends that
are a guess (catalogs/products/quantiles.py). A Gaussian p(z) has longer ones: even an exact one gets 2.6 % of
PIT outliers and a KS of 0.013 from the polyline, as much as chance among 11,000 objects.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from catalogs.products.quantiles import LEVELS, MIN_WIDTH, polyline
from mmae.scores import metrics

PIT_OUTLIER = 1e-4
"""Distance of an outlier's PIT from 0 or 1, below this (Schmidt et al. 2020)."""


def _segment(line: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Index of the segment that contains z, (N,): -1 below the line, 21 from its end on."""
    return (line <= z).sum(0) - 1


def pit(quantiles: np.ndarray, z_spec: np.ndarray) -> np.ndarray:
    """Probability integral transform F(z_spec): (N, 20), (N,) -> (N,); uniform if all p(z) are right."""
    line = polyline(quantiles)
    k = _segment(line, z_spec)
    inside = (k >= 0) & (k < len(line) - 1)
    result = (k >= 0).astype(np.float64)
    rows, k = np.flatnonzero(inside), k[inside]
    low, high = line[k, rows], line[k + 1, rows]  # low <= z_spec < high
    result[rows] = LEVELS[k] + (LEVELS[k + 1] - LEVELS[k]) * (z_spec[rows] - low) / (high - low)
    return result


def crps(quantiles: np.ndarray, z_spec: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score, integral (F(z) - [z >= z_spec])^2 dz: (N, 20), (N,) -> (N,).

    In units of z, 0 is best; for a delta function at z it is |z - z_spec|. Exact for the polyline: where F
    goes from p to r over a width w, the integral of F^2 is w (p^2 + p r + r^2) / 3.
    """
    line, level = polyline(quantiles), pit(quantiles, z_spec)
    total = np.maximum(line[0] - z_spec, 0) + np.maximum(z_spec - line[-1], 0)
    for (low, p), (high, r) in itertools.pairwise(zip(line, LEVELS, strict=True)):
        z, f = np.clip(z_spec, low, high), np.clip(level, p, r)  # z_spec splits the segment it lies in
        total += (z - low) * (p * p + p * f + f * f) / 3
        total += (high - z) * ((1 - f) ** 2 + (1 - f) * (1 - r) + (1 - r) ** 2) / 3
    return total


def cde_loss(quantiles: np.ndarray, z_spec: np.ndarray) -> np.ndarray:
    """Integral p(z)^2 dz - 2 p(z_spec): (N, 20), (N,) -> (N,), in units of 1/z; the lower the better.

    Its mean is, up to a constant, the squared error of the densities (Izbicki & Lee 2017). p is 0 beyond the
    line; equal quantiles make a segment of width MIN_WIDTH.
    """
    line, mass = polyline(quantiles), np.diff(LEVELS)
    density = mass[:, None] / np.maximum(np.diff(line, axis=0), MIN_WIDTH)  # (21, N)
    k = _segment(line, z_spec)
    inside = (k >= 0) & (k < len(mass))
    at_z_spec = np.where(inside, density[np.clip(k, 0, len(mass) - 1), np.arange(len(k))], 0)
    return mass @ density - 2 * at_z_spec


def within(low: np.ndarray, high: np.ndarray, z_spec: np.ndarray) -> np.ndarray:
    """Whether an interval contains z_spec, its ends included: (N,) each -> (N,) bool."""
    return (low <= z_spec) & (z_spec <= high)


# ---------------------------------------------------------------- uniformity of the PIT


def pit_tests(u: np.ndarray, logs: np.ndarray, counts: np.ndarray) -> tuple[float, float, float]:
    """Kolmogorov-Smirnov, Cramer-von-Mises and Anderson-Darling statistics of PITs against uniform ones.

    With F_n the fraction of the n PITs up to u, these are the largest |F_n - u|, n integral (F_n - u)^2 du,
    and n integral (F_n - u)^2 / (u (1 - u)) du, which gives weight to the ends. Uniform PITs exceed
    1.36 / sqrt(n), 0.46 and 2.49 in 1 of 20 samples.

    Parameters
    ----------
    u, logs : (N,), (2, N)
        Sorted PITs, and their `logarithms`.
    counts : (N,)
        Number of counts each is in the sample, 0 included, float64; n is their sum.
    """
    n = counts.sum()
    half = counts / (2 * n)
    middle = counts.cumsum()  # of the step that F_n makes at u
    middle /= n  # in place: allocating a million numbers takes longer than computing them
    middle -= half
    weight = counts * middle
    # einsum: the threads of a BLAS dot take ten times as long where the cores are shared
    cvm = n / 3 - 2 * np.einsum("n,n", u, weight) + np.einsum("n,n,n", u, u, counts)
    ad = -n - 2 * (np.einsum("n,n", logs[0] - logs[1], weight) + np.einsum("n,n", logs[1], counts))
    distance = np.abs(np.subtract(u, middle, out=middle), out=middle)
    distance += half
    return float(distance.max()), float(cvm), float(ad)


def logarithms(u: np.ndarray) -> np.ndarray:
    """ln u and ln (1 - u), (N,) -> (2, N); u is clipped to PIT_OUTLIER from 0 and 1.

    Otherwise a single PIT of 0 or 1 would make the Anderson-Darling statistic infinite.
    """
    u = np.clip(u, PIT_OUTLIER, 1 - PIT_OUTLIER)
    return np.log([u, 1 - u])


def is_pit_outlier(pit: np.ndarray) -> np.ndarray:
    """Whether a PIT is below 1e-4 or above 1 - 1e-4 (Schmidt et al. 2020), (N,) bool.

    That far out the CDF is extrapolated: these are redshifts beyond the end segments, to which a p(z) with
    longer tails may give some probability. Use it to compare models, not to compare with 0.0002.
    """
    return (pit < PIT_OUTLIER) | (pit > 1 - PIT_OUTLIER)


# ---------------------------------------------------------------- the calibration table


class Scores(NamedTuple):
    """Scores of each object, (N,) each."""

    pit: np.ndarray
    within_68: np.ndarray
    within_95: np.ndarray
    crps: np.ndarray
    cde_loss: np.ndarray
    half_width: np.ndarray
    """Half the 68 % interval, over 1 + z_spec: the error given by the catalogue, to compare to sigma_NMAD."""

    def rows(self, rows: np.ndarray) -> "Scores":
        return Scores(*(score[rows] for score in self))


def scores(
    quantiles: np.ndarray, interval_68: np.ndarray, interval_95: np.ndarray, z_spec: np.ndarray
) -> Scores:
    """Score each p(z): (N, 20), (2, N) lower and upper ends, (2, N), (N,); all finite, z_spec above -1."""
    (low, high), (low_95, high_95) = interval_68, interval_95
    return Scores(
        pit(quantiles, z_spec),
        within(low, high, z_spec),
        within(low_95, high_95, z_spec),
        crps(quantiles, z_spec),
        cde_loss(quantiles, z_spec),
        (high - low) / 2 / (1 + z_spec),
    )


METRICS = (
    *("coverage 68", "coverage 95", "CRPS", "CDE loss", "half width", "PIT outliers"),  # means
    *("PIT KS", "PIT CvM", "PIT AD"),
)
"""The columns of a calibration table."""

FRACTIONS = frozenset({"coverage 68", "coverage 95", "PIT outliers"})
"""The metrics that are fractions of objects."""


class Sample:
    """Scores of N objects, sorted once so that METRICS of many bootstrap samples are fast."""

    def __init__(self, scores: Scores):
        scores = scores.rows(np.argsort(scores.pit))
        self.pit, self.logs = scores.pit, logarithms(scores.pit)
        self.means = np.stack([*scores[1:], is_pit_outlier(scores.pit)])  # (6, N) float64

    def measure(self, counts: np.ndarray) -> np.ndarray:
        """METRICS of a sample that contains each object `counts` (N,) times, float64; not all 0."""
        return np.array([*(self.means @ counts / counts.sum()), *pit_tests(self.pit, self.logs, counts)])

    def value(self) -> dict[str, float]:
        """METRICS of the objects, each once; NaN when there are none."""
        n = len(self.pit)
        measured = self.measure(np.ones(n)) if n else np.full(len(METRICS), math.nan)
        return dict(zip(METRICS, measured.tolist(), strict=True))

    def spread(self, draws: int, rng: np.random.Generator) -> metrics.Spread:
        """Errors of `value`, as in `metrics.bootstrap`; no object is scored again."""
        n = len(self.pit)
        samples = np.empty((draws if n > 1 else 0, len(METRICS)))
        for sample in samples:
            sample[:] = self.measure(np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float64))
        return metrics.named_spread(METRICS, samples, FRACTIONS, n)


class Row(NamedTuple):
    """The calibration of the objects in one range of redshift or of another column."""

    range: str
    """Label of the range, as in `metrics.Row`."""
    n: int
    """Objects with a p(z)."""
    value: dict[str, float]
    error: dict[str, float]
    """Bootstrap standard errors of `value`."""
    low: dict[str, float]
    high: dict[str, float]
    """Ends of the 95 % intervals."""


def table(
    scores: Scores,
    z_phot: np.ndarray,
    z_spec: np.ndarray,
    by: Mapping[str, np.ndarray],
    edges: Sequence[float],
    draws: int,
    rng: np.random.Generator,
    track: metrics.Track = iter,
) -> list[Row]:
    """Calibration in the ranges of `metrics.all_ranges`.

    Parameters
    ----------
    scores : of N objects
    z_phot, z_spec : (N,)
        Objects without a finite z_phot are in no bin of z_phot.
    by, edges, draws, rng, track
        As in `metrics.table`.

    Returns
    -------
    list of Row
        1 + 2 (k + 1) rows for k edges, and up to 4 a column. An empty range has n = 0 and NaN.
    """

    def row(name: str, inside: np.ndarray) -> Row:
        sample = Sample(scores.rows(inside))
        return Row(name, int(inside.sum()), sample.value(), *sample.spread(draws, rng))

    return [row(name, inside) for name, inside in track(metrics.all_ranges(z_phot, z_spec, edges, by))]
