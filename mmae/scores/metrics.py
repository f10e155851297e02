"""Point metrics of photo-z against spectroscopic redshifts, with bootstrap errors, in redshift bins.

Every metric is a dimensionless number computed from dz = (z_phot - z_spec) / (1 + z_spec). The set is that
of the HSC photo-z papers (Tanaka et al. 2018, PASJ 70, S9) plus that of LSST DESC (Schmidt et al. 2020,
MNRAS 499, 1587), so that a row can be compared to published ones.
"""

import itertools
import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from astropy.stats import biweight_location

EDGES = (0.4, 1.0, 2.0)
"""Edges of the redshift bins; the paper's comparison is below the first (section 5.2)."""

OUTLIER = 0.15
"""|dz| beyond which a photo-z is an outlier, and the width of the HSC loss."""


def dz(z_phot: np.ndarray, z_spec: np.ndarray) -> np.ndarray:
    """Redshift error in units of 1 + z: dz = (z_phot - z_spec) / (1 + z_spec); (N,), (N,) -> (N,) float64.

    Raises ValueError when the lengths differ, when a redshift is not finite or when a z_spec is not above -1.
    """
    z_phot, z_spec = np.asarray(z_phot, np.float64), np.asarray(z_spec, np.float64)
    if z_phot.shape != z_spec.shape:
        raise ValueError(f"z_phot has shape {z_phot.shape}, z_spec {z_spec.shape}")
    if not (np.isfinite(z_phot).all() and np.isfinite(z_spec).all()):
        raise ValueError("a redshift is not finite; count such objects apart, as table does")
    if (z_spec <= -1).any():
        raise ValueError(f"z_spec = {z_spec.min():g} is not a redshift: 1 + z must be above 0")
    return (z_phot - z_spec) / (1 + z_spec)


def bias(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """Median dz, dimensionless (Tanaka et al. 2018, conventional bias)."""
    return float(np.median(dz(z_phot, z_spec)))


def biweight(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """Biweight location of dz with c = 6, dimensionless (Beers, Flynn & Gebhardt 1990, AJ 100, 32).

    With M = median dz and u = (dz - M) / (6 median|dz - M|):
    M + sum (dz - M)(1 - u^2)^2 / sum (1 - u^2)^2, both sums over |u| < 1.
    """
    return float(biweight_location(dz(z_phot, z_spec)))


def sigma_nmad(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """1.4826 median|dz - median dz|, dimensionless; sigma for a Gaussian (Tanaka et al. 2018)."""
    error = dz(z_phot, z_spec)
    return float(1.4826 * np.median(np.abs(error - np.median(error))))


def sigma_iqr(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """(q75 - q25) / 1.349 of dz, dimensionless; sigma for a Gaussian (Schmidt et al. 2020).

    Quantiles are interpolated linearly between the sorted dz.
    """
    q25, q75 = np.quantile(dz(z_phot, z_spec), (0.25, 0.75))
    return float((q75 - q25) / 1.349)


def outliers(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """Fraction of objects with |dz| > 0.15, dimensionless (Tanaka et al. 2018)."""
    return float(np.mean(np.abs(dz(z_phot, z_spec)) > OUTLIER))


def outliers_3sigma(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """Fraction of objects with |dz| > max(0.06, 3 sigma_IQR), dimensionless (Schmidt et al. 2020)."""
    limit = max(0.06, 3 * sigma_iqr(z_phot, z_spec))
    return float(np.mean(np.abs(dz(z_phot, z_spec)) > limit))


def hsc_loss(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """Mean of 1 - 1 / (1 + (dz / 0.15)^2), dimensionless, 0 (best) to 1 (Tanaka et al. 2018)."""
    return float(np.mean(1 - 1 / (1 + (dz(z_phot, z_spec) / OUTLIER) ** 2)))


def rms(z_phot: np.ndarray, z_spec: np.ndarray) -> float:
    """sqrt(mean dz^2), dimensionless; includes bias and outliers."""
    return float(np.sqrt(np.mean(dz(z_phot, z_spec) ** 2)))


POINT_METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "bias": bias,
    "biweight": biweight,
    "sigma_NMAD": sigma_nmad,
    "sigma_IQR": sigma_iqr,
    "|dz|>0.15": outliers,
    "|dz|>max(0.06,3s)": outliers_3sigma,
    "HSC loss": hsc_loss,
    "RMS": rms,
}
"""The columns of a metrics table, in order."""

FRACTIONS = frozenset({"|dz|>0.15", "|dz|>max(0.06,3s)"})
"""The metrics that are fractions of objects; shown in percent."""


def point_metrics(z_phot: np.ndarray, z_spec: np.ndarray) -> dict[str, float]:
    """All of POINT_METRICS, in order; (N,), (N,) -> dimensionless numbers, NaN when N = 0.

    Raises ValueError where `dz` does.
    """
    if len(z_phot) == 0:
        return dict.fromkeys(POINT_METRICS, math.nan)
    return {name: metric(z_phot, z_spec) for name, metric in POINT_METRICS.items()}


Track = Callable[[Sequence[Any]], Iterable[Any]]


class Spread(NamedTuple):
    """How uncertain metrics are, each by its name; NaN where that has no meaning."""

    error: dict[str, float]
    """Standard errors."""
    low: dict[str, float]
    high: dict[str, float]
    """Ends of the 95 % interval."""


def spread(samples: np.ndarray) -> tuple[list[float], list[float], list[float]]:
    """Standard deviations of bootstrap samples (draws, k), and their 2.5 and 97.5 % quantiles: k each.

    NaN with fewer than two samples.
    """
    if len(samples) < 2:
        nothing = [math.nan] * samples.shape[1]
        return nothing, nothing, nothing
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    return samples.std(axis=0, ddof=1).tolist(), low.tolist(), high.tolist()


def named_spread(names: Sequence[str], samples: np.ndarray, fractions: Collection[str], n: int) -> Spread:
    """The spread of metrics of n objects, by name.

    A bootstrap of five objects without an outlier draws none either, and would be sure of 0. So the interval
    of a fraction goes at least to what n objects exclude if none of them is one, or all are (Clopper &
    Pearson 1934).
    """
    found = Spread(*(dict(zip(names, numbers, strict=True)) for numbers in spread(samples)))
    excluded = 0.025 ** (1 / max(n, 1))
    for name in fractions:
        found.low[name] = min(found.low[name], excluded)
        found.high[name] = max(found.high[name], 1 - excluded)
    return found


def bootstrap(z_phot: np.ndarray, z_spec: np.ndarray, draws: int, rng: np.random.Generator) -> Spread:
    """Errors of `point_metrics`: the scatter between samples drawn with replacement (Efron 1979).

    Parameters
    ----------
    z_phot, z_spec : (N,)
        Finite redshifts. Memory is that of one sample, whatever `draws` is.
    draws : int
        Number of samples; the relative error of a standard error is about 1 / sqrt(2 draws).
    rng : numpy.random.Generator
        The same state gives the same errors.

    Returns
    -------
    Spread
        Dimensionless, named as in POINT_METRICS; NaN where a scatter has no meaning (N < 2 or draws < 2).
    """
    n = len(z_phot)
    samples = np.empty((draws if n > 1 else 0, len(POINT_METRICS)))
    for sample in samples:
        chosen = rng.integers(n, size=n)
        sample[:] = list(point_metrics(z_phot[chosen], z_spec[chosen]).values())
    return named_spread(tuple(POINT_METRICS), samples, FRACTIONS, n)


def ranges(name: str, values: np.ndarray, edges: Sequence[float]) -> list[tuple[str, np.ndarray]]:
    """Labels of the bins between `edges`, and masks, (N,) bool, of the (N,) values in each.

    k edges make k + 1 bins, each low <= value < high; the first and the last are open. Values that are not
    finite are in none.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    inner = [
        (f"{low:g} <= {name} < {high:g}", (low <= values) & (values < high))
        for low, high in itertools.pairwise(edges)
    ]
    first = (f"{name} < {edges[0]:g}", values < edges[0])
    return [first, *inner, (f"{name} >= {edges[-1]:g}", values >= edges[-1])]


def quarters(name: str, values: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Labels and masks of the quarters of (N,) values, as in `ranges`; none where no value is finite.

    The edges are the quartiles, rounded to four digits: magnitudes to 0.01.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return []
    quartiles = np.quantile(known, (0.25, 0.5, 0.75))
    largest = np.abs(quartiles).max()
    digits = 3 - math.floor(math.log10(largest)) if largest else 0
    return ranges(name, values, np.unique(quartiles.round(digits)).tolist())


class Row(NamedTuple):
    """The metrics of the objects in one range of redshift or of another column."""

    range: str
    """Label of the range: `all`, `z_spec < 0.4`, `0.4 <= z_spec < 1`, ..."""
    n: int
    """Objects with a finite z_phot."""
    n_without_z_phot: int
    """Objects of the range whose z_phot is not finite; no metric counts them."""
    value: dict[str, float]
    error: dict[str, float]
    """Bootstrap standard errors of `value`."""
    low: dict[str, float]
    high: dict[str, float]
    """Ends of the 95 % intervals."""


def table(
    z_phot: np.ndarray,
    z_spec: np.ndarray,
    edges: Sequence[float],
    draws: int,
    rng: np.random.Generator,
    by: Mapping[str, np.ndarray] | None = None,
    track: Track = iter,
) -> list[Row]:
    """Metrics of all objects, in bins of z_spec, in bins of z_phot, and in quarters by other columns.

    Parameters
    ----------
    z_phot, z_spec : (N,)
        z_phot may be NaN or infinite where there is no photo-z: such objects are counted in
        `Row.n_without_z_phot` of `all` and of their z_spec bin. z_spec is finite.
    edges : increasing redshifts
        Edges of the k + 1 bins of `ranges`.
    draws, rng
        As in `bootstrap`.
    by : name -> (N,)
        Other columns, not finite where unknown.
    track
        Shows how far it is, as the `track` of a progress bar does.

    Returns
    -------
    list of Row
        1 + 2 (k + 1) rows, and up to 4 a column. An empty range has n = 0 and NaN metrics.
    """
    measured = np.isfinite(z_phot)

    def row(name: str, inside: np.ndarray) -> Row:
        use = inside & measured
        value = point_metrics(z_phot[use], z_spec[use])
        errors = bootstrap(z_phot[use], z_spec[use], draws, rng)
        return Row(name, int(use.sum()), int((inside & ~measured).sum()), value, *errors)

    return [row(label, inside) for label, inside in track(all_ranges(z_phot, z_spec, edges, by or {}))]


def all_ranges(
    z_phot: np.ndarray, z_spec: np.ndarray, edges: Sequence[float], by: Mapping[str, np.ndarray]
) -> list[tuple[str, np.ndarray]]:
    """The ranges of a table: all, bins of z_spec, bins of z_phot, quarters of each other column."""
    found = [("all", np.full(len(z_spec), True))]
    found += ranges("z_spec", z_spec, edges)
    found += ranges("z_phot", z_phot, edges)
    return found + [quarter for name, values in by.items() for quarter in quarters(name, values)]
