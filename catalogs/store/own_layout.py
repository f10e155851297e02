"""Rows of arrays that are laid out as we write them, read with all checks at the speed of a copy.

What shard_writer.py writes is known: shards along the rows, in them chunks of plain numbers, each followed by
its crc32c, and at the end an index with a crc32c of its own. Such rows are read to where they shall be, and
checked there. zarr reads the same bytes with the same checks, but takes several times as long.

Only what is exactly so and passes every check is read here. Of anything else nothing is said but that it is
not: zarr reads it instead, and finds out what is wrong.
"""

import os
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import zarr

from catalogs.place import Place
from catalogs.store.format import shard_key

CHECKSUM = 4
"""Bytes of a crc32c."""
NUMBERS = ({"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"})
BYTES = ({"name": "bytes"}, {"name": "crc32c"})
"""Codecs of a chunk of numbers, and of one of numbers of a byte."""
KEYS = {"name": "default", "configuration": {"separator": "/"}}
"""How files of chunks are named."""


@dataclass(frozen=True)
class OwnLayout:
    """An array in a file system that is laid out as we write it."""

    store: Path
    array: zarr.Array

    @classmethod
    def of(cls, store: Place, array: zarr.Array) -> Self | None:
        """The layout of an array; None where it is another, or the store is on S3."""
        if not isinstance(store, Path) or array.shards is None or array.ndim == 0:
            return None
        metadata: dict[str, Any] = array.metadata.to_dict()
        sharding = {
            "chunk_shape": array.chunks,
            "codecs": BYTES if array.dtype.itemsize == 1 else NUMBERS,
            "index_codecs": NUMBERS,
            "index_location": "end",
        }
        is_own = (
            array.dtype.kind in "fiu"
            and array.chunks[1:] == array.shards[1:] == array.shape[1:]
            and metadata["chunk_key_encoding"] == KEYS
            and metadata["codecs"] == ({"name": "sharding_indexed", "configuration": sharding},)
        )
        return cls(store, array) if is_own else None

    def read(self, start: int, stop: int) -> np.ndarray | None:
        """Rows start:stop; None where one of their chunks is not there, or does not pass a check."""
        start, stop, _ = slice(start, stop).indices(self.array.shape[0])
        rows = np.empty((max(0, stop - start), *self.array.shape[1:]), self.array.dtype)
        shards: Any = self.array.shards
        for first in range(start - start % shards[0], stop, shards[0]):
            lo, hi = max(start, first), min(stop, first + shards[0])
            wanted = rows[lo - start : hi - start]
            if not self._read_shard(first // shards[0], lo - first, hi - first, wanted):
                return None
        return rows

    def _read_shard(self, shard: int, start: int, stop: int, rows: np.ndarray) -> bool:
        """Fill `rows` with the rows start:stop of a shard; returns whether they pass all checks."""
        size = self.array.chunks[0]
        try:
            file = FileIO(self.store / shard_key(self.array, shard))
        except FileNotFoundError:
            return False
        with file:
            index = self._index(file)
            if index is None:
                return False
            for first in range(start - start % size, stop, size):
                lo, hi = max(start, first), min(stop, first + size)
                wanted = rows[lo - start : hi - start]
                chunk = wanted if hi - lo == size else np.empty((size, *rows.shape[1:]), rows.dtype)
                offset, length = map(int, index[first // size])
                if not _read_checked(file, offset, length, chunk):
                    return False
                if chunk is not wanted:
                    wanted[...] = chunk[lo - first : hi - first]
        return True

    def _index(self, file: FileIO) -> np.ndarray | None:
        """Offset and length of each chunk of a shard (C, 2); None where they do not match their crc32c."""
        shards: Any = self.array.shards
        index = np.empty((shards[0] // self.array.chunks[0], 2), "<u8")
        length = index.nbytes + CHECKSUM
        return index if _read_checked(file, _size(file) - length, length, index) else None


def _size(file: FileIO) -> int:
    return os.fstat(file.fileno()).st_size


def _read_checked(file: FileIO, offset: int, length: int, numbers: np.ndarray) -> bool:
    """Fill an array with numbers followed by their crc32c; returns whether they are there, and match it."""
    if length != numbers.nbytes + CHECKSUM or not 0 <= offset <= _size(file) - length:
        return False
    checksum = bytearray(CHECKSUM)
    file.seek(offset)
    if file.readinto(numbers.data.cast("B")) != numbers.nbytes or file.readinto(checksum) != CHECKSUM:
        return False
    content = numbers.view()
    content.flags.writeable = False  # google_crc32c asks for that
    return google_crc32c.value(content) == int.from_bytes(checksum, "little")
