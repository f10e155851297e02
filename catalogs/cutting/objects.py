"""The objects of a table: ids, positions and what else is known of them, by names of columns or by guess."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np

from catalogs.cutting.tables import Columns
from catalogs.errors import InputRefused

ROW = "row"
"""What --id says where objects have no ids: they are numbered, from 0, in the order of the table."""
GUESSES = {
    "id": ("object_id", "objectid", "objid", "id", "source_id", "sourceid", "targetid", "coadd_object_id"),
    "ra": ("ra", "coord_ra", "ra_deg", "radeg", "raj2000", "alpha_j2000", "right_ascension"),
    "dec": ("dec", "coord_dec", "dec_deg", "decdeg", "dej2000", "decj2000", "delta_j2000", "declination"),
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


def read_objects(table: Columns, names: Names, positions: bool) -> Objects:
    """Read the objects of an open table.

    positions : whether it must have them

    Raises InputRefused where it lacks a column, or its ids are not integers, each there once.
    """
    taken = {}
    for what in GUESSES:
        column = _find(table, what, getattr(names, what))
        if column:
            taken[what] = column
        elif what == "id" or (positions and what in ("ra", "dec")):
            remedy = f", or --id {ROW} to number its rows" if what == "id" else ""
            raise InputRefused(
                f"{table.path} has no column {GUESSES[what][0]} among {table.said()}: pass --{what}{remedy}"
            )
    if ("ra" in taken) != ("dec" in taken):
        raise InputRefused(f"{table.path} has only one of ra and dec: pass --ra and --dec")
    for column in (*names.columns, *names.texts):
        _require(table, column)
    seeing = _find_seeing(table, names.psf_fwhm, names.bands)
    table.load([*taken.values(), *filter(None, seeing), *names.columns, *names.texts])
    n = len(table)
    absent = np.full(n, np.nan)
    objects = Objects(
        object_id=np.arange(n) if taken["id"] == ROW else _ids(table.path, table.values(taken["id"])),
        ra=table.numbers(taken["ra"], "deg") if "ra" in taken else absent,
        dec=table.numbers(taken["dec"], "deg") if "dec" in taken else absent,
        known={name: table.numbers(taken[name]) for name in ("redshift", "ebv") if name in taken},
        columns={name: table.numbers(name) for name in names.columns},
        texts={name: table.values(name).astype(str) for name in names.texts if name in table.names},
        taken=taken,
    )
    if any(seeing):
        columns = [table.numbers(name, "arcsec") if name else absent for name in seeing]
        objects.known["psf_fwhm"] = np.stack(columns, -1)
        taken["psf_fwhm"] = " ".join(filter(None, seeing))
    made = {"object_id": objects.object_id, ROW: np.arange(n)}
    objects.texts |= {name: values.astype(str) for name, values in made.items() if name in names.texts}
    return objects


def _find(table: Columns, what: str, given: str) -> str:
    """The column that is taken for `what`; "" where there is none."""
    if given:
        if (what, given) != ("id", ROW):
            _require(table, given)
        return given
    lower = {name.lower(): name for name in reversed(table.names)}
    return next((lower[guess] for guess in GUESSES[what] if guess in lower), "")


def _find_seeing(table: Columns, given: str, bands: Sequence[str]) -> list[str]:
    """The column of the seeing in each band; "" where there is none."""
    if given:
        names = [given.replace("{band}", band) for band in bands]
        for name in names:
            _require(table, name)
        return names
    lower = {name.lower(): name for name in reversed(table.names)}
    guesses = [[lower.get(guess.replace("{band}", band.lower()), "") for band in bands] for guess in SEEING]
    return next(filter(any, guesses), [""] * len(bands))


def _require(table: Columns, name: str) -> None:
    if name not in table.names and name not in ("object_id", ROW):
        raise InputRefused(f"{table.path} has no column {name}; it has {table.said()}")


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
        twice = unique[counts > 1][0]
        raise InputRefused(f"{path}: the id {twice} stands there twice: keep one row of each object")
    return ids


def _text(value: object) -> str:
    return (value.decode(errors="replace") if isinstance(value, bytes) else str(value)).strip()
