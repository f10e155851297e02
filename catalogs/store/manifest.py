"""The manifest of a store: its files with their sizes and checksums.

Zarr silently reads a lost or zeroed chunk as fill values, so integrity is decided by the manifest.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable

import zarr

from catalogs import atomic
from catalogs.errors import InputRefused
from catalogs.place import Place, pieces, snapshot, together
from catalogs.regular_file import refuse_special
from catalogs.store.checks import REPAIR, refusing
from catalogs.store.format import manifest_path, rows_per_file


def altered_files(path: Place, progress: Callable[[list[str]], Iterable[str]] = iter) -> dict[str, str]:
    """Files of a store that differ from its manifest -> fault."""
    manifest, path = read_manifest(path) or {}, snapshot(path)
    names = sorted(manifest)
    found = together(lambda name: _fault(path / name, manifest[name]), names, path)
    faults = {name: fault for name, fault in zip(progress(names), found, strict=True) if fault}
    there = (str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir())  # type: ignore[arg-type]
    return faults | {name: "is not of this store" for name in sorted(there) if name not in manifest}


def _fault(file: Place, expected: dict) -> str:
    """How a file differs from its entry in the manifest."""
    if not file.is_file():
        return "is missing"
    if (size := file.stat().st_size) != expected["size"]:
        return f"is {size:,} bytes long, was written with {expected['size']:,}"
    return "" if atomic.sha256(file) == expected["sha256"] else "has other content than was written"


def chunk_sums(shard: Place, array: zarr.Array) -> str:
    """sha256 over a shard's index and the crc32c of its chunks.

    Decoding checks every chunk against its crc32c; this checks, from a few hundred bytes, that those crc32c
    are the ones written. (Zarr's sharding codec: the index at the end of the file has offset and length of
    each chunk, and a crc32c; the last four bytes of a chunk are its own.)
    """
    size, index_size = shard.stat().st_size, 16 * (rows_per_file(array) // array.chunks[0]) + 4
    with atomic.naming(shard):
        (index,) = pieces(shard, [(max(0, size - index_size), size)])
        chunks = struct.iter_unpack("<QQ", index[: len(index) // 16 * 16])
        ends = [
            offset + length
            for offset, length in chunks
            if 4 <= length <= size and offset <= size - length  # absent chunks have other values
        ]
        return hashlib.sha256(b"".join([index, *pieces(shard, [(end - 4, end) for end in ends])])).hexdigest()


def matches(file: Place, expected: dict, array: zarr.Array) -> bool:
    """Whether a file of an array matches the manifest, apart from errors that decoding it will find."""
    if expected["chunk_sums"] is None:  # not a shard
        return atomic.matches(file, expected)
    if not file.is_file() or file.stat().st_size != expected["size"]:
        return False
    return chunk_sums(file, array) == expected["chunk_sums"]


def read_manifest(path: Place) -> dict[str, dict] | None:
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


def check_metadata(path: Place, manifest: dict[str, dict]) -> None:
    """Check the JSON metadata, which give all other bytes their meaning, before anything is decoded."""
    for file, expected in manifest.items():
        if file.endswith("zarr.json") and not atomic.matches(path / file, expected):
            raise InputRefused(f"{path / file} is not what the manifest says: {REPAIR}")
