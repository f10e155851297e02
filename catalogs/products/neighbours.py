"""`mmae neighbours`: nearest neighbours of galaxies by the cosine of the angle between embeddings.

The search is exact: one pass over all vectors, block by block, keeps the best matches of each query.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.table import Table
from rich.progress import track
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.place_flag import PlaceFlag
from catalogs.products.embeddings import BLOCK_ROWS, ENDING, Embeddings, open_embeddings
from catalogs.store.cutouts import open_store

COLUMNS = {
    "QUERY": "object whose neighbours these are",
    "RANK": "1: the nearest",
    "OBJECT_ID": "the neighbour",
    "RA": "of the neighbour, ICRS",
    "DEC": "of the neighbour, ICRS",
    "SIMILARITY": "cosine of the angle between the embeddings",
    "Z_QUERY": "redshift of the query in the store",
    "Z": "redshift of the neighbour in the store",
}
UNITS = {"RA": "deg", "DEC": "deg"}


@dataclass(frozen=True)
class Neighbours:
    """Find the galaxies most like others by their embeddings, and draw them.

    Writes a page (PNG) with one row per query: the galaxy, and to its right its nearest neighbours, each with
    its rank, the cosine of the angle between the two embeddings, and its redshift where the store has one.
    Writes the same as a table (ECSV).
    """

    embeddings: Positional[Path]
    """Output of `mmae embed`: TILE.embeddings.zarr."""
    store: Positional[PlaceFlag]
    """The cutout store that was embedded, for the images."""
    like: tuple[int, ...] = ()
    """OBJECT_ID of the queries; by default some spread evenly over the store."""
    queries: int = 8
    """Number of queries, where --like names none."""
    count: int = 7
    """Neighbours of each query."""
    out: Path | None = None
    """Page to write, *.png; by default TILE.neighbours.png beside the embeddings. The table: *.ecsv."""

    def __post_init__(self) -> None:
        if not (1 <= self.queries <= 100 and 1 <= self.count <= 100):
            raise UsageError("--queries and --count must be from 1 to 100")
        if not self.embeddings.name:
            raise UsageError(f"{self.embeddings} is no embeddings: name what `mmae embed` has written")
        if self.out and self.out.suffix != ".png":
            raise UsageError(f"--out must end in .png, got {self.out}")

    @property
    def page(self) -> Path:
        tile = self.embeddings.name.removesuffix(ENDING)
        return self.out or self.embeddings.with_name(f"{tile}.neighbours.png")


@dataclass(frozen=True)
class Matches:
    """Queries and their neighbours, nearest first, as row numbers of the store."""

    query: np.ndarray
    """(Q,) int"""
    rows: np.ndarray
    """(Q, k) int"""
    similarity: np.ndarray
    """(Q, k)"""


def main(config: Neighbours) -> None:
    # takes a second to import; here, because --help does without it
    from catalogs.store.preview import contact_sheet, read_composites

    if not config.page.parent.is_dir():
        raise UsageError(f"{config.page.parent} is not a directory: create it, or choose another --out")
    product, store = open_embeddings(config.embeddings), open_store(config.store)
    object_id = product.column("object_id")
    if not np.array_equal(object_id, store.column("object_id")):
        raise InputRefused(f"{config.embeddings} was not made of {config.store}: its objects are others")
    query = find_rows(object_id, config.like) if config.like else spread(product, config.queries)
    blocks = track(product.blocks(), "comparing", total=-(-len(product) // BLOCK_ROWS), transient=True)
    matches = nearest(product.rows(query), query, blocks, config.count)
    z = store.column("redshift") if store.has_redshifts else np.full(store.n, np.nan)
    count = matches.rows.shape[1]
    drawn = np.column_stack([matches.query, matches.rows]).ravel().tolist()
    contact_sheet(read_composites(store, drawn), labels(matches, object_id, z), config.page, count + 1)
    table_path = config.page.with_suffix(".ecsv")
    with atomic.replacing(table_path) as temporary:
        make_table(matches, product, z).write(temporary, format="ascii.ecsv")
    print(f"wrote {config.page}: {len(query)} galaxies, and {count} nearest to each")
    print(f"wrote {table_path}: the same as a table")


# ---------------------------------------------------------------- queries


def find_rows(object_id: np.ndarray, like: tuple[int, ...]) -> np.ndarray:
    """Row numbers of objects; raises UsageError if one is missing."""
    rows = [np.flatnonzero(object_id == name) for name in like]
    for name, row in zip(like, rows, strict=True):
        if not len(row):
            raise UsageError(f"--like {name}: there is no such object in the store")
    return np.concatenate(rows)


def spread(product: Embeddings, queries: int) -> np.ndarray:
    """Row numbers spread evenly over the galaxies, without those that have no embedding."""
    rows = np.unique(np.linspace(0, max(0, len(product) - 1), min(queries, len(product))).astype(int))
    return rows[np.isfinite(product.rows(rows)).all(1)]


# ---------------------------------------------------------------- search


def nearest(vectors: np.ndarray, query: np.ndarray, blocks: Iterable[np.ndarray], count: int) -> Matches:
    """Nearest neighbours of queries among all vectors; fewer than `count` if there are no more.

    vectors (Q, J) of the rows `query` (Q,); blocks (m, J) of all rows in order, NaN for a row without vector.

    Raises InputRefused where a query has no vector or no neighbour.
    """
    directions, known = unit(vectors)
    if not len(query) or not known.all():
        raise InputRefused("a galaxy without an embedding has no neighbours: choose others with --like")
    similarity, rows, start = np.zeros((len(query), 0), np.float32), np.zeros((len(query), 0), int), 0
    for block in blocks:
        candidates, known = unit(block)
        index = np.arange(start, start + len(block))
        cosine = np.where(known & (index != query[:, None]), directions @ candidates.T, -np.inf)
        similarity = np.concatenate([similarity, cosine], 1)
        rows = np.concatenate([rows, np.broadcast_to(index, cosine.shape)], 1)
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        similarity, rows = (np.take_along_axis(values, order, 1) for values in (similarity, rows))
        start += len(block)
    valid = np.isfinite(similarity).all(0)
    if not valid.any():
        raise InputRefused("there is no other galaxy with an embedding")
    return Matches(query, rows[:, valid], similarity[:, valid])


def unit(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (m, J) scaled to length 1, and a mask (m,) of those that have a length; the others become 0."""
    length = np.sqrt(np.square(vectors).sum(1))
    known = np.isfinite(length) & (length > 0)
    return np.where(known[:, None], vectors, 0) / np.where(known, length, 1)[:, None], known


# ---------------------------------------------------------------- page and table


def labels(matches: Matches, object_id: np.ndarray, z: np.ndarray) -> list[str]:
    """Labels of the page, row by row, of two lines each."""
    texts = []
    for query, rows, similarity in zip(matches.query, matches.rows, matches.similarity, strict=True):
        ranks = ["query", *(f"{rank}: {cosine:.3f}" for rank, cosine in enumerate(similarity, 1))]
        for row, rank in zip([query, *rows], ranks, strict=True):
            redshift = f"  z = {z[row]:.3f}" if np.isfinite(z[row]) else ""
            texts.append(f"{object_id[row]}\n{rank}{redshift}")
    return texts


def make_table(matches: Matches, product: Embeddings, z: np.ndarray) -> Table:
    """Table with one row per pair of query and neighbour."""
    count = matches.rows.shape[1]
    rows, query = matches.rows.ravel(), matches.query.repeat(count)
    object_id, ra, dec = (product.column(name) for name in ("object_id", "ra", "dec"))
    values = (
        object_id[query],
        np.tile(np.arange(1, count + 1), len(matches.query)),
        *(object_id[rows], ra[rows], dec[rows], matches.similarity.ravel()),
        *(z[query], z[rows]),
    )
    table = Table(list(values), names=list(COLUMNS), descriptions=list(COLUMNS.values()), units=UNITS)
    table.meta = {"embeddings": product.attributes}
    return table
