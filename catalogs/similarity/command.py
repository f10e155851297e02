"""`mmae neighbours`: nearest neighbours of galaxies by the cosine of the angle between embeddings."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.progress import track
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import UsageError
from catalogs.place import Place
from catalogs.place_flag import PlaceFlag
from catalogs.products.embeddings import ENDING, is_product, open_embeddings
from catalogs.similarity import record
from catalogs.similarity.exact import Matches, nearest
from catalogs.similarity.page import Drawn, make_table, stores_of, write_page
from catalogs.similarity.tiles import Tiles, of_products, tile_name


@dataclass(frozen=True)
class Neighbours:
    """Find the galaxies most like others by their embeddings, and draw them.

    Among the embeddings of one tile or of many of one model. What is named decides how: embeddings are all
    read, the search is exact, 10 s for 10^6 galaxies; an index of them (`mmae index`) takes milliseconds a
    query, and finds nearly all of the nearest. The similarity is exact in either case.

    Writes a page (PNG) with one row per query: the galaxy, and to its right its nearest neighbours, each with
    its rank, the cosine of the angle between the two embeddings, and its redshift where its store has one.
    Writes the same as a table (ECSV), with the tile of each neighbour.

    As `mmae neighbours tile.embeddings.zarr --like 42`, `mmae neighbours survey.index --like 42`.
    """

    paths: Positional[tuple[PlaceFlag, ...]]
    """Outputs of `mmae embed`, TILE.embeddings.zarr, or an index of them; and the cutout stores that were
    embedded, TILE.zarr, for the images, where they are not beside the embeddings."""
    like: tuple[int, ...] = ()
    """OBJECT_ID of the queries; by default some spread evenly over the tiles."""
    queries: int = 8
    """Number of queries, where --like names none."""
    count: int = 7
    """Neighbours of each query."""
    exact: bool = False
    """Read all embeddings that an index is of, too."""
    out: Path | None = None
    """Page to write, *.png; by default NAME.neighbours.png beside the embeddings or the index NAME, and
    neighbours.png beside the first of several. The table: *.ecsv."""

    def __post_init__(self) -> None:
        if not (1 <= self.queries <= 100 and 1 <= self.count <= 100):
            raise UsageError("--queries and --count must be from 1 to 100")
        if not self.searched:
            raise UsageError("no embeddings are named, nor an index of them: see `mmae embed`, `mmae index`")
        if len(self.searched) > 1 and any(map(is_index, self.searched)):
            raise UsageError(
                f"{next(filter(is_index, self.searched))} is named beside other embeddings: add these to it "
                "with `mmae index`, and search it alone"
            )
        if self.out and self.out.suffix != ".png":
            raise UsageError(f"--out must end in .png, got {self.out}")

    @cached_property
    def searched(self) -> list[Path]:
        """The embeddings, or the index."""
        named = {path.resolve(): path for path in self.paths if isinstance(path, Path)}
        return [path for path in named.values() if is_index(path) or is_embeddings(path)]

    @property
    def stores(self) -> list[Place]:
        searched = {path.resolve() for path in self.searched}
        return [path for path in self.paths if path.resolve() not in searched]

    @property
    def page(self) -> Path:
        first, *others = self.searched
        name = tile_name(first).removesuffix(record.ENDING)
        return self.out or first.with_name("neighbours.png" if others else f"{name}.neighbours.png")


def is_index(path: Path) -> bool:
    """Whether a path is, or is meant to be, an index."""
    return path.name.endswith(record.ENDING) or record.is_index(path)


def is_embeddings(path: Path) -> bool:
    """Whether a path is, or is meant to be, embeddings."""
    return path.name.endswith(ENDING) or is_product(path)


class Search(NamedTuple):
    """Tiles, and ways to find rows in them."""

    tiles: Tiles
    find: Callable[[int], np.ndarray]
    """Rows of an object."""
    nearest: Callable[[np.ndarray, int], Matches]
    """Neighbours of rows, as many as asked for."""


def main(config: Neighbours) -> None:
    if not config.page.parent.is_dir():
        raise UsageError(f"{config.page.parent} is not a directory: create it, or choose another --out")
    search = search_in(config)
    stores = stores_of(search.tiles.paths, config.stores)
    query = find_rows(search, config.like) if config.like else spread(search.tiles, config.queries)
    matches = search.nearest(query, config.count)
    drawn = Drawn(search.tiles, matches, stores)
    table = make_table(matches, drawn, search.tiles.common_attributes(drawn.rows))
    write_page(config.page, matches, drawn)
    table_path = config.page.with_suffix(".ecsv")
    with atomic.replacing(table_path) as temporary:
        table.write(temporary, format="ascii.ecsv")
    print(f"wrote {config.page}: {len(query)} galaxies, and {matches.rows.shape[1]} nearest to each")
    print(f"wrote {table_path}: the same as a table")


def search_in(config: Neighbours) -> Search:
    """What was named, verified as far as it is not when it is read."""
    first = config.searched[0]
    if not is_index(first):
        return exact(of_products([open_embeddings(path, whole=False) for path in config.searched]))
    if config.exact:
        return exact(record.tiles_of(first, record.open_record(first)))
    try:
        from catalogs.similarity.index import open_index  # without it, all that is exact works
    except ImportError as error:
        raise UsageError(f"an index needs faiss ({error}): pip install 'mmae-survey[similarity]'") from None
    index = open_index(first, lambda parts: track(parts, "checking the index", transient=True))
    return Search(index.tiles, index.find, index.nearest)


def exact(tiles: Tiles) -> Search:
    def exact_nearest(query: np.ndarray, count: int) -> Matches:
        blocks = track(tiles.blocks(), "comparing", total=tiles.block_count, transient=True)
        return nearest(tiles.rows(query), query, blocks, count)

    return Search(tiles, tiles.find, exact_nearest)


# ---------------------------------------------------------------- queries


def find_rows(search: Search, like: tuple[int, ...]) -> np.ndarray:
    """Rows of objects, in each tile that has them; raises UsageError if one is missing."""
    rows = [search.find(object_id) for object_id in like]
    for object_id, found in zip(like, rows, strict=True):
        if not len(found):
            raise UsageError(f"--like {object_id}: there is no such object in the embeddings")
    return np.concatenate(rows)


def spread(tiles: Tiles, queries: int) -> np.ndarray:
    """Rows spread evenly over the galaxies, without those that have no embedding."""
    rows = np.unique(np.linspace(0, max(0, len(tiles) - 1), min(queries, len(tiles))).astype(int))
    return rows[np.isfinite(tiles.rows(rows)).all(1)]
