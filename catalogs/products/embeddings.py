"""The embedding product: a vector for every galaxy of a cutout store, in the order of the store.

tile.embeddings.zarr/      attributes: format, version, and the provenance (Origin)
  embedding  (N, J) float32; NaN where the cutout cannot be used (screen.py)
  object_id  (N,) int64          ra, dec  (N,) float64, degrees, ICRS
tile.embeddings.zarr.manifest.json    file -> size, sha256
"""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import zarr

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.place import Place
from catalogs.store.checks import REPAIR, open_group, refusing
from catalogs.store.format import get_array, manifest_path, rows_per_file, shard_key
from catalogs.store.manifest import altered_files, check_metadata, matches, read_manifest
from catalogs.store.shard_writer import Layout

FORMAT, VERSION = "mmae-embeddings", 1
ENDING = ".embeddings.zarr"
BLOCK_ROWS = 65536
"""Rows read at a time: 50 MB at 192 numbers a row."""


@dataclass(frozen=True)
class Origin:
    """Provenance of a product: all that determines its bytes; no dates, hosts or attempts."""

    made_of: str
    """`image`, or `image and spectrum`."""
    model_sha256: str
    precision: str
    batch: int
    """Rows computed together."""
    training_set: str
    input_sha256: str
    """sha256 of the input's ids and positions, as PZINPUT of a catalogue."""
    store_fingerprint: str
    """Fingerprint of the whole input store."""
    input_zero_point: float
    """Of its fluxes, which were brought to that of the model."""
    input_pixel_scale: float
    """Of its images (arcsec), which were resampled to that of the model where it is another."""
    code_version: str
    torch_version: str

    @property
    def attributes(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def layout(n: int, width: int, shard_rows: int, origin: Origin) -> Layout:
    """Layout of a product of `n` galaxies with `width` numbers each."""
    return Layout(
        n=n,
        attributes=origin.attributes,
        columns={
            "embedding": ((width,), "float32"),
            "object_id": ((), "int64"),
            "ra": ((), "float64"),
            "dec": ((), "float64"),
        },
        constants={},
        shard_rows=shard_rows,
    )


@dataclass(frozen=True)
class Embeddings:
    """An open product; see `open_embeddings`. What is read of it is checked against its manifest."""

    path: Place
    group: zarr.Group
    manifest: dict[str, dict] = field(repr=False)
    verified: set[str] = field(default_factory=set, repr=False)
    """Files that were found to match it."""
    arrays: dict[str, zarr.Array] = field(default_factory=dict, repr=False)

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.group.attrs)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers a row."""
        n, width = self.array("embedding").shape
        return n, width

    def array(self, name: str) -> zarr.Array:
        if name not in self.arrays:  # cached: opening an array takes as long as reading a chunk of it
            self.arrays[name] = get_array(self.group, name)
        return self.arrays[name]

    def __len__(self) -> int:
        return self.shape[0]

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start:stop of a column, (m,) of object_id, ra or dec; (m, J) of embedding.

        Raises InputRefused, naming the file, where the bytes are not those written.
        """
        shard = rows_per_file(self.array(name))
        stop = len(self) if stop is None else stop
        return self._read(name, range(start // shard, -(-stop // shard)), slice(start, stop))

    def rows(self, rows: np.ndarray, name: str = "embedding") -> np.ndarray:
        """Given rows, in their order, of a column, as `column`: (m, J) of embedding."""
        order, place = np.unique(rows, return_inverse=True)  # zarr decodes a chunk once where they are sorted
        shards = np.unique(order // rows_per_file(self.array(name))).tolist()
        return self._read(name, shards, order)[place]

    def _read(self, name: str, shards: Iterable[int], selection: Any) -> np.ndarray:
        array = self.array(name)
        for shard in shards:
            self._check(array, shard_key(array, shard))
        with refusing(f"{self.path / name} does not decode"), atomic.naming(self.path / name):
            return np.asarray(array.oindex[selection])

    def _check(self, array: zarr.Array, file: str) -> None:
        """Refuse a shard whose chunks are not those of the manifest, but for errors that decoding finds."""
        if file in self.verified:
            return
        if file not in self.manifest or not matches(self.path / file, self.manifest[file], array):
            raise InputRefused(f"{self.path / file} is damaged: {REPAIR}")
        self.verified.add(file)

    def blocks(self) -> Iterator[np.ndarray]:
        """All vectors in order, in blocks of bounded size: (m, J) each."""
        for start in range(0, len(self), BLOCK_ROWS):
            yield self.column("embedding", start, min(start + BLOCK_ROWS, len(self)))


def is_product(folder: Place) -> bool:
    """Whether a folder is an embedding product, of any version, by its metadata."""
    file = folder / "zarr.json"
    try:
        return file.is_file() and atomic.read_json(file)["attributes"]["format"] == FORMAT
    except (ValueError, LookupError, TypeError):  # of something else
        return False


def open_embeddings(path: Place, whole: bool = True) -> Embeddings:
    """Open a product and verify every file of it.

    whole : else its metadata alone; the rest is verified where it is read.

    Raises
    ------
    UsageError : there is no directory `path`.
    InputRefused : it is not an embedding product, or is damaged.
    """
    if not path.is_dir():
        raise UsageError(f"{path} is no directory: name what `mmae embed` has written, TILE{ENDING}")
    group = open_group(path)
    if (group.attrs.get("format"), group.attrs.get("version")) != (FORMAT, VERSION):
        raise InputRefused(f"{path} holds no embeddings of format {FORMAT} {VERSION}: see `mmae embed`")
    manifest = read_manifest(path)
    if manifest is None:
        raise InputRefused(f"{path} has no manifest beside it ({manifest_path(path).name}): copy it too")
    for file, fault in altered_files(path).items() if whole else ():
        raise InputRefused(f"{path / file} {fault}: {REPAIR}")
    check_metadata(path, manifest)
    return Embeddings(path, group, manifest, {*manifest} if whole else set())
