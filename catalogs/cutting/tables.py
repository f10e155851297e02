"""Tables of which some columns are read: CSV, ECSV, FITS, VOTable (by astropy), Parquet."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from astropy.table import Table
from astropy.units import Unit

from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special
from catalogs.store.checks import refusing

FORMATS = {
    **dict.fromkeys((".csv",), "ascii.csv"),
    **dict.fromkeys((".ecsv",), "ascii.ecsv"),
    **dict.fromkeys((".fits", ".fit", ".fz"), "fits"),
    **dict.fromkeys((".vot", ".votable", ".xml"), "votable"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
}
"""Ending of the name -> format; .gz may follow."""


class Columns:
    """A table that is open, told by the names of its columns."""

    def __init__(self, path: Path, names: Sequence[str]):
        self.path, self.names = path, list(names)

    def __len__(self) -> int:
        raise NotImplementedError

    def load(self, names: Iterable[str]) -> None:
        """Read these columns, and no others."""

    def values(self, name: str) -> np.ndarray:
        """A column, (N,) in native byte order; where there is no value, NaN or, in texts, "masked"."""
        raise NotImplementedError

    def unit(self, name: str) -> str:
        """The unit that a column says it is in; "" where it does not."""
        return ""

    def numbers(self, name: str, unit: str = "") -> np.ndarray:
        """A column of numbers, (N,) float64, brought to `unit` where it says its own.

        Raises InputRefused where it holds no numbers, or is in a unit of another kind.
        """
        values = self.values(name)
        if values.ndim != 1 or values.dtype.kind not in "fiub":
            raise InputRefused(
                f"{self.path}: {name} is of type {values.dtype}: a column of numbers is needed"
            )
        own = self.unit(name) if unit else ""
        try:
            factor = float(Unit(own).to(unit)) if own else 1.0
        except (ValueError, TypeError) as error:
            raise InputRefused(f"{self.path}: {name} is in {own!r}: it must be in {unit}") from error
        return values.astype(np.float64) * factor

    def said(self) -> str:
        """Names of the columns, or of some of many."""
        more = len(self.names) - 12
        return ", ".join(self.names[:12]) + (f" and {more} more" if more > 0 else "")


def open_table(path: Path) -> Columns:
    """Open a table, whose format is told by its name.

    Raises
    ------
    UsageError : there is no such file, or its format is not one of FORMATS.
    InputRefused : it is not of that format.
    """
    if not path.is_file():
        refuse_special(path)
        raise UsageError(f"{path} is no file: name the table of objects")
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    form = next((FORMATS[suffix] for suffix in reversed(suffixes) if suffix in FORMATS), None)
    if form is None:
        raise UsageError(f"{path} does not end in {', '.join(FORMATS)}: say of what format it is by its name")
    with refusing(f"{path} cannot be read as {form}", "write it again, or in another format"):
        return ParquetColumns(path) if form == "parquet" else AstropyColumns(path, form)


class AstropyColumns(Columns):
    """A table that astropy reads; of FITS, only what is used comes into memory."""

    def __init__(self, path: Path, form: str):
        options = {"fits": {"memmap": True}, "ascii.csv": {"guess": False}}.get(form, {})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.table = Table.read(path, format=form, **options)
        super().__init__(path, self.table.colnames)

    def __len__(self) -> int:
        return len(self.table)

    def load(self, names: Iterable[str]) -> None:
        self.table.keep_columns([name for name in dict.fromkeys(names) if name in self.names])

    def unit(self, name: str) -> str:
        return str(self.table[name].unit or "")

    def values(self, name: str) -> np.ndarray:
        values = self.table[name]
        if getattr(values, "mask", None) is not None and np.any(values.mask):
            if values.dtype.kind in "iu":
                values = np.ma.asarray(values).astype(np.float64)
            values = np.ma.asarray(values).filled(np.nan if values.dtype.kind == "f" else "masked")
        array = np.asarray(values)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


class ParquetColumns(Columns):
    """A Parquet file."""

    def __init__(self, path: Path):
        from pyarrow import parquet  # half a second, which the others do without

        super().__init__(path, parquet.read_schema(path).names)
        self.table: Any = None

    def __len__(self) -> int:
        return len(self.table)

    def load(self, names: Iterable[str]) -> None:
        from pyarrow import parquet

        chosen = [name for name in dict.fromkeys(names) if name in self.names]
        with refusing(f"{self.path} cannot be read as parquet", "write it again"):
            self.table = parquet.read_table(self.path, columns=chosen or self.names[:1])

    def values(self, name: str) -> np.ndarray:
        return self.table[name].to_numpy()
