"""What a page tells of catalogues: exact counts of all rows, and an even sample of them."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from astropy.io import fits

from catalogs.products.coverage import FINEST, ROW_ORDER
from catalogs.products.drift import Drift
from catalogs.products.finished import native, open_all, reasons_of, rejects_beside
from catalogs.products.schema import Flag

SAMPLED = 200_000
"""Rows that figures are made of, at most; more of them would change no figure by what an eye sees."""
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
    drift: Drift = field(default_factory=Drift)
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

    Raises as `open_all`: for what is no catalogue, and for those of other models than the first.
    """
    facts, tiles = Facts(), open_all(paths)
    facts.rows = sum(tile.n for tile in tiles)
    facts.every = max(1, -(-facts.rows // SAMPLED))
    parts, seen = [], 0
    for tile in tiles:
        facts.paths.append(tile.path)
        facts.headers.append(tile.header)
        for block in tile.blocks():
            _count(facts, block)
            parts.append(native(block[-seen % facts.every :: facts.every], COLUMNS))
            seen += len(block)
        _count_rejects(facts, tile.path)
    facts.sample = np.concatenate(parts)
    return facts


def _count(facts: Facts, block: np.ndarray) -> None:
    flags = block["PHOTOZ_FLAGS"].astype(np.int64)
    for flag in Flag:
        if number := int(np.count_nonzero(flags & flag.value)):
            facts.flags[flag] += number
    facts.drift.add(block["OOD_SCORE"])


def _count_rejects(facts: Facts, path: Path) -> None:
    for block in rejects_beside(path):
        facts.rejects.update(reasons_of(block))
        cells = block["HEALPIX29"].astype(np.int64)
        cells = cells[cells >= 0] >> 2 * (ROW_ORDER - FINEST)
        facts.reject_cells = np.sort(np.concatenate([facts.reject_cells, cells]))
