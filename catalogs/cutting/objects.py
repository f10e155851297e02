"""The objects of a table: ids, positions and what else is known of them, by names of columns or by guess."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from catalogs.errors import InputRefused
from catalogs.redshift_values import check_redshifts, is_redshift
from catalogs.store.format import spectype_codes
from catalogs.tables import long, names, positions
from catalogs.tables.columns import Columns
from catalogs.tables.ids import as_ids, repeated
from catalogs.tables.where import rows_where

ROW = "row"
"""What --id says where objects have no ids: they are numbered, from 0, in the order of the table."""
EBV = ("ebv", "e_bv", "ebmv", "sfd_ebv")
"""Names of columns with E(B - V), in any case."""
WEIGHT = "redshift_weight"
"""Name, in any case, of a column with the probabilities that redshifts are right."""
SEEING = ("psfsize_{band}", "psf_fwhm_{band}", "{band}_psf_fwhm")
"""Names under which columns of the seeing are looked for, in any case: Legacy Surveys, others."""


@dataclass(frozen=True)
class Selection:
    """Columns and rows of a table that the user names; "" to look for columns by their usual names."""

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
    where: str = ""
    """A cut of the rows; "" for all of them."""


@dataclass
class Objects:
    """N objects of a table."""

    object_id: np.ndarray
    """(N,) int64"""
    row: np.ndarray
    """(N,) of the table, from 0"""
    ra: np.ndarray
    """(N,) float64, degrees, ICRS; NaN: not known"""
    dec: np.ndarray
    """(N,) float64, degrees, ICRS; NaN: not known"""
    known: dict[str, np.ndarray] = field(default_factory=dict)
    """(N,) each: redshift, redshift_weight, spectype, ebv; (N, bands): psf_fwhm; as far as it has them"""
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
        ids, row, ra, dec = (values[rows] for values in (self.object_id, self.row, self.ra, self.dec))
        return type(self)(ids, row, ra, dec, known, columns, texts, self.taken)

    def said(self) -> str:
        """Which columns were taken, in words."""
        return ", ".join(f"{column} as {what}" for what, column in self.taken.items())


def read_objects(table: Columns, chosen: Selection, needs_positions: bool) -> Objects:
    """Read the objects of an open table.

    Raises
    ------
    UsageError : it lacks a column that was asked for, or the cut cannot be made.
    InputRefused : it has no ids, each there once, or no positions that are needed, or no object is left.
    """
    kept = rows_where(chosen.where, table)
    table, rows = table.take(kept), np.flatnonzero(kept)
    if not len(rows):
        raise InputRefused(f"{table.path} has no row" + (f" where {chosen.where}" if chosen.where else ""))
    if chosen.id != ROW:
        table, first = long.folded(table, names.ids(table.path, table.names, chosen.id, "--id"))
        rows = rows[first]
    id_name, ids = _ids(table, chosen.id, rows)
    taken = {"id": id_name}
    ra = dec = np.full(len(rows), np.nan)
    if place := positions.find(table, chosen.ra, chosen.dec, ("--ra", "--dec")):
        (taken["ra"], taken["dec"]), ra, dec = place
    elif needs_positions:
        raise InputRefused(
            f"{table.path} has no ra and dec in degrees among {names.listed(table.names)}: pass --ra and "
            "--dec"
        )
    known = _known(table, chosen, taken)
    columns = {name: table.numbers(_named(table, name, "--columns")) for name in chosen.columns}
    made = {"object_id": ids.astype(str), ROW: rows.astype(str)}
    texts = {
        name: made[name] if name in made else table.texts(_named(table, name, "in a pattern of names"))
        for name in chosen.texts
    }
    return Objects(ids, rows, ra, dec, known, columns, texts, taken)


def _named(table: Columns, name: str, flag: str) -> str:
    return names.named(table.path, table.names, name, flag)


def _ids(table: Columns, given: str, rows: np.ndarray) -> tuple[str, np.ndarray]:
    """The likeliest column that holds ids, and these. Raises InputRefused where none does."""
    if given == ROW:
        return ROW, rows
    remedy = f"pass --id another column, or --id {ROW} to number the rows"
    why = ""
    for name in names.ids(table.path, table.names, given, "--id"):
        try:
            ids = as_ids(table.read(name))
        except ValueError as error:
            why = why or f"{table.path} has {error}: {remedy}"
            continue
        if np.ma.is_masked(ids):
            raise InputRefused(f"{table.path} has rows without an id in {name}: {remedy}")
        if (twice := repeated(ids.data)) is not None:
            raise InputRefused(
                f"{table.path}: the id {twice} stands there twice: keep one row of each object, or {remedy}"
            )
        return name, ids.data
    listed = names.listed(table.names)
    raise InputRefused(
        why
        or f"{table.path} has no column object_id among {listed}: pass --id, or --id {ROW} to number its rows"
    )


def _known(table: Columns, chosen: Selection, taken: dict[str, str]) -> dict[str, np.ndarray]:
    """What is known of objects, as far as the table has it; the columns are put into `taken`."""
    known = {}
    if redshift := _redshift(table, chosen.redshift):
        z = table.numbers(redshift)
        z = np.where(is_redshift(z), z, np.nan)
        check_redshifts(f"{table.path}: a redshift in {redshift}", z[np.isfinite(z)])
        known["redshift"], taken["redshift"] = z, redshift
    lower = {name.lower(): name for name in reversed(table.names)}
    guess = next((lower[name] for name in EBV if name in lower), "")
    if weight := lower.get(WEIGHT):
        known[WEIGHT], taken[WEIGHT] = table.numbers(weight), weight
    for name in (lower[name] for name in names.SPECTYPE if name in lower):
        if table.read(name).dtype.kind == "U" and (codes := spectype_codes(table.texts(name))).any():
            known["spectype"], taken["spectype"] = codes, name
            break
    if ebv := _named(table, chosen.ebv, "--ebv") if chosen.ebv else guess:
        known["ebv"], taken["ebv"] = table.numbers(ebv), ebv
    seeing = _seeing(table, chosen.psf_fwhm, chosen.bands)
    if any(seeing):
        absent = np.full(table.rows, np.nan)
        each = [table.numbers(name, "arcsec") if name else absent for name in seeing]
        known["psf_fwhm"], taken["psf_fwhm"] = np.stack(each, -1), " ".join(filter(None, seeing))
    return known


def _redshift(table: Columns, given: str) -> str:
    """The column of redshifts; "" where there is none. One called z alone may be a magnitude."""
    usual = table.names if given else [name for name in table.names if name.lower() != "z"]
    guess = names.redshift(table.path, usual, given, "--redshift")
    return guess.name if guess else ""


def _seeing(table: Columns, given: str, bands: Sequence[str]) -> list[str]:
    """The column of the seeing in each band; "" where there is none."""
    if given:
        return [_named(table, given.replace("{band}", band), "--psf-fwhm") for band in bands]
    lower = {name.lower(): name for name in reversed(table.names)}
    guesses = [[lower.get(guess.replace("{band}", band.lower()), "") for band in bands] for guess in SEEING]
    return next(filter(any, guesses), [""] * len(bands))
