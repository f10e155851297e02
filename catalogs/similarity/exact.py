"""Exact search: one pass over all vectors, block by block, keeps the best matches of each query."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from catalogs.errors import InputRefused

NO_VECTOR = "a galaxy without an embedding has no neighbours: choose others with --like"


@dataclass(frozen=True)
class Matches:
    """Queries and their neighbours, nearest first, as row numbers."""

    query: np.ndarray
    """(Q,) int"""
    rows: np.ndarray
    """(Q, k) int"""
    similarity: np.ndarray
    """(Q, k) cosine of the angle between the vectors"""


def nearest(vectors: np.ndarray, query: np.ndarray, blocks: Iterable[np.ndarray], count: int) -> Matches:
    """Nearest neighbours of queries among all vectors; fewer than `count` if there are no more.

    vectors (Q, J) of the rows `query` (Q,); blocks (m, J) of all rows in order, NaN for a row without vector.

    Raises InputRefused where a query has no vector or no neighbour.
    """
    directions, known = unit(vectors)
    if not len(query) or not known.all():
        raise InputRefused(NO_VECTOR)
    similarity, rows, start = np.zeros((len(query), 0), np.float32), np.zeros((len(query), 0), int), 0
    for block in blocks:
        candidates, known = unit(block)
        index = np.arange(start, start + len(block))
        cosine = np.where(known & (index != query[:, None]), directions @ candidates.T, -np.inf)
        similarity = np.concatenate([similarity, cosine], 1)
        rows = np.concatenate([rows, np.broadcast_to(index, cosine.shape)], 1)
        similarity, rows = _most_alike(similarity, rows, count)
        start += len(block)
    return best(query, rows, similarity, count)


def best(query: np.ndarray, rows: np.ndarray, similarity: np.ndarray, count: int) -> Matches:
    """The `count` most alike of rows (Q, m) of each query (Q,), or fewer, the same number for each.

    Raises InputRefused where a query has none; a similarity of -inf is of no row.
    """
    similarity, rows = _most_alike(similarity, rows, count)
    valid = np.isfinite(similarity).all(0)
    if not valid.any():
        raise InputRefused("there is no other galaxy with an embedding")
    return Matches(query, rows[:, valid], similarity[:, valid])


def _most_alike(similarity: np.ndarray, rows: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    if similarity.shape[1] > count:  # most of them need not be put in order
        order = np.sort(np.argpartition(-similarity, count - 1, axis=1)[:, :count], axis=1)
        similarity, rows = np.take_along_axis(similarity, order, 1), np.take_along_axis(rows, order, 1)
    order = np.argsort(-similarity, axis=1, kind="stable")
    return np.take_along_axis(similarity, order, 1), np.take_along_axis(rows, order, 1)


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (m, J) scaled to length 1, and a mask (m,) of those that have a length; the others become 0."""
    length = np.sqrt(np.square(vectors).sum(1))
    known = np.isfinite(length) & (length > 0)
    return np.where(known[:, None], vectors, 0) / np.where(known, length, 1)[:, None], known
