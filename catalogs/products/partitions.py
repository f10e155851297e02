"""Partitions of the sky by HEALPix: as few cells as hold no more than so many rows each.

Rows are known by their cells of order 29, nested. Memory is that of the occupied cells of the orders at which
they are counted, whatever the number of rows.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from catalogs.products.coverage import ROW_ORDER

COUNTED = (10, 19, ROW_ORDER)
"""Orders at which rows are counted: cells of 3.4 arcmin, and finer where these hold too many."""
DEEPEST = 8
"""Order to which a partition shrinks about rows that all lie in a part of it."""
LEAST_WAITING = 1 << 20
"""Cells that wait to be added up, at least: each time it takes a sort of all."""


class Partitions(NamedTuple):
    """P cells that do not overlap, in the order of the sphere's nested index."""

    order: np.ndarray
    """(P,) int64"""
    pixel: np.ndarray
    """(P,) int64, nested"""
    rows: np.ndarray
    """(P,) int64, rows in each"""

    @property
    def starts(self) -> np.ndarray:
        """(P,) int64, first cell of order 29 in each."""
        return self.pixel << 2 * (ROW_ORDER - self.order)

    def of(self, healpix29: np.ndarray) -> np.ndarray:
        """The partition of each row, by its cell of order 29: (n,) -> (n,), from 0 to P - 1."""
        return np.searchsorted(self.starts, healpix29, side="right") - 1


class Counts(NamedTuple):
    """Rows in the occupied cells of one order."""

    order: int
    cells: np.ndarray
    """(c,) int64, nested, ascending"""
    rows: np.ndarray
    """(c,) int64"""

    def at(self, order: int) -> "Counts":
        """The same rows in cells of a coarser order."""
        parents = self.cells >> 2 * (self.order - order)
        cells, first = np.unique(parents, return_index=True)
        return Counts(order, cells, np.add.reduceat(self.rows, first) if len(first) else self.rows)


def count(blocks: Iterable[np.ndarray], order: int, inside: Counts | None = None) -> Counts:
    """Count rows by cell, from blocks (n,) of cells of order 29; negative ones have no position.

    inside : cells of a coarser order, outside of which nothing is counted
    """
    total = Counts(order, np.zeros(0, np.int64), np.zeros(0, np.int64))
    waiting = [total]
    for block in blocks:
        known = block[block >= 0]
        if inside is not None:
            known = known[np.isin(known >> 2 * (ROW_ORDER - inside.order), inside.cells)]
        waiting.append(Counts(order, *np.unique(known >> 2 * (ROW_ORDER - order), return_counts=True)))
        if sum(len(counts.cells) for counts in waiting[1:]) > max(LEAST_WAITING, len(total.cells)):
            total = _sum(order, waiting)
            waiting = [total]
    return _sum(order, waiting)


def _sum(order: int, parts: list[Counts]) -> Counts:
    cells, place = np.unique(np.concatenate([part.cells for part in parts]), return_inverse=True)
    rows = np.concatenate([part.rows for part in parts])
    return Counts(order, cells, np.bincount(place, rows, len(cells)).astype(np.int64))


def partitions(read: Callable[[], Iterable[np.ndarray]], limit: int) -> tuple[Partitions, Counts]:
    """Partitions of at most `limit` rows, and the counts at the coarsest of COUNTED.

    read : gives blocks of cells of order 29 anew at each call

    Only a cell of order 29 (0.4 mas) with more rows than that is a partition with more.
    """
    found: list[tuple[int, int, int]] = []
    inside: Counts | None = None
    coarsest, top = None, 0
    for finest in COUNTED:
        counts = count(read(), finest, inside)
        coarsest = coarsest or counts
        inside = _divide(counts, top, limit, found)
        if not len(inside.cells):
            break
        top = finest + 1
    found.sort(key=lambda cell: cell[1] << 2 * (ROW_ORDER - cell[0]))
    columns = np.array(found, np.int64).reshape(-1, 3).T
    assert coarsest is not None
    return Partitions(*columns), coarsest


def _divide(counts: Counts, top: int, limit: int, found: list[tuple[int, int, int]]) -> Counts:
    """Add the partitions from order `top` to that of the counts; return the cells that hold too many."""
    left = counts
    for order in range(top, counts.order + 1):
        here = left.at(order)
        fits = here.rows <= limit if order < ROW_ORDER else np.full(len(here.rows), True)
        parents = left.cells >> 2 * (left.order - order)
        for pixel, rows in zip(here.cells[fits].tolist(), here.rows[fits].tolist(), strict=True):
            first, last = np.searchsorted(parents, (pixel, pixel + 1))
            found.append((*_shrunk(order, pixel, left.cells[first:last], left.order), rows))
        over = ~np.isin(parents, here.cells[fits])
        left = Counts(left.order, left.cells[over], left.rows[over])
    return left


def _shrunk(order: int, pixel: int, cells: np.ndarray, cells_order: int) -> tuple[int, int]:
    """The smallest cell, of order DEEPEST at most, that holds all of some cells, ascending, in a cell."""
    while order < min(DEEPEST, cells_order):
        shift = 2 * (cells_order - order - 1)
        if cells[0] >> shift != cells[-1] >> shift:
            break
        order, pixel = order + 1, int(cells[0]) >> shift
    return order, pixel
