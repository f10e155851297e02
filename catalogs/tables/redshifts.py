"""Redshifts of a table of others, with the ids and positions by which their objects are found."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from catalogs.errors import InputRefused
from catalogs.redshift_values import check_redshifts, is_redshift
from catalogs.store.format import spectype_codes
from catalogs.tables import formats, names, positions
from catalogs.tables.columns import Columns
from catalogs.tables.ids import as_ids
from catalogs.tables.where import rows_where

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
    with formats.opened(asked.path) as table:
        guess = names.redshift(asked.path, table.names, asked.z)
        if guess is None:
            raise InputRefused(
                f"{asked.path} has no redshift under a usual name: pass --z-column, one of "
                f"{names.listed(table.names)}"
            )
        z = table.numbers(guess.name)
        kept = rows_where(asked.where, table)
        absent = without_redshift(z[kept])
        known = kept.copy()
        known[kept] = is_redshift(z[kept])
        check_redshifts(f"{asked.path}: a redshift in {guess.name}", z[known])
        _check_guess(asked.path, guess, z[known])
        return _objects(asked, table, z, kept, known, others, guess)._replace(absent=absent)


def read_classes(asked: TruthTable, others: Sequence[str] = ()) -> Redshifts | None:
    """Codes of SPECTYPES in the place of redshifts, of a table that says STAR, GALAXY or QSO of its objects.

    None where it does not. Arguments and errors as for `read`.
    """
    with formats.opened(asked.path) as table:
        found = (names.find(table.names, wanted) for wanted in names.SPECTYPE)
        name = next(filter(None, found), None)
        if name is None or (column := table.read(name)).dtype.kind != "U":
            return None
        codes = np.ma.filled(np.ma.array(spectype_codes(column.data), mask=np.ma.getmaskarray(column)), 0)
        kept = rows_where(asked.where, table)
        guess = names.Guess(name, (), False)
        return _objects(asked, table, codes.astype(float), kept, kept & (codes > 0), others, guess)


def _objects(
    asked: TruthTable,
    table: Columns,
    z: np.ndarray,
    kept: np.ndarray,
    known: np.ndarray,
    others: Sequence[str],
    guess: names.Guess,
) -> Redshifts:
    """The objects of which z (N,) is known, (N,) bool, of those that a cut keeps."""
    columns = names.ids(asked.path, table.names, asked.id)
    ids = {name: found for name in columns if (found := _ids(table.read(name)[known])) is not None}
    if asked.id and not ids:
        raise InputRefused(
            f"{asked.path}: {columns[0]} must hold integers of 64 bits to be the id, one in every row"
        )
    place, nowhere = positions.find(table, asked.ra, asked.dec), np.full(int(known.sum()), np.nan)
    return Redshifts(
        z[known],
        ids,
        place.pair if place else None,
        place.ra[known] if place else nowhere,
        place.dec[known] if place else nowhere,
        {wanted: column[known] for wanted, column in numbers(table, others).items()},
        guess,
        rows=len(z),
        cut=len(z) - int(kept.sum()),
        absent={},
        quality_cut="" if asked.where else names.quality_cut(table.names),
    )


def numbers(table: Columns, wanted: Sequence[str]) -> dict[str, np.ndarray]:
    """Those of the wanted columns that a table has, in any case, (n,) float64, by the names wanted."""
    found = {name: names.find(table.names, name) for name in wanted}
    return {w: table.numbers(name) for w, name in found.items() if name is not None}


def without_redshift(z: np.ndarray) -> dict[str, int]:
    """Numbers of redshifts (n,) that are absent, by how it is written."""
    spelled, counts = np.unique(z[~is_redshift(z)], return_counts=True)
    return {f"{value:.6g}": int(count) for value, count in zip(spelled, counts, strict=True)}


def _check_guess(path: Path, guess: names.Guess, z: np.ndarray) -> None:
    if z.size and not guess.certain and guess.name.lower() == "z" and np.median(z) > MAGNITUDE:
        raise InputRefused(
            f"{path}: {guess.name} is {np.median(z):.3g} in the median, as magnitudes are: name the redshift "
            "with --z-column"
        )


def _ids(column: np.ma.MaskedArray) -> np.ma.MaskedArray | None:
    """Ids (n,) of a column; None where it holds anything else."""
    try:
        return as_ids(column)
    except ValueError:
        return None
