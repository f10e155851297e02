"""What a page tells of catalogues: exact counts of all rows, and an even sample of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

from catalogs import fits_strict
from catalogs.errors import InputRefused
from catalogs.products.coverage import FINEST, ROW_ORDER
from catalogs.products.schema import CATALOGUE, REJECTS, Flag

SAMPLED = 200_000
"""Rows that figures are made of, at most; more of them would change no figure by what an eye sees."""
BLOCK = 2**17
"""Rows read at a time."""
ENDING = ".fits"
REJECTS_ENDING = ".rejects.fits"
OOD_BINS = 1000
"""Bins of the counts of OOD_SCORE."""
COLUMNS = (
    *("OBJECT_ID", "RA", "DEC", "HEALPIX29", "PHOTOZ_BEST", "PHOTOZ_POINT", "PHOTOZ_MODE2"),
    *("PHOTOZ_ERR68_MIN", "PHOTOZ_ERR68_MAX", "PHOTOZ_RISK_BEST", "PHOTOZ_CONF_BEST", "PDF_QUANT"),
    *("OOD_SCORE", "PHOTOZ_FLAGS", "Z_SPEC"),
)


@dataclass
class Facts:
    """Of one catalogue or more, made by the same model."""

    paths: list[Path] = field(default_factory=list)
    headers: list[fits.Header] = field(default_factory=list)
    rows: int = 0
    rejects: Counter = field(default_factory=Counter)
    """Objects without a redshift, by reason."""
    flags: Counter = field(default_factory=Counter)
    """Objects by flag."""
    unlikely: np.ndarray = field(default_factory=lambda: np.zeros(OOD_BINS, np.int64))
    """Counts of OOD_SCORE in equal bins from 0 to 1."""
    reject_cells: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Cells of order FINEST of rejected objects with a position, sorted, one an object."""
    sample: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """Rows of all catalogues, one in `every`, with the columns COLUMNS."""
    every: int = 1

    @property
    def header(self) -> fits.Header:
        return self.headers[0]

    @property
    def objects(self) -> int:
        return self.rows + sum(self.rejects.values())

    @property
    def with_pdf(self) -> np.ndarray:
        """Rows of the sample with a p(z)."""
        return self.sample[np.isfinite(self.sample["PDF_QUANT"]).all(1)]


def gather(paths: Sequence[Path]) -> Facts:
    """Facts of catalogues, and of the rejects beside them; memory does not grow with their rows.

    Raises InputRefused for a file that is no catalogue, or of another model than the first.
    """
    facts = Facts()
    for path in paths:
        with fits_strict.opened(path) as hdus:
            header, table = hdus[0].header, _table(path, hdus, CATALOGUE)
            _check(facts, path, header, table)
            facts.paths.append(path)
            facts.headers.append(header)
            facts.rows += len(table.data)
    facts.every = max(1, -(-facts.rows // SAMPLED))
    parts, seen = [], 0
    for path in paths:
        with fits_strict.opened(path) as hdus:
            data = _table(path, hdus, CATALOGUE).data
            for start in range(0, len(data), BLOCK):
                block = data[start : start + BLOCK]
                _count(facts, block)
                parts.append(_few(block[-(seen + start) % facts.every :: facts.every]))
            seen += len(data)
        _count_rejects(facts, path)
    facts.sample = np.concatenate(parts) if parts else facts.sample
    return facts


def _table(path: Path, hdus: list, name: str) -> fits.BinTableHDU:
    table = next((hdu for hdu in hdus if hdu.name == name), None)
    if table is None:
        raise InputRefused(f"{path} has no table {name}: name a catalogue that `mmae infer` wrote")
    return table


def _check(facts: Facts, path: Path, header: fits.Header, table: fits.BinTableHDU) -> None:
    names = set(table.columns.names)
    if missing := [name for name in COLUMNS if name not in names and name != "Z_SPEC"]:
        raise InputRefused(f"{path} lacks the column {missing[0]}: name a catalogue that `mmae infer` wrote")
    if facts.headers and header.get("PZMODEL") != facts.header.get("PZMODEL"):
        raise InputRefused(f"{path} is of another model than {facts.paths[0]}: make a page of each")


def _count(facts: Facts, block: fits.FITS_rec) -> None:
    flags = np.asarray(block["PHOTOZ_FLAGS"]).astype(np.int64)
    for flag in Flag:
        if number := int(np.count_nonzero(flags & flag.value)):
            facts.flags[flag] += number
    score = np.asarray(block["OOD_SCORE"], np.float64)
    facts.unlikely += np.histogram(score[np.isfinite(score)], OOD_BINS, (0, 1))[0]


def _few(rows: fits.FITS_rec) -> np.ndarray:
    """Rows as a native array of the columns COLUMNS; NaN for a Z_SPEC that the catalogue lacks."""
    names = [name for name in COLUMNS if name in rows.dtype.names]
    values = {name: np.asarray(rows[name]) for name in names}
    kinds = [(name, x.dtype.newbyteorder("="), x.shape[1:]) for name, x in values.items()]
    few = np.empty(len(rows), [*kinds, *([] if "Z_SPEC" in values else [("Z_SPEC", np.float64, ())])])
    few["Z_SPEC"] = np.nan
    for name, column in values.items():
        few[name] = column
    return few


def _count_rejects(facts: Facts, path: Path) -> None:
    rejects = path.with_name(path.name.removesuffix(ENDING) + REJECTS_ENDING)
    if not rejects.is_file():
        return
    with fits_strict.opened(rejects) as hdus:
        data = _table(rejects, hdus, REJECTS).data
        facts.rejects.update(np.char.strip(np.asarray(data["REASON"]).astype(str)).tolist())
        cells = np.asarray(data["HEALPIX29"]).astype(np.int64)
    cells = cells[cells >= 0] >> 2 * (ROW_ORDER - FINEST)
    facts.reject_cells = np.sort(np.concatenate([facts.reject_cells, cells]))
