"""Embeddings of several tiles as one run of rows: those of the first tile, then of the second, and so on."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from catalogs.errors import InputRefused
from catalogs.place import Place
from catalogs.products.embeddings import BLOCK_ROWS, ENDING, Embeddings

MADE_BY = ("made_of", "model_sha256")
"""Attributes of a product that decide whether its vectors may be compared with others."""


def tile_name(product: Place) -> str:
    return product.name.removesuffix(ENDING)


def check_alike(attributes: Sequence[dict[str, Any]], paths: Sequence[Place]) -> None:
    """Raise InputRefused where products are of several models: angles between their vectors say nothing."""
    for name in MADE_BY:
        for path, own in zip(paths, attributes, strict=True):
            if own[name] != attributes[0][name]:
                raise InputRefused(
                    f"{path} was not made as {paths[0]} was ({name}: {own[name]}, {attributes[0][name]}): "
                    "compare embeddings of one model, made of the same"
                )


@dataclass(frozen=True)
class Tiles:
    """Products of one model; a tile is opened when it is read."""

    paths: Sequence[Place]
    lengths: Sequence[int]
    """Rows of each."""
    opened: Callable[[int], Embeddings]
    """The product of a tile, by its number; raises InputRefused where it is damaged."""

    @cached_property
    def starts(self) -> np.ndarray:
        """First row of each tile, and the end of the last."""
        return np.concatenate([[0], np.cumsum(self.lengths)]).astype(int)

    def __len__(self) -> int:
        return int(self.starts[-1])

    def place(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Number of the tile of each row, and the row in it."""
        tile = np.searchsorted(self.starts, rows, side="right") - 1
        return tile, rows - self.starts[tile]

    def rows(self, rows: np.ndarray, name: str = "embedding") -> np.ndarray:
        """Rows (m,) of a column, in their order: (m, J) of embedding, (m,) of object_id, ra, dec."""
        tile, local = self.place(rows)
        tiles, of_tile = np.unique(tile, return_inverse=True)
        parts = [self.opened(k).rows(local[of_tile == i], name) for i, k in enumerate(tiles.tolist())]
        return np.concatenate(parts)[np.argsort(np.argsort(of_tile, kind="stable"))]

    def find(self, object_id: int) -> np.ndarray:
        """Rows of an object, (m,)."""
        return np.concatenate(
            [
                start + np.flatnonzero(self.opened(tile).column("object_id") == object_id)
                for tile, start in enumerate(self.starts[:-1].tolist())
            ]
        )

    def blocks(self) -> Iterator[np.ndarray]:
        """All vectors in order, in blocks of bounded size: (m, J) each."""
        for tile in range(len(self.paths)):
            yield from self.opened(tile).blocks()

    @property
    def block_count(self) -> int:
        return sum(-(-length // BLOCK_ROWS) for length in self.lengths)

    def common_attributes(self, rows: np.ndarray) -> dict[str, Any]:
        """Attributes in which the tiles of these rows agree."""
        tiles = np.unique(self.place(rows)[0]).tolist()
        first, *others = (self.opened(tile).attributes for tile in tiles)
        return {name: value for name, value in first.items() if all(o.get(name) == value for o in others)}


def of_products(products: Sequence[Embeddings]) -> Tiles:
    """Tiles of open products. Raises InputRefused where they are not of one model."""
    paths = [product.path for product in products]
    check_alike([product.attributes for product in products], paths)
    return Tiles(paths, [len(product) for product in products], products.__getitem__)
