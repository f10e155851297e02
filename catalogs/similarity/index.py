"""Search in an index: each part gives candidates, by their codes; the vectors of these decide."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from catalogs.cpus import cpus
from catalogs.errors import InputRefused
from catalogs.similarity.exact import NO_VECTOR, Matches, best, unit
from catalogs.similarity.record import (
    AGAIN,
    Part,
    check_part,
    ids_file,
    lists_file,
    open_record,
    tiles_of,
)
from catalogs.similarity.tiles import Tiles

CANDIDATES, LEAST_CANDIDATES = 5, 50
"""Rows whose vectors are read for each neighbour asked for, and at least: their codes are coarse."""
Progress = Callable[[list], Iterable]


@dataclass(frozen=True)
class Index:
    """An open, verified index; see `open_index`."""

    path: Path
    tiles: Tiles
    parts: list[tuple[int, Part]]
    """Each with its first row among those of all tiles."""
    lists: list[Any]
    """The inverted lists of each part, mapped into memory."""

    def find(self, object_id: int) -> np.ndarray:
        """Rows of an object among those of all tiles, (m,)."""
        found = [
            first + np.flatnonzero(np.load(ids_file(self.path, part.key), mmap_mode="r") == object_id)
            for first, part in self.parts
        ]
        return np.concatenate(found)

    def nearest(self, query: np.ndarray, count: int) -> Matches:
        """Nearest neighbours of rows (Q,), by exact similarity among the candidates of each part.

        Raises InputRefused where a query has no vector or no neighbour, or a vector is damaged.
        """
        directions, known = unit(self.tiles.rows(query))
        if not len(query) or not known.all():
            raise InputRefused(NO_VECTOR)
        wanted = candidates(count)
        distance, rows = np.full((len(query), 0), np.inf), np.zeros((len(query), 0), int)
        for (first, part), lists in zip(self.parts, self.lists, strict=True):
            if not part.vectors:
                continue
            near, local = search(lists, directions, part.probes, wanted)
            distance = np.concatenate([distance, np.where(local < 0, np.inf, near)], 1)
            rows = np.concatenate([rows, first + local], 1)
            order = np.argsort(distance, axis=1, kind="stable")[:, :wanted]
            distance, rows = (np.take_along_axis(values, order, 1) for values in (distance, rows))
        there = np.isfinite(distance) & (rows != query[:, None])
        cosine = np.full(rows.shape, -np.inf, np.float32)
        if there.any():
            cosine[there] = self._similarity(directions, rows, there)
        return best(query, rows, cosine, count)

    def _similarity(self, directions: np.ndarray, rows: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Cosines of the pairs of query and row that are `there`, in their order."""
        read, place = np.unique(rows[there], return_inverse=True)
        vectors, known = unit(self.tiles.rows(read))
        if not known.all():
            raise InputRefused(f"{self.path} has rows that have no vector: {AGAIN}")
        return np.einsum("ij,ij->i", directions[np.nonzero(there)[0]], vectors[place])


def candidates(count: int) -> int:
    return max(LEAST_CANDIDATES, CANDIDATES * count)


def search(lists: Any, directions: np.ndarray, probes: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows (Q, count) that are nearest by their codes, -1 where there are no more, and their distances."""
    faiss.extract_index_ivf(lists).nprobe = probes
    return lists.search(np.ascontiguousarray(directions, np.float32), count)


def open_index(path: Path, progress: Progress = iter) -> Index:
    """Open an index and verify it: every file of its own, and that the products are those it was made of.

    Raises
    ------
    UsageError : `path` is no index.
    InputRefused : it is damaged, or of other products.
    """
    faiss.omp_set_num_threads(cpus())
    record = open_record(path)
    tiles = tiles_of(path, record)
    parts = [
        (int(start) + part.start, part)
        for start, product in zip(tiles.starts[:-1], record.products, strict=True)
        for part in product.parts
    ]
    for _, part in progress(parts):
        check_part(path, part)
    return Index(path, tiles, parts, [_mapped(lists_file(path, part.key)) for _, part in parts])


def _mapped(file: Path) -> Any:
    """Inverted lists, read where a search comes to them, without the threads that faiss would start."""
    lists = faiss.read_index(str(file), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    inverted: Any = faiss.extract_index_ivf(lists).invlists
    mapped = faiss.downcast_InvertedLists(inverted)
    assert isinstance(mapped, faiss.OnDiskInvertedLists), mapped
    mapped.prefetch_nthread = 0
    return lists
