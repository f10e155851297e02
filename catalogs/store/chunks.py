"""The chunks of a store: which files hold them, and whether they decode."""

import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import zarr

from catalogs.errors import InputRefused
from catalogs.store.checks import REPAIR, array_codecs, check_arrays, inspect, open_group, refusing
from catalogs.store.format import FORMAT, RANKS, get_array, manifest_path


def undecodable_files(path: Path, progress: Callable[[list], Iterable] = iter) -> dict[str, str]:
    """Decode all chunks of a store without a manifest: files with a chunk that does not decode -> fault.

    Prints what remains uncertain: chunks missing on disk, which Zarr reads as the fill value; arrays without
    checksums.
    """
    stored_bytes, _ = inspect(path)
    group = open_group(path)
    if group.attrs.get("format") == FORMAT:
        raise InputRefused(f"{path} has no manifest ({manifest_path(path).name}): copy it too, or {REPAIR}")
    check_arrays(path, group, stored_bytes)
    arrays = [get_array(group, name) for name in RANKS if name in group]
    faults = {}
    chunks = [(array, chunk) for array in arrays for chunk in chunks_of(array)]
    for array, chunk in progress(chunks):
        file = chunk_file(array, chunk)
        if not (path / file).exists():
            faults[file] = f"is missing: lost, or left out as it holds nothing but {array.fill_value}"
        elif fault := _decoding_fault(path, array, chunk):
            faults[file] = fault
    for array in arrays:
        name = array.basename
        if "crc32c" not in array_codecs(path / name):
            print(f"{name}: without checksums (crc32c), a changed byte may go unnoticed")
    return faults


def _decoding_fault(path: Path, array: zarr.Array, chunk: tuple[int, ...]) -> str:
    region = tuple(slice(k * size, (k + 1) * size) for k, size in zip(chunk, array.chunks, strict=True))
    try:
        with refusing("does not decode"):
            check_blosc(path, array, chunk)
            array[region]
    except InputRefused as error:
        return f"does not decode ({' '.join(str(error.__cause__).split())})"
    return ""


BLOSC_HEADER = 16
"""Bytes of the header of a Blosc chunk; the last four are the length of the chunk."""


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
    return f"{array.basename}/{array.metadata.encode_chunk_key(tuple(position))}"


def check_blosc(path: Path, array: zarr.Array, chunk: tuple[int, ...]) -> None:
    """Raise ValueError for a chunk of another length than in its header: Blosc reads on beyond the end."""
    compressors = [type(codec).__name__.lower() for codec in array.compressors]
    file = path / chunk_file(array, chunk)
    if array.shards or not compressors or "blosc" not in compressors[-1] or not file.exists():
        return
    with file.open("rb") as stream:
        header = stream.read(BLOSC_HEADER)
    if file.stat().st_size != int.from_bytes(header[12:16], "little") or len(header) < BLOSC_HEADER:
        raise ValueError("the Blosc chunk is not as long as its header says")
