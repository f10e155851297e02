"""An index of embeddings on disk, by which a search reads a small share of them.

survey.index/       has one builder at a time (builder.py); readers may come at any time
  index.json        the products with the sha256 of their manifests, and the parts; sealed
  KEY.faiss         a part: some rows of a product, as inverted lists of codes (faiss)
  KEY.ids.npy       their OBJECT_IDs, int64
  KEY.json          what index.json says of a part, once it is on disk; sealed

While it is made for the first time it is survey.index.partial/.

Parts know nothing of each other: whatever is lost or changed, only its own part is made again.
"""

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.place import Place
from catalogs.products.embeddings import Embeddings, open_embeddings
from catalogs.similarity.tiles import Tiles
from catalogs.store.format import manifest_path

FORMAT, VERSION = "mmae-embedding-index", 1
ENDING = ".index"
RECORD = "index.json"
AGAIN = "run `mmae index` on it again"


@dataclass(frozen=True)
class Part:
    """Rows start:stop of a product, and their files."""

    key: str
    """digest of all that decides it."""
    start: int
    stop: int
    vectors: int
    """Rows of these that have a vector."""
    probes: int
    """Inverted lists that a search reads."""
    recall: float
    """Share of true neighbours that a search finds so, measured."""
    files: dict[str, dict[str, int | str]]
    """File -> size, sha256."""


@dataclass(frozen=True)
class Indexed:
    """A product as it was when it was indexed."""

    path: str
    """Relative to the index."""
    manifest_sha256: str
    rows: int
    parts: list[Part]


@dataclass(frozen=True)
class Record:
    """Content of index.json."""

    attributes: dict[str, Any]
    """Of the products, as far as they decide what may be compared."""
    products: list[Indexed]


def write_record(index: Path, record: Record) -> None:
    content = {"format": FORMAT, "version": VERSION, **asdict(record)}
    atomic.write_json(index / RECORD, atomic.sealed(content))


def read_record(index: Path) -> Record | None:
    """What is in an index; None where that cannot be told.

    Raises UsageError where `index` is none.
    """
    if not is_index(index):
        raise UsageError(f"{index} is no index of embeddings: name what `mmae index` has written")
    content = atomic.read_sealed(index / RECORD)
    if content is None or (content["format"], content["version"]) != (FORMAT, VERSION):
        return None
    products = [
        Indexed(**product | {"parts": [Part(**part) for part in product["parts"]]})
        for product in content["products"]
    ]
    return Record(content["attributes"], products)


def is_index(path: Place) -> bool:
    """Whether an index is there, whole or not."""
    return isinstance(path, Path) and (path / RECORD).is_file()


def relative(index: Path, product: Path) -> str:
    return os.path.relpath(product.resolve(), index.resolve())


def absolute(index: Path, product: Indexed) -> Path:
    """Path of a product, as one that was named from here would be."""
    return Path(os.path.normpath(index.resolve() / product.path))


def open_record(index: Path) -> Record:
    """What is in a finished index, whose products are those it was made of.

    Raises
    ------
    UsageError : `index` is none.
    InputRefused : it is damaged, or of other products.
    """
    record = read_record(index)
    if record is None:
        raise InputRefused(f"{index / RECORD} is damaged, or of another version: {AGAIN}")
    for product in record.products:
        check_product(index, product)
    return record


def tiles_of(index: Path, record: Record) -> Tiles:
    """The tiles that an index is of."""
    paths = [absolute(index, product) for product in record.products]
    opened: Callable[[int], Embeddings] = cache(lambda tile: open_embeddings(paths[tile], whole=False))
    return Tiles(paths, [product.rows for product in record.products], opened)


def check_product(index: Path, product: Indexed) -> None:
    """Raise InputRefused where a product is not the one that was indexed."""
    manifest = manifest_path(absolute(index, product))
    if not manifest.is_file():
        raise InputRefused(f"{manifest}, of a product in {index}, is missing: bring it back, or {AGAIN}")
    if atomic.sha256(manifest) != product.manifest_sha256:
        raise InputRefused(f"{index} was made of other vectors than are in {manifest} now: {AGAIN}")


def check_part(index: Path, part: Part) -> None:
    """Raise InputRefused where a file of a part is not what was written."""
    for name, entry in part.files.items():
        if not atomic.matches(index / name, entry):
            raise InputRefused(f"{index / name} is damaged: {AGAIN}")


def lists_file(index: Path, key: str) -> Path:
    return index / f"{key}.faiss"


def ids_file(index: Path, key: str) -> Path:
    return index / f"{key}.ids.npy"
