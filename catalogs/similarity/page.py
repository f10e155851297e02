"""The page and the table of neighbours: cutouts out of whatever tile each galaxy lies in."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from astropy.table import Table

from catalogs.errors import InputRefused, UsageError
from catalogs.place import Place
from catalogs.redshift_values import is_redshift
from catalogs.similarity.exact import Matches
from catalogs.similarity.tiles import Tiles, tile_name
from catalogs.store.cutouts import CutoutStore, open_store

COLUMNS = {
    "QUERY": "object whose neighbours these are",
    "RANK": "1: the nearest",
    "OBJECT_ID": "the neighbour",
    "RA": "of the neighbour, ICRS",
    "DEC": "of the neighbour, ICRS",
    "SIMILARITY": "cosine of the angle between the embeddings",
    "Z_QUERY": "redshift of the query in its store",
    "Z": "redshift of the neighbour in its store",
    "TILE": "where the neighbour lies",
}
UNITS = {"RA": "deg", "DEC": "deg"}


class Drawn:
    """Galaxies that stand on a page, each once: their columns and, of the stores of their tiles, the cutouts.

    stores : the store of each tile.

    Raises InputRefused where a store is of other objects.
    """

    def __init__(self, tiles: Tiles, matches: Matches, stores: Sequence[Place]):
        self.rows = np.unique(np.column_stack([matches.query, matches.rows]))
        self.object_id, self.ra, self.dec = (tiles.rows(self.rows, c) for c in ("object_id", "ra", "dec"))
        tile, self.local = tiles.place(self.rows)
        self.tile = np.array([tile_name(tiles.paths[k]) for k in tile.tolist()])
        self.parts: list[tuple[np.ndarray, CutoutStore]] = []
        for k in np.unique(tile).tolist():
            self._check(np.flatnonzero(tile == k), open_store(stores[k]), tiles.paths[k])

    def _check(self, here: np.ndarray, store: CutoutStore, product: Place) -> None:
        local = self.local[here]
        if local.max() >= store.n or any(
            store.column("object_id", row, row + 1)[0] != name
            for row, name in zip(local.tolist(), self.object_id[here].tolist(), strict=True)
        ):
            raise InputRefused(f"{product} was not made of {store.path}: its objects are others")
        self.parts.append((here, store))

    @cached_property
    def z(self) -> np.ndarray:
        """Redshifts in the stores, NaN where there is none."""
        z = np.full(len(self.rows), np.nan)
        for here, store in self.parts:
            if store.has_redshifts:
                z[here] = [store.column("redshift", row, row + 1)[0] for row in self.local[here].tolist()]
        return np.where(is_redshift(z), z, np.nan)

    def composites(self) -> np.ndarray:
        """Colour composites (n, s, s, 3) uint8; smaller ones in the middle of what the largest take."""
        from catalogs.store.preview import read_composites  # takes a second to import

        drawn = [read_composites(store, self.local[here].tolist()) for here, store in self.parts]
        size = max(images.shape[1] for images in drawn)
        sheet = np.zeros((len(self.rows), size, size, 3), np.uint8)
        for (here, _), images in zip(self.parts, drawn, strict=True):
            before = (size - images.shape[1]) // 2
            middle = slice(before, before + images.shape[1])
            sheet[here, middle, middle] = images
        return sheet


def stores_of(products: Sequence[Place], named: Sequence[Place]) -> list[Place]:
    """The cutout store of each product: that of its name among those named, else beside it.

    That of a product alone may have any name. Raises UsageError where there is none.
    """
    if len(products) == len(named) == 1:
        return [*named]
    by_name = {store.name: store for store in named}
    stores = []
    for product in products:
        name = f"{tile_name(product)}.zarr"
        store = by_name.get(name, product.with_name(name))
        if not store.exists():
            raise UsageError(f"{store}, the cutout store of {product}, is not there: name it, too")
        stores.append(store)
    return stores


def write_page(path: Path, matches: Matches, drawn: Drawn) -> None:
    """Write a PNG with a row for each query: the galaxy, and its neighbours to the right."""
    from catalogs.store.preview import contact_sheet  # takes a second to import

    place = np.searchsorted(drawn.rows, np.column_stack([matches.query, matches.rows]))
    shown = labels(place, matches.similarity, drawn.object_id, drawn.z)
    contact_sheet(drawn.composites()[place.ravel()], shown, path, place.shape[1])


def labels(place: np.ndarray, similarity: np.ndarray, object_id: np.ndarray, z: np.ndarray) -> list[str]:
    """Labels of the page, of two lines each; place (Q, 1 + k), the query first, is into object_id and z."""
    texts = []
    for row, cosines in zip(place.tolist(), similarity, strict=True):
        ranks = ["query", *(f"{rank}: {cosine:.3f}" for rank, cosine in enumerate(cosines, 1))]
        for one, rank in zip(row, ranks, strict=True):
            redshift = f"  z = {z[one]:.3f}" if np.isfinite(z[one]) else ""
            texts.append(f"{object_id[one]}\n{rank}{redshift}")
    return texts


def make_table(matches: Matches, drawn: Drawn, attributes: dict) -> Table:
    """Table with a row for each pair of query and neighbour; attributes of the products are in its header."""
    count = matches.rows.shape[1]
    query = np.searchsorted(drawn.rows, matches.query.repeat(count))
    rows = np.searchsorted(drawn.rows, matches.rows.ravel())
    values = (
        drawn.object_id[query],
        np.tile(np.arange(1, count + 1), len(matches.query)),
        *(drawn.object_id[rows], drawn.ra[rows], drawn.dec[rows], matches.similarity.ravel()),
        *(drawn.z[query], drawn.z[rows], drawn.tile[rows]),
    )
    table = Table(list(values), names=list(COLUMNS), descriptions=list(COLUMNS.values()), units=UNITS)
    table.meta = {"embeddings": attributes}
    return table
