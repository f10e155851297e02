"""The table of objects: CSV, ECSV, FITS, VOTable (by astropy) or Parquet, its columns by name or by guess."""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

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
ROW = "row"
"""What --id says where objects have no ids: they are numbered, from 0, in the order of the table."""
GUESSES = {
    "id": ("object_id", "objectid", "objid", "id", "source_id", "sourceid", "targetid", "coadd_object_id"),
    "ra": ("ra", "coord_ra", "ra_deg", "radeg", "raj2000", "alpha_j2000", "right_ascension"),
    "dec": (
        "dec",
        "coord_dec",
        "dec_deg",
        "dedeg",
        "decdeg",
        "dej2000",
        "decj2000",
        "delta_j2000",
        "declination",
    ),
    "redshift": ("redshift", "z_spec", "zspec", "specz", "spec_z", "specz_redshift"),
    "ebv": ("ebv", "e_bv", "ebmv", "sfd_ebv"),
}
"""Names under which columns are looked for, in lower case; the first that is there is taken."""
SEEING = ("psfsize_{band}", "psf_fwhm_{band}", "{band}_psf_fwhm")
"""Names under which columns of the seeing are looked for, in lower case: Legacy Surveys, others."""
EXACT = 2**53
"""Ids that floating point keeps apart are below it."""


@dataclass(frozen=True)
class Names:
    """Names of columns that the user gives; "" to look for the usual ones."""

    id: str = ""
    ra: str = ""
    dec: str = ""
    redshift: str = ""
    ebv: str = ""
    psf_fwhm: str = ""
    """Of the seeing, with {band} in it."""
    bands: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    """Columns of numbers that go along into the store."""
    texts: tuple[str, ...] = ()
    """Columns that names of files are made of."""


@dataclass
class Objects:
    """N objects of a table."""

    object_id: np.ndarray
    """(N,) int64"""
    ra: np.ndarray
    """(N,) float64, degrees, ICRS; NaN: not known"""
    dec: np.ndarray
    """(N,) float64, degrees, ICRS; NaN: not known"""
    known: dict[str, np.ndarray] = field(default_factory=dict)
    """(N,) float64 each: redshift, ebv; (N, bands): psf_fwhm; as far as the table has them"""
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    """(N,) float64 each, by name: what goes along"""
    texts: dict[str, np.ndarray] = field(default_factory=dict)
    """(N,) str each, by name"""
    taken: dict[str, str] = field(default_factory=dict)
    """Which column was taken for what."""

    def __len__(self) -> int:
        return len(self.object_id)

    def take(self, rows: np.ndarray) -> Self:
        known, columns, texts = (
            {name: values[rows] for name, values in part.items()}
            for part in (self.known, self.columns, self.texts)
        )
        ids, ra, dec = self.object_id[rows], self.ra[rows], self.dec[rows]
        return type(self)(ids, ra, dec, known, columns, texts, self.taken)

    def said(self) -> str:
        """Which columns were taken, in words."""
        return ", ".join(f"{column} as {what}" for what, column in self.taken.items())


def read_objects(path: Path, names: Names, positions: bool) -> Objects:
    """Read a table.

    positions : whether it must have them

    Raises
    ------
    UsageError : there is no such file, or its format is not one of FORMATS.
    InputRefused : it is damaged, lacks a column, or its ids are not integers, each there once.
    """
    table = _Table.opened(path)
    taken = {}
    for what in GUESSES:
        column = table.find(what, getattr(names, what), what == "id" or (positions and what in ("ra", "dec")))
        if column:
            taken[what] = column
    if ("ra" in taken) != ("dec" in taken):
        raise InputRefused(f"{path} has only one of ra and dec: pass --ra and --dec")
    for column in (*names.columns, *names.texts):
        table.require(column)
    seeing = table.find_seeing(names.psf_fwhm, names.bands)
    table.load([*taken.values(), *filter(None, seeing), *names.columns, *names.texts])
    n = len(table)
    objects = Objects(
        object_id=np.arange(n) if taken["id"] == ROW else _ids(path, table.values(taken["id"])),
        ra=table.numbers(taken["ra"], "deg") if "ra" in taken else np.full(n, np.nan),
        dec=table.numbers(taken["dec"], "deg") if "dec" in taken else np.full(n, np.nan),
        known={name: table.numbers(taken[name]) for name in ("redshift", "ebv") if name in taken},
        columns={name: table.numbers(name) for name in names.columns},
        texts={name: table.values(name).astype(str) for name in names.texts if name in table.columns},
        taken=taken,
    )
    if any(seeing):
        absent = np.full(n, np.nan)
        columns = [table.numbers(name, "arcsec") if name else absent for name in seeing]
        objects.known["psf_fwhm"] = np.stack(columns, -1)
        taken["psf_fwhm"] = " ".join(filter(None, seeing))
    objects.texts["object_id"] = objects.object_id.astype(str)
    objects.texts[ROW] = np.arange(n).astype(str)
    return objects


class _Table:
    """A table of which only some columns are read."""

    def __init__(self, path: Path, columns: list[str]):
        self.path, self.columns = path, columns
        self.table: Any = None

    @classmethod
    def opened(cls, path: Path) -> "_Table":
        if not path.is_file():
            refuse_special(path)
            raise UsageError(f"{path} is no file: name the table of objects")
        suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
        form = next((FORMATS[suffix] for suffix in reversed(suffixes) if suffix in FORMATS), None)
        if form is None:
            raise UsageError(
                f"{path} does not end in {', '.join(FORMATS)}: say of what format it is by its name"
            )
        kind = _Parquet if form == "parquet" else _Astropy
        with refusing(f"{path} cannot be read as {form}", "write it again, or in another format"):
            return kind.read(path, form)

    def find(self, what: str, given: str, needed: bool) -> str:
        """The column that is taken for `what`; "" where there is none and none is needed."""
        if given:
            if (what, given) != ("id", ROW) or ROW in self.columns:
                self.require(given)
            return given
        lower = {column.lower(): column for column in reversed(self.columns)}
        found = next((lower[guess] for guess in GUESSES[what] if guess in lower), "")
        if needed and not found:
            remedy = f", or --id {ROW} to number its rows" if what == "id" else ""
            raise InputRefused(
                f"{self.path} has no column {GUESSES[what][0]} among {_some(self.columns)}: pass --{what}"
                f"{remedy}"
            )
        return found

    def find_seeing(self, given: str, bands: Sequence[str]) -> list[str]:
        """The column of the seeing in each band; "" where there is none."""
        if given:
            names = [given.replace("{band}", band) for band in bands]
            for name in names:
                self.require(name)
            return names
        lower = {column.lower(): column for column in reversed(self.columns)}
        guesses = [
            [lower.get(guess.replace("{band}", band.lower()), "") for band in bands] for guess in SEEING
        ]
        return next(filter(any, guesses), [""] * len(bands))

    def require(self, column: str) -> None:
        if column not in self.columns and column not in ("object_id", ROW):
            raise InputRefused(f"{self.path} has no column {column}; it has {_some(self.columns)}")

    def load(self, columns: Iterable[str]) -> None:
        """Read these columns."""

    def values(self, column: str) -> np.ndarray:
        """A column, (N,), in native byte order; where it is masked, NaN or, if it is text, "masked"."""
        raise NotImplementedError

    def unit(self, column: str) -> str:
        return ""

    def numbers(self, column: str, unit: str = "") -> np.ndarray:
        """A column of numbers, (N,) float64."""
        values = self.values(column)
        if values.ndim != 1 or values.dtype.kind not in "fiub":
            raise InputRefused(
                f"{self.path}: {column} is of type {values.dtype}: a column of numbers is needed"
            )
        return values.astype(np.float64) * (self._factor(column, unit) if unit else 1.0)

    def _factor(self, column: str, unit: str) -> float:
        """What brings a column to a unit; 1 where it does not say its own."""
        own = self.unit(column)
        try:
            return float(Unit(own).to(unit)) if own else 1.0
        except (ValueError, TypeError) as error:
            raise InputRefused(f"{self.path}: {column} is in {own!r}: it must be in {unit}") from error

    def __len__(self) -> int:
        return len(self.table)


class _Astropy(_Table):
    @classmethod
    def read(cls, path: Path, form: str) -> "_Astropy":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if form == "fits":
                table = Table.read(path, format=form, memmap=True)
            elif form == "ascii.csv":
                table = Table.read(path, format=form, guess=False)
            else:
                table = Table.read(path, format=form)
        opened = cls(path, list(table.colnames))
        opened.table = table
        return opened

    def load(self, columns: Iterable[str]) -> None:
        self.table.keep_columns([name for name in dict.fromkeys(columns) if name in self.columns])

    def unit(self, column: str) -> str:
        return str(self.table[column].unit or "")

    def values(self, column: str) -> np.ndarray:
        values = self.table[column]
        if getattr(values, "mask", None) is not None and np.any(values.mask):
            if values.dtype.kind in "iu":
                values = np.ma.asarray(values).astype(np.float64)
            values = np.ma.asarray(values).filled(np.nan if values.dtype.kind == "f" else "masked")
        array = np.asarray(values)
        return array.astype(array.dtype.newbyteorder("="), copy=False)


class _Parquet(_Table):
    @classmethod
    def read(cls, path: Path, form: str) -> "_Parquet":
        from pyarrow import parquet  # half a second, which the others do without

        return cls(path, list(parquet.read_schema(path).names))

    def load(self, columns: Iterable[str]) -> None:
        from pyarrow import parquet

        chosen = [name for name in dict.fromkeys(columns) if name in self.columns]
        with refusing(f"{self.path} cannot be read as parquet", "write it again"):
            self.table = parquet.read_table(self.path, columns=chosen or self.columns[:1])

    def values(self, column: str) -> np.ndarray:
        return self.table[column].to_numpy()


def _some(columns: Sequence[str]) -> str:
    return ", ".join(columns[:12]) + (f" and {len(columns) - 12} more" if len(columns) > 12 else "")


def _ids(path: Path, values: np.ndarray) -> np.ndarray:
    """Ids as int64. Raises InputRefused where they are not integers, each there once."""
    remedy = f"pass --id another column, or --id {ROW} to number the rows"
    if values.dtype.kind == "f":
        if not (np.isfinite(values) & (values == np.round(values)) & (np.abs(values) <= EXACT)).all():
            raise InputRefused(
                f"{path} has ids in floating point, which are missing or above 2**53, where it rounds: write "
                f"them as integers, or {remedy}"
            )
    elif values.dtype.kind not in "iu":
        texts = [_text(value) for value in values]
        bad = next((text for text in texts if not re.fullmatch(r"-?[0-9]{1,19}", text)), None)
        if bad is not None:
            raise InputRefused(f"{path} has the id {bad!r}, but ids are integers below 2**63: {remedy}")
        values = np.array([int(text) for text in texts], object)
    if len(values) and (values.max() >= 2**63 or values.min() < -(2**63)):
        raise InputRefused(f"{path} has ids of 2**63 or more, which int64 does not hold: {remedy}")
    ids = values.astype(np.int64)
    unique, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputRefused(
            f"{path}: the id {unique[counts > 1][0]} stands there twice: keep one row of each object"
        )
    return ids


def _text(value: object) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
