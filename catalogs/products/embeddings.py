"""The embedding product: a vector for every galaxy of a cutout store, in the order of the store.

tile.embeddings.zarr/      attributes: format, version, and the provenance (Origin)
  embedding  (N, J) float32; NaN where the cutout cannot be used (screen.py)
  object_id  (N,) int64          ra, dec  (N,) float64, degrees, ICRS
tile.embeddings.zarr.manifest.json    file -> size, sha256
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import zarr

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.place import Place
from catalogs.store.checks import REPAIR, open_group
from catalogs.store.format import get_array, manifest_path
from catalogs.store.manifest import altered_files
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
    """An open, verified product; see `open_embeddings`."""

    path: Place
    group: zarr.Group

    @property
    def attributes(self) -> dict[str, Any]:
        return dict(self.group.attrs)

    def __len__(self) -> int:
        return get_array(self.group, "embedding").shape[0]

    def column(self, name: str) -> np.ndarray:
        """Column object_id, ra or dec: (N,)."""
        return np.asarray(get_array(self.group, name)[:])

    def rows(self, rows: np.ndarray) -> np.ndarray:
        """Vectors of the given rows, in their order: (m, J)."""
        return np.asarray(get_array(self.group, "embedding").oindex[rows, :])

    def blocks(self) -> Iterator[np.ndarray]:
        """All vectors in order, in blocks of bounded size: (m, J) each."""
        array = get_array(self.group, "embedding")
        for start in range(0, len(self), BLOCK_ROWS):
            yield np.asarray(array[start : start + BLOCK_ROWS])


def is_product(folder: Place) -> bool:
    """Whether a folder is an embedding product, of any version, by its metadata."""
    file = folder / "zarr.json"
    try:
        return file.is_file() and atomic.read_json(file)["attributes"]["format"] == FORMAT
    except (ValueError, LookupError, TypeError):  # of something else
        return False


def open_embeddings(path: Place) -> Embeddings:
    """Open a product and verify every file of it.

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
    if not manifest_path(path).exists():
        raise InputRefused(f"{path} has no manifest beside it ({manifest_path(path).name}): copy it too")
    for file, fault in altered_files(path).items():
        raise InputRefused(f"{path / file} {fault}: {REPAIR}")
    return Embeddings(path, group)
