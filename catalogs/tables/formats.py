"""Tables of others, of which columns are read one by one: FITS, CSV, ECSV, Parquet and VOTable."""

import contextlib
import functools
import gzip
import warnings
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from astropy.io import fits
from astropy.table import Table

from catalogs import fits_strict
from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special
from catalogs.tables.columns import Columns, plain, without_empty

TEXT_NULLS = ("", "null", "NULL", "NA", "N/A", "None", "\\N", "--")
"""Fields of a text table without a value; pandas, SQL and TOPCAT write these."""
COMMENT = "#"
"""Begins remarks before the names of a CSV file (SDSS: #Table1), or those names (HSC: # object_id,...)."""
LDAC_HEADER = "LDAC_IMHEAD"
"""The table before that of the objects in catalogues of SExtractor (FITS_LDAC)."""
MALFORMED: tuple[type[Exception], ...] = (
    *(ValueError, TypeError, LookupError, RuntimeError),
    *(OSError, EOFError, zlib.error),
)
"""What readers raise for bytes that are no such table."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Columns]:
    """Open a table, whose format its name tells; .gz may follow it.

    Raises UsageError where there is no file of these formats, InputRefused where it is damaged.
    """
    refuse_special(path)
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a table" if path.is_dir() else f"there is no file {path}")
    ending = Path(path.name.lower().removesuffix(".gz")).suffix
    if ending not in READERS:
        *others, last = READERS
        raise UsageError(f"{path} is no table this command reads: {', '.join(others)} or {last}")
    with READERS[ending](path) as columns:
        yield columns


@contextlib.contextmanager
def _fits(path: Path) -> Iterator[Columns]:
    with fits_strict.opened(path) as hdus:
        tables = (hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU))
        table = next((hdu for hdu in tables if hdu.name != LDAC_HEADER), None)
        if table is None:
            raise InputRefused(f"{path} is no catalogue: there is no table HDU in it")
        if table.header.get("ZTABLE"):
            raise InputRefused(f"{path} is a table compressed by fpack: unpack it with funpack")
        defined = table.columns

        def read(name: str) -> np.ma.MaskedArray:
            values, stored = np.asarray(table.data[name]), table.data.view(np.ndarray)[name]
            null = defined[name].null
            mask = null not in (None, "") and _is_null(values, stored, null)
            return without_empty(plain(np.ma.array(values, mask=mask)))

        names, rows = tuple(defined.names), table.header["NAXIS2"]
        yield Columns(path, names, rows, read, lambda name: defined[name].unit or "")


def _is_null(values: np.ndarray, stored: np.ndarray, null: int | str) -> np.ndarray:
    """Where a column of FITS has no value: where TNULL is stored, before any scaling (standard, 7.3.2).

    astropy writes the TNULL of unsigned integers as they are after scaling: both are taken.
    """
    if stored.dtype.kind == "S":  # numbers in an ASCII table
        return np.char.strip(np.char.decode(stored, "ascii", "replace")) == str(null).strip()
    found = stored.reshape(values.shape) == null
    return found | (values == null) if values.dtype.kind == "u" else found


@contextlib.contextmanager
def _by_astropy(path: Path, form: str) -> Iterator[Columns]:
    with _refusing_damage(path), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of units and of the letter of the standard
        table = Table.read(path, format=form) if form == "votable" else _text(path, form)
    yield Columns(
        path,
        tuple(table.colnames),
        len(table),
        lambda name: without_empty(plain(np.ma.array(table[name]))),
        lambda name: str(table[name].unit or ""),
    )


def _text(path: Path, form: str) -> Table:
    options = {} if form == "ascii.ecsv" else {"header_start": _remarks(path)}
    null = [(text, "0") for text in TEXT_NULLS]
    table = Table.read(path, format=form, encoding="utf-8-sig", fill_values=null, **options)
    if table.colnames and table.colnames[0].startswith(COMMENT):
        table.rename_column(table.colnames[0], table.colnames[0].removeprefix(COMMENT).strip())
    return table


def _remarks(path: Path) -> int:
    """Lines before the names of the columns: these may begin with COMMENT, too, if as many values follow."""
    with path.open("rb") as file:
        compressed = file.read(len(fits_strict.GZIP)) == fits_strict.GZIP
    remarks, row = [], ""
    with (gzip.open if compressed else open)(path, "rt", encoding="utf-8-sig", errors="replace") as lines:
        for line in filter(str.strip, lines):
            if not line.startswith(COMMENT):
                row = line
                break
            remarks.append(line)
    commas = remarks[-1].count(",") if remarks else 0
    return len(remarks) - (commas > 0 and (not row or row.count(",") == commas))


@contextlib.contextmanager
def _parquet(path: Path) -> Iterator[Columns]:
    from catalogs.tables import arrow  # late, for those who have no such table

    with contextlib.ExitStack() as stack:
        with _refusing_damage(path, arrow.ArrowException):
            table = stack.enter_context(arrow.opened(path))

        def read(name: str) -> np.ma.MaskedArray:
            with _refusing_damage(path, arrow.ArrowException):
                return table.read(name)

        yield table._replace(read=read)


READERS: dict[str, Callable[[Path], contextlib.AbstractContextManager[Columns]]] = {
    **dict.fromkeys((".fits", ".fit", ".fz"), _fits),
    **{f".{name}": functools.partial(_by_astropy, form=f"ascii.{name}") for name in ("csv", "ecsv")},
    **dict.fromkeys((".parquet", ".pq"), _parquet),
    **dict.fromkeys((".vot", ".votable", ".xml"), functools.partial(_by_astropy, form="votable")),
}
"""Endings of names, and who reads such a table."""


@contextlib.contextmanager
def _refusing_damage(path: Path, *more: type[Exception]) -> Iterator[None]:
    """Turn what readers raise for malformed bytes, and `more` of it, into InputRefused."""
    try:
        yield
    except MALFORMED + more as error:
        if isinstance(error, InputRefused | UsageError) or (isinstance(error, OSError) and error.errno):
            raise  # already told, or a disk error
        reason = str(error).partition("\n")[0]
        raise InputRefused(
            f"{path} is damaged or no such table ({reason}); make or fetch it again"
        ) from error
