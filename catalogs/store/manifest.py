"""The manifest of a store: its files with their sizes and checksums.

Zarr silently reads a lost or zeroed chunk as fill values, so integrity is decided by the manifest.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import zarr

from catalogs import atomic
from catalogs.errors import InputRefused
from catalogs.regular_file import refuse_special
from catalogs.store.checks import REPAIR, refusing
from catalogs.store.format import manifest_path, rows_per_file


def altered_files(path: Path, progress: Callable[[list[str]], Iterable[str]] = iter) -> dict[str, str]:
    """Files of a store that differ from its manifest -> fault."""
    manifest = read_manifest(path) or {}
    faults = {}
    for name in progress(sorted(manifest)):
        expected, file = manifest[name], path / name
        if not file.is_file():
            faults[name] = "is missing"
        elif (size := file.stat().st_size) != expected["size"]:
            faults[name] = f"is {size:,} bytes long, was written with {expected['size']:,}"
        elif atomic.sha256(file) != expected["sha256"]:
            faults[name] = "has other content than was written"
    names = (str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir())
    return faults | {name: "is not of this store" for name in sorted(names) if name not in manifest}


def chunk_sums(shard: Path, array: zarr.Array) -> str:
    """sha256 over a shard's index and the crc32c of its chunks.

    Decoding checks every chunk against its crc32c; this checks, from a few hundred bytes, that those crc32c
    are the ones written. (Zarr's sharding codec: the index at the end of the file has offset and length of
    each chunk, and a crc32c; the last four bytes of a chunk are its own.)
    """
    size, index_size = shard.stat().st_size, 16 * (rows_per_file(array) // array.chunks[0]) + 4
    with atomic.naming(shard), shard.open("rb", buffering=0) as file:
        file.seek(max(0, size - index_size))
        index = file.read()
        sums = hashlib.sha256(index)
        for offset, length in struct.iter_unpack("<QQ", index[: len(index) // 16 * 16]):
            if 4 <= length <= size and offset <= size - length:  # absent chunks have other values
                file.seek(offset + length - 4)
                sums.update(file.read(4))
    return sums.hexdigest()


def matches(file: Path, expected: dict, array: zarr.Array) -> bool:
    """Whether a file of an array matches the manifest, apart from errors that decoding it will find."""
    if expected["chunk_sums"] is None:  # not a shard
        return atomic.matches(file, expected)
    if not file.is_file() or file.stat().st_size != expected["size"]:
        return False
    return chunk_sums(file, array) == expected["chunk_sums"]


def read_manifest(path: Path) -> dict[str, dict] | None:
    file = manifest_path(path)
    refuse_special(file)
    if not file.exists():
        return None
    with refusing(f"{file} is not a manifest"):
        return {name: _entry(entry) for name, entry in atomic.read_json(file)["files"].items()}


def _entry(entry: dict) -> dict:
    """Size and sums of a file. Raises TypeError where they are not of their types."""
    if not (isinstance(entry["size"], int) and isinstance(entry["sha256"], str)):
        raise TypeError(f"a file has the size {entry['size']!r} and the sha256 {entry['sha256']!r}")
    return {"size": entry["size"], "sha256": entry["sha256"], "chunk_sums": entry.get("chunk_sums")}


def check_metadata(path: Path, manifest: dict[str, dict]) -> None:
    """Check the JSON metadata, which give all other bytes their meaning, before anything is decoded."""
    for file, expected in manifest.items():
        if file.endswith("zarr.json") and not atomic.matches(path / file, expected):
            raise InputRefused(f"{path / file} is not what the manifest says: {REPAIR}")
