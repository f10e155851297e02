"""The chunks of a store: which files hold them, and whether they decode."""

import contextlib
import itertools
import math
import struct
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import zarr

from catalogs.errors import InputRefused
from catalogs.object_path import ObjectPath
from catalogs.place import Place, pieces, snapshot
from catalogs.store.checks import REPAIR, array_codecs, check_arrays, inspect, open_group, refusing
from catalogs.store.compression import COMPRESSORS, check_decoded_size
from catalogs.store.format import AXES, FORMAT, SPARSE, get_array, manifest_path

ENTRIES = {"little": struct.Struct("<QQ"), "big": struct.Struct(">QQ")}
"""Offset and length of a chunk in the index of a shard, by the byte order of the index."""
ABSENT = (2**64 - 1, 2**64 - 1)
CHECKSUM = 4
"""Bytes of a crc32c, of the index of a shard or of a chunk."""
EXPANSION, MARGIN = 2, 2**16
"""Stored bytes that a chunk may have for each decoded one, and besides: not all pixels compress."""


def undecodable_files(path: Place, progress: Callable[[list], Iterable] = iter) -> dict[str, str]:
    """Decode all chunks of a store without a manifest: files with a chunk that does not decode -> fault.

    Prints what remains uncertain: chunks missing on disk, which Zarr reads as the fill value; arrays without
    checksums.
    """
    path = snapshot(path)
    stored_bytes, _ = inspect(path)
    group = open_group(path)
    if group.attrs.get("format") == FORMAT:
        raise InputRefused(f"{path} has no manifest ({manifest_path(path).name}): copy it too, or {REPAIR}")
    check_arrays(path, group, stored_bytes)
    arrays = [get_array(group, name) for name in AXES if name in group]
    faults = {}
    chunks = [(array, chunk) for array in arrays for chunk in chunks_of(array)]
    for array, chunk in progress(chunks):
        file = chunk_file(array, chunk)
        if not (path / file).exists() and not _may_lack(array):
            faults[file] = f"is missing: lost, or left out as it holds nothing but {array.fill_value}"
        elif fault := _decoding_fault(path, array, chunk):
            faults[file] = fault
    for array in arrays:
        name = array.path
        if "crc32c" not in array_codecs(path / name):
            print(f"{name}: without checksums (crc32c), a changed byte may go unnoticed")
    return faults


def _decoding_fault(path: Place, array: zarr.Array, chunk: tuple[int, ...]) -> str:
    region = tuple(slice(k * size, (k + 1) * size) for k, size in zip(chunk, array.chunks, strict=True))
    try:
        with refusing("does not decode"):
            check_chunk(path, array, chunk)
            array[region]
    except InputRefused as error:
        return f"does not decode ({' '.join(str(error.__cause__).split())})"
    return ""


def chunks_of(array: zarr.Array, start: int = 0, stop: int | None = None) -> list[tuple[int, ...]]:
    """Grid positions of the chunks with rows start:stop."""
    rows, *widths = array.chunks
    first, last = start // rows, -(-(array.shape[0] if stop is None else stop) // rows)
    counts = (-(-size // chunk) for size, chunk in zip(array.shape[1:], widths, strict=True))
    return list(itertools.product(range(first, last), *map(range, counts)))


def chunk_file(array: zarr.Array, chunk: tuple[int, ...]) -> str:
    """File that holds a chunk, relative to the store, named by the store's own chunk key encoding."""
    inner, outer = array.chunks, array.shards or array.chunks
    position = (k * size // file_size for k, size, file_size in zip(chunk, inner, outer, strict=True))
    return f"{array.path}/{array.metadata.encode_chunk_key(tuple(position))}"


def check_chunk(path: Place, array: zarr.Array, chunk: tuple[int, ...]) -> None:
    """Raise ValueError for a chunk that is missing, or too large, stored or decoded, for its shape.

    Zarr reads a missing chunk, in a file of its own or in a shard, as the fill value, whether it was lost or
    never written; and it decodes any other to whatever size it has. Of a sparse array they may be missing.
    """
    try:
        stored = stored_chunk(path, array, chunk)
    except MissingChunk:
        if _may_lack(array):
            return
        raise
    decoded_bytes = math.prod(array.chunks) * array.dtype.itemsize
    if stored.length > EXPANSION * decoded_bytes + MARGIN:
        raise ValueError(f"the chunk {chunk_file(array, chunk)} is stored in {stored.length:,} bytes")
    codecs = (*array.filters, *array.compressors)
    names = [type(codec).__name__.lower().removesuffix("codec") for codec in codecs]
    if compressor := next((name for name in names if name in COMPRESSORS), None):
        at = names.index(compressor)
        before, after = (CHECKSUM * part.count("crc32c") for part in (names[:at], names[at:]))
        (data,) = pieces(stored.file, [(stored.offset, stored.offset + stored.length - after)])
        check_decoded_size(compressor, data, decoded_bytes + before)


def _may_lack(array: zarr.Array) -> bool:
    """Whether chunks of an array may be missing: they are 0."""
    return array.basename in SPARSE and array.fill_value == 0


def stored_chunks(
    path: ObjectPath, array: zarr.Array, chunks: Iterable[tuple[int, ...]]
) -> list[tuple[ObjectPath, int, int]]:
    """Where the bytes of the chunks are that are there: object, first byte, the byte after the last."""
    found = []
    for chunk in chunks:
        with contextlib.suppress(ValueError):  # who checks the chunk says what is wrong
            file, offset, length = stored_chunk(path, array, chunk)
            assert isinstance(file, ObjectPath)
            found.append((file, offset, offset + length))
    return found


class MissingChunk(ValueError):
    """A chunk is not there."""


class StoredChunk(NamedTuple):
    """Where the bytes of a chunk stand."""

    file: Place
    offset: int
    length: int


def stored_chunk(path: Place, array: zarr.Array, chunk: tuple[int, ...]) -> StoredChunk:
    """Find the bytes of a chunk: a file, or a part of a shard by the index of the shard.

    Raises ValueError where the chunk is missing, or the index is not one.
    """
    name = chunk_file(array, chunk)
    file = path / name
    if not file.exists():
        raise MissingChunk(f"the chunk {name} is missing")
    size = file.stat().st_size
    if array.shards is None:
        return StoredChunk(file, 0, size)
    counts = [shard // inner for shard, inner in zip(array.shards, array.chunks, strict=True)]
    number = int(np.ravel_multi_index([k % n for k, n in zip(chunk, counts, strict=True)], counts))
    sharding: Any = array.metadata.codecs[0]  # type: ignore[union-attr]
    order, *checksums = sharding.index_codecs
    entry = ENTRIES[order.endian.value]
    index_size = entry.size * math.prod(counts) + CHECKSUM * len(checksums)
    start = max(0, size - index_size) if sharding.index_location.value == "end" else 0
    first = start + entry.size * number
    (pair,) = pieces(file, [(first, first + entry.size)])
    if len(pair) < entry.size:
        raise ValueError(f"the shard {name} is cut short")
    offset, length = entry.unpack(pair)
    if (offset, length) == ABSENT:
        raise MissingChunk(f"the chunk {chunk} is missing in the shard {name}")
    if offset + length > size:
        raise ValueError(f"the shard {name} is shorter than its index says")
    return StoredChunk(file, offset, length)
