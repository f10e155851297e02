"""Checks made before a store is read."""

import contextlib
import itertools
import lzma
import math
import os
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import zarr

from catalogs.atomic import read_json
from catalogs.errors import InputRefused, UsageError
from catalogs.object_path import ObjectPath, side_by_side
from catalogs.place import Place
from catalogs.regular_file import refuse_special
from catalogs.store.compression import COMPRESSORS
from catalogs.store.encoding import read_encoding
from catalogs.store.format import AXES, CHUNK, COLUMNS, REQUIRED
from catalogs.store.objects import Objects

SHARDING = "sharding_indexed"
CODECS = {*COMPRESSORS, "bytes", "transpose", SHARDING, "crc32c", "shuffle", "delta"}
"""Codecs that only turn bytes into numbers; others are refused (Pickle runs code)."""
METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
WHOLE_NUMBERS = {
    "object_id": "ids must be integers",
    "mask": "it must be integers, 0 where a pixel is good",
    "spectype": "it must be integers, 1 for a star, 2 for a galaxy, 3 for a quasar, 0 where it is not known",
}
"""Arrays that are not of real numbers, and what they must be."""
MAX_CHUNK_BYTES = 2**30
MAX_COMPRESSION = 1000
"""Largest ratio of logical to stored bytes: noisy pixels compress by 1.1, a shape bomb by millions."""
REPAIR = "write the store again, or copy it again from where it is whole"
MALFORMED = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(OSError, EOFError, zlib.error, lzma.LZMAError),
)


@contextlib.contextmanager
def refusing(what: str, remedy: str = REPAIR) -> Iterator[None]:
    """Turn the exceptions of zarr and its codecs for malformed bytes into InputRefused.

    Disk errors, which have an errno, pass through.
    """
    try:
        yield
    except MALFORMED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputRefused(f"{what} ({error}): {remedy}") from error


def check_folder(path: Place) -> None:
    """Raise UsageError where there is no folder that a store could be, InputRefused for FIFO and device."""
    if path.is_dir():
        return
    refuse_special(path)
    if not path.is_file():
        raise UsageError(f"{path} does not exist")
    if zipfile.is_zipfile(path) if isinstance(path, Path) else path.suffix == ".zip":
        raise UsageError(f"{path} is a zipped store: unzip it, and name the folder")
    raise UsageError(f"{path} is a file; a cutout store is a directory (Zarr)")


def inspect(path: Place) -> tuple[int, list]:
    """Refuse outward links, what is no file, and unknown codecs.

    Returns stored bytes and a listing (file, size, mtime); on S3 the entity tag is in the place of the time.
    """
    files = _objects(path) if isinstance(path, ObjectPath) else _files(path)
    listing: list[tuple[str, int, int | str]] = []
    for file, size, written in files:
        listing.append((str(file.relative_to(path)), size, written))  # type: ignore[arg-type]
        read = file.parent.name in (path.name, *AXES) or file.parent.parent.name == COLUMNS
        if file.name in ("zarr.json", ".zarray") and read:
            check_codecs(file)  # arrays that nobody reads may be of any kind
    return sum(size for _, size, _ in listing), sorted(listing)


def _objects(path: ObjectPath) -> Iterator[tuple[ObjectPath, int, str]]:
    """The objects of a listed store; what tells the meaning of the others is fetched together."""
    listed = path if path.listing is not None else path.listed()
    assert listed.listing is not None
    files = sorted(listed.rglob("*"))
    metadata = [file for file in files if file.name in METADATA]
    list(side_by_side(ObjectPath.read_bytes, metadata))
    for file in files:
        status = file.stat()
        yield file, status.st_size, status.etag or str(status.st_mtime)


def _files(path: Path) -> Iterator[tuple[Path, int, int]]:
    root = path.resolve()
    for directory, folders, files in os.walk(path):
        for name in (*folders, *files):
            file = Path(directory, name)
            if file.is_symlink() and not _leads_into(root, file):
                raise InputRefused(
                    f"{file} is a link that leads out of the store, or nowhere: put the data itself there"
                )
            refuse_special(file)
            if file.is_file():
                status = file.stat()
                yield file, status.st_size, status.st_mtime_ns


def _leads_into(root: Path, link: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # dangling, or circular
        return False


def check_codecs(file: Place) -> None:
    """Raise InputRefused where the metadata of an array name a codec that is not one of CODECS."""
    with refusing(f"{file} is not JSON"):
        metadata = read_json(file)
    if isinstance(metadata, dict) and metadata.get("node_type") == "group":
        return  # a second copy of the arrays' metadata may be in it, which nobody reads
    names = [name.removeprefix("numcodecs.") for name in codec_names(metadata)]
    for name in names:
        if name not in CODECS:
            raise InputRefused(
                f"{file} names the codec {name!r}, which is not read here: rewrite the array without it"
            )
    # what a chunk decodes to is only known beforehand where one compressor made it of numbers
    if sum(name in COMPRESSORS for name in names) > 1 or names.count(SHARDING) > 1:
        raise InputRefused(
            f"{file} compresses or shards its chunks twice: rewrite the array with one of each"
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
            if key != "attributes":  # user attributes, which zarr does not interpret
                yield from codec_names(value)


def open_group(path: Place) -> zarr.Group:
    for folder, name in itertools.product((path, *(path / name for name in AXES)), METADATA):
        refuse_special(folder / name)
    store: Any = Objects(path) if isinstance(path, ObjectPath) else path
    with refusing(f"{path} is not a Zarr group", "name the group that holds `image`"):
        # consolidated metadata are a second copy, whose codecs have not been checked
        return zarr.open_group(store, mode="r", use_consolidated=False)


def check_arrays(path: Place, group: zarr.Group, stored_bytes: int) -> tuple[int, ...]:
    """Check names, types, ranks, lengths and sizes of the arrays; return the shape of `image`."""
    with refusing(f"{path} holds an array that cannot be read"):
        members = {name: group[name] for name in AXES if name in group}
    arrays = {name: member for name, member in members.items() if isinstance(member, zarr.Array)}
    for name in (*REQUIRED, *members):
        if name not in arrays:
            raise InputRefused(f"{path} has no array `{name}`: a cutout store holds {', '.join(REQUIRED)}")
    for name, array in arrays.items():
        _check_type(path, name, array)
        if SHARDING in array_codecs(path / name) and not array.shards:
            raise InputRefused(f"{path}/{name} has codecs beside its shards: rewrite it with them inside")
        _check_size(path, name, array, stored_bytes)
    _check_shapes(path, {name: arrays[name].shape for name in AXES if name in arrays})
    return arrays["image"].shape


def check_further(path: Place, name: str, array: Any, n: int) -> None:
    """Refuse a further column, `columns/NAME`, that is not one number for each of n objects."""
    if not isinstance(array, zarr.Array) or array.shape != (n,) or array.dtype.kind not in "fiu":
        raise InputRefused(f"{path}/{name} is not a number for each of the {n} objects: write it as ({n},)")
    _check_size(path, name, array, array.nbytes)


def _check_type(path: Place, name: str, array: zarr.Array) -> None:
    """Refuse an array whose numbers are of another kind than its name says."""
    encoding = read_encoding(path, array)
    if name in WHOLE_NUMBERS:
        if array.dtype.kind not in ("iu" if name == "object_id" else "iub"):
            raise InputRefused(f"{path}/{name} is of type {array.dtype}: {WHOLE_NUMBERS[name]}")
        if encoding.is_packed:
            raise InputRefused(
                f"{path}/{name} is packed (scale_factor, add_offset): its numbers must be as they are"
            )
        return
    packed = name == "image" and encoding.is_packed and array.dtype.kind in "iu"
    if array.dtype.kind != "f" and not packed:
        raise InputRefused(f"{path}/{name} is of type {array.dtype}: it must be floating point")


def _check_shapes(path: Place, shapes: dict[str, tuple[int, ...]]) -> None:
    """Refuse arrays, that of images first, whose axes do not agree."""
    lengths: dict[str, tuple[int, str]] = {}
    for name, shape in shapes.items():
        axes = AXES[name]
        if len(shape) != len(axes):
            raise InputRefused(f"{path}/{name} has shape {shape}: it must have the axes ({', '.join(axes)})")
        for axis, length in zip(axes, shape, strict=True):
            first, where = lengths.setdefault(axis, (length, name))
            if length != first:
                raise InputRefused(
                    f"{path}/{name} has shape {shape}, where ({', '.join(axes)}) must agree: {axis} is "
                    f"{first} in {where}"
                )


def _check_size(path: Place, name: str, array: zarr.Array, stored_bytes: int) -> None:
    """Refuse an array that takes far more memory than its bytes on disk justify."""
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
            f"{path}/{name} has chunks of over 1 GiB: rewrite it with about {CHUNK} rows a chunk"
        )


def array_codecs(array: Place) -> list[str]:
    """Names of the codecs of an array, each once."""
    metadata = next(file for file in (array / "zarr.json", array / ".zarray") if file.exists())
    return list(dict.fromkeys(codec_names(read_json(metadata))))
