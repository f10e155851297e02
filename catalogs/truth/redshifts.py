"""Redshifts of a table of others, with the ids and positions by which their objects are found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy import units

from catalogs.errors import InputRefused
from catalogs.store.format import spectype_codes
from catalogs.truth import names, tables
from catalogs.truth.where import Cut, columns_of

NINES = (9.99, 9.999, 9.9999, 99.0, 99.9, 99.99, 999.0, 999.9, 9999.0)
"""Redshifts of zCOSMOS, HSC and others that mean there is none; so does any that is not above -1."""
HIGHEST = 30.0
"""Above any redshift that is known; velocities are beyond."""
MAGNITUDE = 6.0
"""A median redshift above this, in a column called z, is a magnitude."""


@dataclass(frozen=True)
class TruthTable:
    """A table of redshifts and how to read it; None: what its names suggest."""

    path: Path
    z: str | None = None
    id: str | None = None
    ra: str | None = None
    dec: str | None = None
    where: str | None = None


class Redshifts(NamedTuple):
    """n redshifts of a table, absent ones and those that were cut left out."""

    z: np.ndarray
    """(n,) float64, above -1"""
    ids: dict[str, np.ma.MaskedArray]
    """(n,) int64 by name of the column, the likeliest first; only columns that hold nothing but integers"""
    position: tuple[str, str] | None
    """Names of the columns of the position."""
    ra: np.ndarray
    dec: np.ndarray
    """(n,) float64 degrees, NaN where there are none"""
    columns: dict[str, np.ndarray]
    """(n,) float64, other columns that were asked for"""
    z_column: names.Guess
    rows: int
    """Rows of the table."""
    cut: int
    """Rows that --where left out."""
    absent: dict[str, int]
    """Rows that are left and have no redshift, by how that is written: NaN, -99, 9.99, ..."""
    quality_cut: str
    """A cut that the table has a column for, where none was made; else empty."""


def read(asked: TruthTable, others: Sequence[str] = ()) -> Redshifts:
    """Read a table of redshifts, and of the columns `others` those that it has.

    Raises UsageError where it lacks a column that was asked for by a flag, InputRefused where it has no
    redshifts, or it is not clear which they are.
    """
    with tables.opened(asked.path) as table:
        guess = names.redshift(asked.path, table.names, asked.z)
        z = floats(asked.path, guess.name, table.read(guess.name))
        kept = rows_where(asked.where, table, len(z))
        absent = without_redshift(z[kept])
        known = kept.copy()
        known[kept] = np.isfinite(z[kept]) & ~is_sentinel(z[kept])
        check(asked.path, guess.name, z[known])
        _check_guess(asked.path, guess, z[known])
        return _objects(asked, table, z, kept, known, others, guess)._replace(absent=absent)


def read_classes(asked: TruthTable, others: Sequence[str] = ()) -> Redshifts | None:
    """Codes of SPECTYPES in the place of redshifts, of a table that says STAR, GALAXY or QSO of its objects.

    None where it does not. Arguments and errors as for `read`.
    """
    with tables.opened(asked.path) as table:
        found = (names.find(table.names, wanted) for wanted in names.SPECTYPE)
        name = next(filter(None, found), None)
        if name is None or (column := table.read(name)).dtype.kind != "U":
            return None
        codes = np.ma.filled(np.ma.array(spectype_codes(column.data), mask=np.ma.getmaskarray(column)), 0)
        kept = rows_where(asked.where, table, len(codes))
        guess = names.Guess(name, (), False)
        return _objects(asked, table, codes.astype(float), kept, kept & (codes > 0), others, guess)


def _objects(
    asked: TruthTable,
    table: tables.Columns,
    z: np.ndarray,
    kept: np.ndarray,
    known: np.ndarray,
    others: Sequence[str],
    guess: names.Guess,
) -> Redshifts:
    """The objects of which z (N,) is known, (N,) bool, of those that a cut keeps."""
    columns = names.ids(asked.path, table.names, asked.id)
    integers = {name: _integers(table.read(name), known) for name in columns}
    if asked.id and integers[columns[0]] is None:
        raise InputRefused(
            f"{asked.path}: {columns[0]} must hold integers of 64 bits to be the id, one in every row"
        )
    return Redshifts(
        z[known],
        {name: column for name, column in integers.items() if column is not None},
        *_position(asked, table, known),
        {wanted: column[known] for wanted, column in numbers(table, others).items()},
        guess,
        rows=len(z),
        cut=len(z) - int(kept.sum()),
        absent={},
        quality_cut="" if asked.where else names.quality_cut(table.names),
    )


def numbers(table: tables.Columns, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the wanted columns that a table has, in any case, (n,) float64, by the names wanted."""
    found = {name: names.find(table.names, name) for name in wanted}
    return {w: floats(table.path, name, table.read(name)) for w, name in found.items() if name is not None}


def rows_where(where: str | None, table: tables.Columns, n: int) -> np.ndarray:
    """Rows (n,) of a table that a cut keeps: all of them where there is none."""
    if where is None:
        return np.ones(n, bool)
    cut = Cut(where)
    return cut.rows({name: table.read(column) for name, column in columns_of(cut, table.names).items()}, n)


def is_sentinel(z: np.ndarray) -> np.ndarray:
    """Whether a redshift (n,) is a spelling of none: not above -1, or all nines; NaN is not."""
    found = z <= -1
    for nines in NINES:
        found |= np.abs(z - nines) < 1e-6 * nines  # float32 has 7 digits
    return found


def without_redshift(z: np.ndarray) -> dict[str, int]:
    """Numbers of redshifts (n,) that are absent, by how it is written."""
    spelled, counts = np.unique(z[is_sentinel(z) | ~np.isfinite(z)], return_counts=True)
    return {f"{value:.6g}": int(count) for value, count in zip(spelled, counts, strict=True)}


def check(path: Path, name: str, z: np.ndarray) -> None:
    """Raise InputRefused where one of the finite numbers (n,) is above any redshift."""
    if z.size and z.max() > HIGHEST:
        raise InputRefused(
            f"{path}: a redshift in {name} is {z.max():g}, as no galaxy has: name the column of redshifts, "
            "not of velocities, and write NaN where there is none, or leave it out with --where"
        )


def _check_guess(path: Path, guess: names.Guess, z: np.ndarray) -> None:
    if z.size and not guess.certain and guess.name.lower() == "z" and np.median(z) > MAGNITUDE:
        raise InputRefused(
            f"{path}: {guess.name} is {np.median(z):.3g} in the median, as magnitudes are: name the redshift "
            "with --z-column"
        )


def floats(path: Path, name: str, column: np.ma.MaskedArray, shape: tuple[int, ...] = ()) -> np.ndarray:
    """The column as float64, NaN where masked. Raises InputRefused where it does not hold numbers."""
    if column.dtype.kind not in "fiub" or column.shape[1:] != shape:
        expected = f"{shape[0]} numbers" if shape else "one number"
        raise InputRefused(f"{path}: {name} must hold {expected} in every row, or NaN")
    return np.ma.filled(column.astype(np.float64), np.nan)


def _integers(column: np.ma.MaskedArray, rows: np.ndarray) -> np.ma.MaskedArray | None:
    """Ids in rows of a column, or in texts of decimal digits, as int64; None where they are anything else.

    Floats are no ids: those above 2^53 are not what they were.
    """
    column = column[rows]
    if column.dtype.kind == "U":
        texts = column.filled("0").tolist()
        if not all(len(text) < 19 and text.isdecimal() for text in texts):  # 10^18 is below 2^63
            return None
        column = np.ma.array(np.array(texts, np.int64), mask=np.ma.getmaskarray(column))
    is_id = column.dtype.kind in "iu" and column.ndim == 1
    return np.ma.array(column, dtype=np.int64) if is_id else None


def _position(
    asked: TruthTable, table: tables.Columns, rows: np.ndarray
) -> tuple[tuple[str, str] | None, np.ndarray, np.ndarray]:
    """Names and values of the first pair of columns that is a position in numbers: VizieR has texts, too."""
    for pair in names.positions(asked.path, table.names, asked.ra, asked.dec):
        columns = [table.read(name) for name in pair]
        if asked.ra or all(column.dtype.kind == "f" for column in columns):
            ra, dec = (_degrees(table, *named)[rows] for named in zip(pair, columns, strict=True))
            return pair, ra, np.where(np.abs(dec) <= 90, dec, np.nan)
    nowhere = np.full(int(rows.sum()), np.nan)
    return None, nowhere, nowhere


def _degrees(table: tables.Columns, name: str, column: np.ma.MaskedArray) -> np.ndarray:
    """Angles in degrees, which they are in where the table gives no unit; NaN where they are none."""
    values = floats(table.path, name, column)
    unit = units.Unit(table.unit(name), parse_strict="silent")
    if unit.is_equivalent(units.deg):
        values = values * unit.to(units.deg)
    return np.where(np.abs(values) <= 360, values, np.nan)
