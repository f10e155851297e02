"""The format of a cutout store: what its parts are called, and what must hold before one is read.

    tile.zarr/                 attributes: format, version, survey, bands, pixel_scale, zero_point, frame
      image      (N, bands, H, W) float32; chunks of 64 rows (columns: a shard) with crc32c, in shards
      object_id  (N,) int64          ra, dec  (N,) float64, degrees, ICRS
      flux, ivar (N, P) float32      wave (P,) angstrom      redshift (N,)       (training stores only)
      spectrum   (N, P // 6) float32, flux normalised and pooled (spectra.py): what training reads
    tile.zarr.manifest.json    file -> size, sha256, chunk_sums (of a shard; see the function of that name)

Zarr reads a lost or zeroed chunk as fill values without a word, so what the manifest says is what counts.
Stores made by others come without one; they are read where their meaning is beyond doubt.
"""

import contextlib
import hashlib
import itertools
import json
import lzma
import math
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError

FORMAT, VERSION = "mmae-cutouts", 1
BANDS = ("g", "r", "i", "z", "y")
SIZE = 64
"""Pixels on a side of the cutouts the model takes."""
CHUNK = 64
"""Rows an inner chunk: one batch of the model, 5 MB of float32 pixels."""
SHARD = 4096
"""Rows a shard, the unit of writing and of verification: 336 MB of float32 pixels."""

REQUIRED = ("image", "object_id", "ra", "dec")
TRAINING = ("flux", "ivar", "redshift", "spectrum")
RANKS = {"image": 4, "object_id": 1, "ra": 1, "dec": 1, "wave": 1}
RANKS |= {"flux": 2, "ivar": 2, "redshift": 1, "spectrum": 2}
CODECS = {
    *("bytes", "transpose", "sharding_indexed", "crc32c"),
    *("gzip", "zstd", "blosc", "zlib", "lz4", "bz2", "lzma", "shuffle", "delta"),
}
"""Codecs that only ever turn bytes into numbers; a store may not bring others (Pickle runs code)."""
NEVER = {dtype: float(np.finfo(dtype).min) for dtype in ("float32", "float64")} | {"int64": -(2**63)}
"""Fill values that no data has: zarr leaves out a shard that is all fill, and reads a lost one as fill."""
MAX_CHUNK_BYTES = 2**31
BLOSC_HEADER = 16
"""Bytes; the last four are the length of the chunk."""
MAX_COMPRESSION = 1000
"""Logical over stored bytes: noisy pixels compress by 1.1, a shape bomb by millions."""


def beside(store: Path, ending: str) -> Path:
    """The path of a store, with an ending; of the store `.` too."""
    store = store if store.name else store.absolute()
    return store.parent / (store.name + ending)


def manifest_path(store: Path) -> Path:
    return beside(store, ".manifest.json")


def get_array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array), name
    return array


def rows_a_file(array: zarr.Array) -> int:
    return (array.shards or array.chunks)[0]


def shard_key(array: zarr.Array, shard: int) -> str:
    """File of the shard with rows shard * shard_rows onward, relative to the store."""
    return f"{array.basename}/c/" + "/".join(map(str, (shard, *(0,) * (array.ndim - 1))))


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


def chunks_of(array: zarr.Array, start: int = 0, stop: int | None = None) -> list[tuple[int, ...]]:
    """Grid positions of the chunks with rows start:stop."""
    rows, *others = array.chunks
    first, last = start // rows, -(-(array.shape[0] if stop is None else stop) // rows)
    counts = (-(-size // chunk) for size, chunk in zip(array.shape[1:], others, strict=True))
    return list(itertools.product(range(first, last), *map(range, counts)))


def chunk_file(array: zarr.Array, chunk: tuple[int, ...]) -> str:
    """File that holds a chunk, relative to the store, in whatever way the store names its files."""
    inner, outer = array.chunks, array.shards or array.chunks
    place = (k * size // whole for k, size, whole in zip(chunk, inner, outer, strict=True))
    return f"{array.basename}/{array.metadata.encode_chunk_key(tuple(place))}"


def check_blosc(path: Path, array: zarr.Array, chunk: tuple[int, ...]) -> None:
    """Blosc reads on beyond the end of a chunk that was cut off; its header says how long it was."""
    compressors = [type(codec).__name__.lower() for codec in array.compressors]
    file = path / chunk_file(array, chunk)
    if array.shards or not compressors or "blosc" not in compressors[-1] or not file.exists():
        return
    with file.open("rb") as stream:
        header = stream.read(BLOSC_HEADER)
    if file.stat().st_size != int.from_bytes(header[12:16], "little") or len(header) < BLOSC_HEADER:
        raise ValueError("the Blosc chunk is not as long as its header says")


@dataclass(frozen=True)
class Described:
    """What the user says of a store that does not say it itself."""

    bands: tuple[str, ...] = ()
    """Where a store does not say it itself: the names of its bands, in the order of the array."""
    pixel_scale: float | None = None
    """Likewise: arcsec a pixel."""
    zero_point: float | None = None
    """Likewise: AB magnitude of flux 1."""

    def __post_init__(self) -> None:
        for flag, value in (("--pixel-scale", self.pixel_scale), ("--zero-point", self.zero_point)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{flag} must be a positive number, got {value}")


NOTHING_SAID = Described()


REPAIR = "write the store again, or copy it again from where it is whole"
MALFORMED = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(OSError, EOFError, zlib.error, lzma.LZMAError),
)


@contextlib.contextmanager
def refusing(what: str, remedy: str = REPAIR) -> Iterator[None]:
    """Turn what zarr and its codecs raise over bytes that make no sense into InputRefused.

    A failure of the disk is no fault of the bytes: it has an errno, and passes.
    """
    try:
        yield
    except MALFORMED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputRefused(f"{what} ({error}): {remedy}") from error


def inspect(path: Path) -> tuple[int, list]:
    """Refuse what must not even be opened; give stored bytes and a listing (file, size, time of change)."""
    listing: list[tuple[str, int, int]] = []
    root = path.resolve()
    for directory, folders, files in os.walk(path):
        for name in (*folders, *files):
            file = Path(directory, name)
            if file.is_symlink() and not _leads_into(root, file):
                raise InputRefused(
                    f"{file} is a link that leads out of the store, or nowhere: put the data itself there"
                )
            if file.is_file():
                status = file.stat()
                listing.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
                if name in ("zarr.json", ".zarray"):
                    _check_codecs(file)
    return sum(size for _, size, _ in listing), sorted(listing)


def _leads_into(root: Path, link: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # to nothing, or round in a circle
        return False


def _check_codecs(file: Path) -> None:
    with refusing(f"{file} is not JSON"):
        metadata = json.loads(file.read_text())
    for name in codec_names(metadata):
        if name.removeprefix("numcodecs.") not in CODECS:
            raise InputRefused(
                f"{file} names the codec {name!r}, which is not read here: rewrite the array without it"
            )


def codec_names(node: Any) -> Iterator[str]:
    """Names of all codecs in array metadata of Zarr v3 (codecs, index_codecs) or v2 (compressor, filters)."""
    if isinstance(node, list):
        for item in node:
            yield from codec_names(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("codecs", "index_codecs", "compressor", "filters"):
                for codec in value if isinstance(value, list) else [value]:
                    if isinstance(codec, dict):
                        yield from (str(codec[name]) for name in ("name", "id") if name in codec)
                    elif codec is not None:
                        yield str(codec)
            if key != "attributes":  # they are the user's, and mean nothing to zarr
                yield from codec_names(value)


def open_group(path: Path) -> zarr.Group:
    with refusing(f"{path} is not a Zarr group", "name the group that holds `image`"):
        # consolidated metadata are a second copy, whose codecs nobody has looked at
        return zarr.open_group(path, mode="r", use_consolidated=False)


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


def check_arrays(path: Path, group: zarr.Group, stored_bytes: int) -> tuple[int, ...]:
    """Names, types, ranks, lengths and sizes; gives the shape of `image`."""
    with refusing(f"{path} holds an array that cannot be read"):
        found = {name: group[name] for name in RANKS if name in group}
    arrays = {name: array for name, array in found.items() if isinstance(array, zarr.Array)}
    for name in (*REQUIRED, *found):
        if name not in arrays:
            raise InputRefused(f"{path} has no array `{name}`: a cutout store holds {', '.join(REQUIRED)}")
    for name, array in arrays.items():
        if array.ndim != RANKS[name]:
            raise InputRefused(f"{path}/{name} has shape {array.shape}: it must have {RANKS[name]} axes")
        if name == "object_id" and array.dtype.kind not in "iu":
            raise InputRefused(f"{path}/object_id is of type {array.dtype}: ids must be integers")
        if name != "object_id" and array.dtype.kind != "f":
            raise InputRefused(f"{path}/{name} is of type {array.dtype}: it must be floating point")
        _check_size(path, name, array, stored_bytes)
    image = arrays["image"]
    if image.shape[2] != image.shape[3]:
        raise InputRefused(f"{path}/image has shape {image.shape}: it must be (N, bands, size, size)")
    for name, array in arrays.items():
        if name != "wave" and array.shape[0] != image.shape[0]:
            raise InputRefused(
                f"{path}: image has {image.shape[0]} rows, {name} {array.shape[0]}: they must agree"
            )
    if len({array.shape[-1] for name, array in arrays.items() if name in ("flux", "ivar", "wave")}) > 1:
        raise InputRefused(f"{path}: flux, ivar and wave differ in their numbers of pixels: they must agree")
    return image.shape


def _check_size(path: Path, name: str, array: zarr.Array, stored_bytes: int) -> None:
    """Refuse what takes more memory than its bytes on disk warrant."""
    if array.nbytes > MAX_COMPRESSION * max(stored_bytes, 2**20):
        raise InputRefused(
            f"{path}/{name} claims {array.nbytes:.3g} bytes, the store holds {stored_bytes:.3g}"
        )
    inner = math.prod(array.chunks)
    if not inner:
        raise InputRefused(f"{path}/{name} has chunks of shape {array.chunks}: {REPAIR}")
    index_bytes = 16 * math.prod(array.shards or ()) // inner
    if max(inner * array.dtype.itemsize, index_bytes) > MAX_CHUNK_BYTES:
        raise InputRefused(
            f"{path}/{name} has chunks of over 2 GiB: rewrite it with about {CHUNK} rows a chunk"
        )


def read_bands(path: Path, attributes: dict, described: Described, count: int) -> tuple[str, ...]:
    stored = attributes.get("bands")
    if not isinstance(stored, list | None) or not all(isinstance(band, str) for band in stored or ()):
        raise InputRefused(f"{path} has bands {stored!r}: they must be a list of names")
    if stored is not None and described.bands and tuple(stored) != described.bands:
        raise InputRefused(
            f"{path} has the bands {' '.join(stored)}, --bands says {' '.join(described.bands)}"
        )
    bands = tuple(stored or described.bands)
    if not bands:
        raise InputRefused(f"{path} does not name its {count} bands: pass --bands, in the order of the array")
    if len(bands) != count or len(set(bands)) != count:
        raise InputRefused(
            f"{path} names the bands {' '.join(bands)} for {count} planes: each once, in order"
        )
    if missing := [band for band in BANDS if band not in bands]:
        raise InputRefused(f"{path} lacks the band {', '.join(missing)}: the model needs {' '.join(BANDS)}")
    return bands


def read_number(path: Path, attributes: dict, name: str, said: float | None, unit: str) -> float:
    value = attributes.get(name, said)
    flag = "--" + name.replace("_", "-")
    if value is None:
        raise InputRefused(f"{path} does not say its {name} ({unit}): pass {flag}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputRefused(f"{path}: {name} {value!r} is not a positive number ({unit})")
    if said is not None and value != said:
        raise InputRefused(f"{path} has {name} {value}, {flag} says {said}: leave the flag out")
    return float(value)
