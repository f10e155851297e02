"""Tables of others, of which columns are read one by one: FITS, CSV, ECSV, Parquet and VOTable."""

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from astropy.io import fits
from astropy.table import Table
from pyarrow import parquet

from catalogs import fits_strict
from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special

TEXT_NULLS = ("", "null", "NULL", "NA", "N/A", "None", "\\N", "--")
"""Fields of a text table without a value; pandas, SQL and TOPCAT write these."""
COMMENT = "# "
"""What HSC's database writes before the first name of a CSV file."""


class Columns(NamedTuple):
    """The columns of an open table."""

    path: Path
    names: tuple[str, ...]
    read: Callable[[str], np.ma.MaskedArray]
    """Values (N,) or (N, k) of a column, masked where there is none; text is str, without outer blanks."""
    unit: Callable[[str], str]
    """Unit of a column, as the table writes it, or an empty text."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Columns]:
    """Open a table, whose format its name tells.

    Raises UsageError where there is no file of these formats, InputRefused where it is damaged.
    """
    refuse_special(path)
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a table" if path.is_dir() else f"there is no file {path}")
    read = READERS.get(path.suffix.lower())
    if read is None:
        *others, last = READERS
        raise UsageError(f"{path} is no table this command reads: {', '.join(others)} or {last}")
    with read(path) as columns:
        yield columns


@contextlib.contextmanager
def _fits(path: Path) -> Iterator[Columns]:
    with fits_strict.opened(path) as hdus:
        table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)), None)
        if table is None:
            raise InputRefused(f"{path} is no catalogue: there is no table HDU in it")
        defined = table.columns

        def read(name: str) -> np.ma.MaskedArray:
            values, null = np.asarray(table.data[name]), defined[name].null
            return _plain(np.ma.array(values, mask=False if null in (None, "") else values == null))

        yield Columns(path, tuple(defined.names), read, lambda name: defined[name].unit or "")


@contextlib.contextmanager
def _with_astropy(path: Path) -> Iterator[Columns]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of units and of the letter of the standard
            table = _text(path) if path.suffix.lower() in TEXT_FORMATS else Table.read(path, format="votable")
    except (ValueError, TypeError, LookupError) as error:
        raise _damaged(path, error) from error
    yield Columns(
        path,
        tuple(table.colnames),
        lambda name: _plain(np.ma.array(table[name])),
        lambda name: str(table[name].unit or ""),
    )


TEXT_FORMATS = {".csv": "ascii.csv", ".ecsv": "ascii.ecsv"}


def _text(path: Path) -> Table:
    null = [(text, "0") for text in TEXT_NULLS]
    table = Table.read(path, format=TEXT_FORMATS[path.suffix.lower()], encoding="utf-8-sig", fill_values=null)
    if table.colnames and table.colnames[0].startswith(COMMENT):
        table.rename_column(table.colnames[0], table.colnames[0].removeprefix(COMMENT))
    return table


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Columns]:
    try:
        with parquet.ParquetFile(path) as file:
            yield Columns(
                path,
                tuple(file.schema_arrow.names),
                lambda name: _from_arrow(file.read([name]).column(name)),
                lambda _: "",
            )
    except (pa.ArrowException, ValueError, OSError) as error:
        if isinstance(error, InputRefused | UsageError) or (isinstance(error, OSError) and error.errno):
            raise  # already told, or a disk error
        raise _damaged(path, error) from error


def _from_arrow(column: pa.ChunkedArray) -> np.ma.MaskedArray:
    """Values of a column; a list in every row, of one length, becomes the second axis."""
    missing = column.is_null().to_numpy()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lists = column.to_pylist()
        width = max((len(values) for values in lists if values), default=0)
        return np.ma.array([values or [np.nan] * width for values in lists])
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):  # else a null would make floats of them
        column = column.fill_null(0 if pa.types.is_integer(kind) else False)
    return _plain(np.ma.array(column.to_numpy(), mask=missing))


READERS = {
    ".fits": _fits,
    ".csv": _with_astropy,
    ".ecsv": _with_astropy,
    ".parquet": _parquet,
    ".vot": _with_astropy,
    ".votable": _with_astropy,
    ".xml": _with_astropy,
}
"""Endings of names, and who reads such a table."""


def _plain(column: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """The column in native byte order; text of any kind as str, without the blanks that pad it in FITS."""
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


def _damaged(path: Path, error: Exception) -> InputRefused:
    reason = str(error).partition("\n")[0]
    return InputRefused(f"{path} is damaged or no such table ({reason}); make or fetch it again")
