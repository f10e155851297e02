"""Columns of an open table, whatever its format: values as they stand, numbers in a unit, texts."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy import units

from catalogs.errors import InputRefused

ABSENT = "masked"
"""The text of a value that is absent."""


class Columns(NamedTuple):
    """The columns of an open table of N rows."""

    path: Path
    names: tuple[str, ...]
    rows: int
    """N"""
    read: Callable[[str], np.ma.MaskedArray]
    """Values (N,) or (N, k) of a column, masked where there is none; text is str, without outer blanks."""
    unit: Callable[[str], str] = lambda _: ""
    """Unit of a column, as the table writes it, or an empty text."""

    def take(self, kept: np.ndarray) -> "Columns":
        """The table without the rows that a mask (N,) does not keep."""
        return self._replace(rows=int(kept.sum()), read=lambda name: self.read(name)[kept])

    def numbers(self, name: str, unit: str = "", shape: tuple[int, ...] = ()) -> np.ndarray:
        """A column as (N, *shape) float64, NaN where there is no value; in `unit`, if the table says its own.

        Raises InputRefused where it does not hold such numbers, or is in a unit of another kind.
        """
        column = self.read(name)
        if column.dtype.kind not in "fiub" or column.shape[1:] != shape:
            expected = f"{shape[0]} numbers" if shape else "one number"
            raise InputRefused(f"{self.path}: {name} must hold {expected} in every row, or NaN")
        return np.ma.filled(column.astype(np.float64), np.nan) * self._factor(name, unit)

    def _factor(self, name: str, unit: str) -> float:
        own = known_unit(self.unit(name)) if unit else None
        try:
            return 1.0 if own is None else float(own.to(unit))
        except units.UnitConversionError as error:
            raise InputRefused(
                f"{self.path}: {name} is in {self.unit(name)!r}: it must be in {unit}"
            ) from error

    def texts(self, name: str) -> np.ndarray:
        """A column as (N,) str, ABSENT where there is no value."""
        column = self.read(name)
        return np.where(np.ma.getmaskarray(column), ABSENT, column.data.astype(str))


def known_unit(text: str) -> units.UnitBase | None:
    """The unit that a table writes, in any case, one or many: deg, DEG, degrees; None where it is no unit."""
    lower = text.strip().lower()
    for spelling in (text, lower, lower.removesuffix("s")):
        found = units.Unit(spelling, parse_strict="silent")
        if spelling and not isinstance(found, units.UnrecognizedUnit):
            return found
    return None


def plain(column: np.ndarray) -> np.ma.MaskedArray:
    """A column in native byte order; text of any kind as str, without the blanks that pad it in FITS."""
    column = np.ma.asarray(column)
    if column.dtype.kind == "S":
        text = np.char.decode(column.data, "utf-8", "replace")
        column = np.ma.array(text, mask=np.ma.getmaskarray(column))
    if column.dtype.kind == "O":
        mask = np.ma.getmaskarray(column)
        texts = [v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in column.data.tolist()]
        column = np.ma.array(np.array(texts, str), mask=mask)
    if column.dtype.kind == "U":
        return np.ma.array(np.char.strip(column.data), mask=np.ma.getmaskarray(column))
    return np.ma.array(column, dtype=column.dtype.newbyteorder("="))


def without_empty(column: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """A column of a format that has no other text for no value than an empty one: FITS, VOTable, CSV."""
    if column.dtype.kind != "U":
        return column
    return np.ma.array(column.data, mask=np.ma.getmaskarray(column) | (column.data == ""))
