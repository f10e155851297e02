"""The manifest of a store: which files it has, and whether they are what was written.

Zarr reads a lost or zeroed chunk as fill values without a word, so what the manifest says is what counts.
"""

import hashlib
import json
import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import zarr

from catalogs import atomic
from catalogs.errors import InputRefused
from catalogs.store.checks import REPAIR, refusing
from catalogs.store.format import manifest_path, rows_a_file


def altered_files(path: Path, progress: Callable[[list[str]], Iterable[str]] = iter) -> dict[str, str]:
    """Files of a store that are not what its manifest says -> what is wrong with each."""
    manifest = read_manifest(path) or {}
    faults = {}
    for file in progress(sorted(manifest)):
        expected, there = manifest[file], path / file
        if not there.is_file():
            faults[file] = "is missing"
        elif (size := there.stat().st_size) != expected["size"]:
            faults[file] = f"is {size:,} bytes long, was written with {expected['size']:,}"
        elif atomic.sha256(there) != expected["sha256"]:
            faults[file] = "has other content than was written"
    files = (str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir())
    return faults | {file: "is not of this store" for file in sorted(files) if file not in manifest}


def chunk_sums(shard: Path, array: zarr.Array) -> str:
    """sha256 over a shard's index and the crc32c of its chunks: its bytes, as far as reading checks them.

    Every chunk is checked against its crc32c as it is decoded; that those are the right ones is known from
    here, after a few hundred bytes. (Zarr's sharding codec: offset and length of each chunk, and a crc32c, at
    the end of the file; the last four bytes of a chunk are its own.)
    """
    size, index_size = shard.stat().st_size, 16 * (rows_a_file(array) // array.chunks[0]) + 4
    with shard.open("rb", buffering=0) as file:
        file.seek(max(0, size - index_size))
        index = file.read()
        sums = hashlib.sha256(index)
        for offset, length in struct.iter_unpack("<QQ", index[: len(index) // 16 * 16]):
            if 4 <= length <= size and offset <= size - length:  # else there is no such chunk
                file.seek(offset + length - 4)
                sums.update(file.read(4))
    return sums.hexdigest()


def matches(file: Path, expected: dict, array: zarr.Array) -> bool:
    """Whether a file of an array is what the manifest says, but for what decoding it will find."""
    if expected["chunk_sums"] is None:  # no shard
        return atomic.matches(file, expected)
    if not file.is_file() or file.stat().st_size != expected["size"]:
        return False
    return chunk_sums(file, array) == expected["chunk_sums"]


def read_manifest(path: Path) -> dict[str, dict] | None:
    file = manifest_path(path)
    if not file.exists():
        return None
    with refusing(f"{file} is not a manifest"):
        files = json.loads(file.read_text())["files"]
        return {
            name: {"size": entry["size"], "sha256": entry["sha256"], "chunk_sums": entry.get("chunk_sums")}
            for name, entry in files.items()
        }


def check_metadata(path: Path, manifest: dict[str, dict]) -> None:
    """The small JSON files decide what all other bytes mean: check them before anything is decoded."""
    for file, expected in manifest.items():
        if file.endswith("zarr.json") and not atomic.matches(path / file, expected):
            raise InputRefused(f"{path / file} is not what the manifest says: {REPAIR}")
