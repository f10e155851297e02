"""Two catalogues of the same objects: which are in one alone, whose redshift moved, and why."""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from astropy.table import Table

from catalogs.products.schema import FLAG_MEANINGS, Flag
from mmae.scores import metrics

ID, BEST, POINT, MODE2 = "OBJECT_ID", "PHOTOZ_BEST", "PHOTOZ_POINT", "PHOTOZ_MODE2"
COLUMNS = (ID, BEST, POINT, MODE2, "PHOTOZ_ERR68_MIN", "PHOTOZ_ERR68_MAX", "BANDMASK", "PHOTOZ_FLAGS")
OF_RESULT = Flag.Z_LIMIT | Flag.BROAD | Flag.TWO_PEAKS | Flag.ATYPICAL | Flag.LIKELY_STAR
"""Flags that say something of the redshift itself; the others are of the image."""
SAME_PEAK = 0.02
"""Redshifts are of one peak of p(z) where they differ by no more than this times 1 + z."""
BINS = 5
"""Ranges of redshift with as many objects each."""


class Shared(NamedTuple):
    """The objects of both catalogues, m of them, by increasing id."""

    first: np.ndarray
    """(m,) rows with COLUMNS"""
    second: np.ndarray
    dz: np.ndarray
    """(m,) (z_second - z_first) / (1 + z_first)"""
    bits: tuple[np.ndarray, np.ndarray]
    """(m,) bands used, as bits of a common list of bands"""


class Cause(NamedTuple):
    """Why a redshift moved: the first of these that holds."""

    name: str
    rows: np.ndarray
    """(m,) bool"""


def redshift(rows: np.ndarray) -> np.ndarray:
    """PHOTOZ_BEST; PHOTOZ_POINT of a model without p(z)."""
    return np.where(np.isfinite(rows[BEST]), rows[BEST], rows[POINT]).astype(np.float64)


def shared(
    first: np.ndarray, second: np.ndarray, bands: tuple[list[str], list[str]]
) -> tuple[Shared, np.ndarray, np.ndarray]:
    """The objects of both, and the ids (k,) of the first alone, and of the second alone.

    bands : names of the bits of BANDMASK of either
    """
    _, a, b = np.intersect1d(first[ID], second[ID], return_indices=True)
    z_first, z_second = redshift(first[a]), redshift(second[b])
    names = sorted({*bands[0], *bands[1]})
    bits = (_bits(first[a], bands[0], names), _bits(second[b], bands[1], names))
    both = Shared(first[a], second[b], (z_second - z_first) / (1 + z_first), bits)
    return both, np.setdiff1d(first[ID], second[ID]), np.setdiff1d(second[ID], first[ID])


def _bits(rows: np.ndarray, bands: list[str], names: list[str]) -> np.ndarray:
    """BANDMASK of rows, whose bits are `bands`, with the bits of `names` instead."""
    mask, bits = rows["BANDMASK"].astype(np.int64), np.zeros(len(rows), np.int64)
    for k, band in enumerate(bands):
        bits |= (mask >> k & 1) << names.index(band)
    return bits


def moved(both: Shared) -> np.ndarray:
    """Which of the objects (m,) moved: to beyond |dz| = 0.15, where a redshift is an outlier."""
    return np.abs(both.dz) > metrics.OUTLIER


def causes(both: Shared) -> list[Cause]:
    """What may have moved redshifts, each object under the first that holds."""
    flags = [rows["PHOTOZ_FLAGS"].astype(np.int64) & ~OF_RESULT.value for rows in (both.first, both.second)]
    peaks = _near(both.second, both.first[MODE2]) | _near(both.first, both.second[MODE2])
    wide = (both.first["PHOTOZ_FLAGS"].astype(np.int64) & Flag.BROAD.value) > 0
    found, left = [], moved(both)
    for name, rows in (
        ("other bands were used", both.bits[0] != both.bits[1]),
        ("other flags of the image", flags[0] != flags[1]),
        ("the other of two peaks of p(z)", peaks),
        ("p(z) was wide", wide),
        ("model, calibration or pixels", np.ones_like(left)),
    ):
        found.append(Cause(name, left & rows))
        left = left & ~rows
    return found


def _near(rows: np.ndarray, peak: np.ndarray) -> np.ndarray:
    z = redshift(rows)
    return np.abs(z - peak) <= SAME_PEAK * (1 + z)  # NaN: no second peak


def differences(both: Shared, magnitudes: tuple[str, np.ndarray] | None = None) -> Table:
    """How far redshifts moved: of all objects, and of ranges of the first's redshift with as many each.

    magnitudes: a band and the objects' magnitudes in it (m,), NaN where not known, for ranges of these, too.
    """
    finite = np.isfinite(both.dz)
    ranges = {"all": finite, **_ranges("z", redshift(both.first), finite)}
    if magnitudes is not None:
        ranges |= _ranges(*magnitudes, finite)
    return Table(
        rows=[_row(name, both.dz[inside]) for name, inside in ranges.items() if inside.any()],
        names=["range", "objects", "median dz", "sigma_NMAD", "|dz|, 95 %", "|dz|>0.15"],
    )


def _ranges(name: str, values: np.ndarray, finite: np.ndarray) -> dict[str, np.ndarray]:
    """BINS ranges of values (m,) with as many objects each, of those (m,) bool; NaN are in none."""
    finite = finite & np.isfinite(values)
    if not finite.any():
        return {}
    edges = np.unique(np.quantile(values[finite], np.linspace(0, 1, BINS + 1)))
    told_apart = (digits for digits in range(2, 17) if len(np.unique(edges.round(digits))) == len(edges))
    digits = next(told_apart, 17)  # of a cluster of galaxies, two are not enough
    return {
        f"{low:.{digits}f} <= {name} < {high:.{digits}f}": finite
        & (values >= low)
        & ((values < high) | (high == edges[-1]))
        for low, high in pairwise(edges.tolist())
    }


def _row(name: str, dz: np.ndarray) -> tuple[str, int, float, float, float, float]:
    middle = np.median(dz)
    spread = 1.4826 * np.median(np.abs(dz - middle))
    far = np.quantile(np.abs(dz), 0.95)
    return (
        name,
        len(dz),
        float(middle),
        float(spread),
        float(far),
        float(np.mean(np.abs(dz) > metrics.OUTLIER)),
    )


def changed_flags(both: Shared) -> Table:
    """Objects that gained or lost each flag, of those in both catalogues."""
    before, after = (rows["PHOTOZ_FLAGS"].astype(np.int64) for rows in (both.first, both.second))
    rows = []
    for flag in Flag:
        had, has = (before & flag.value) > 0, (after & flag.value) > 0
        if (had != has).any():
            gained, lost = int((has & ~had).sum()), int((had & ~has).sum())
            rows.append((flag.name, gained, lost, FLAG_MEANINGS[flag]))
    names = ["flag", "gained", "lost", "meaning"]
    return Table(rows=rows, names=names) if rows else Table(names=names, dtype=["U1", int, int, "U1"])


def movers(both: Shared) -> Table:
    """Every object that moved, the farthest first, with its redshifts and why."""
    why = np.full(len(both.dz), "", "U40")
    for cause in causes(both):
        why[cause.rows] = cause.name
    rows = np.flatnonzero(moved(both))
    rows = rows[np.argsort(-np.abs(both.dz[rows]), kind="stable")]
    return Table(
        {
            ID: both.first[ID][rows],
            "Z_FIRST": redshift(both.first[rows]),
            "Z_SECOND": redshift(both.second[rows]),
            "DZ": both.dz[rows],
            "FLAGS_FIRST": both.first["PHOTOZ_FLAGS"][rows],
            "FLAGS_SECOND": both.second["PHOTOZ_FLAGS"][rows],
            "WHY": why[rows],
        }
    )
