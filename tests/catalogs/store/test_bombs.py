"""Chunks that decode to far more than their shape holds, or are no files, take no memory and no time."""

import bz2
import gzip
import lzma
import os
import socket
import struct
import subprocess
import sys
import zlib

import numcodecs
import numpy as np
import pytest
import zarr

from catalogs.bands import HSC
from catalogs.errors import InputRefused
from catalogs.store.compression import COMPRESSORS, check_decoded_size
from catalogs.store.cutouts import open_store

ROWS = 32
ATTRIBUTES = {"bands": list(HSC), "pixel_scale": 0.168, "zero_point": 27.0}
PIECE = bytes(2**26)
"""64 MiB."""
MOST_RISE = 64e6
"""Bytes by which the memory of a process may rise while it refuses a chunk of a few megabytes."""


def zlib_bomb():
    compress = zlib.compressobj(1)
    return b"".join(compress.compress(PIECE) for _ in range(8)) + compress.flush()


def zstd_bomb():
    """A frame that does not tell its size: 8192 blocks, each a byte repeated 128 KiB times (RFC 8878)."""
    blocks = [struct.pack("<I", 2**17 << 3 | 1 << 1 | last)[:3] + b"\0" for last in [0] * 8191 + [1]]
    return b"\x28\xb5\x2f\xfd\x00\x58" + b"".join(blocks)


BOMBS = {  # 512 MB and more, in at most 2.3 MB
    "zlib": (numcodecs.Zlib(), zlib_bomb),
    "gzip": (zarr.codecs.GzipCodec(), lambda: 8 * gzip.compress(PIECE, 1)),
    "bz2": (numcodecs.BZ2(), lambda: 8 * bz2.compress(PIECE, 1)),
    "lzma": (numcodecs.LZMA(), lambda: 8 * lzma.compress(PIECE, preset=0)),
    "zstd": (zarr.codecs.ZstdCodec(), lambda: numcodecs.Zstd().encode(bytes(2**29))),
    "zstd without its size": (zarr.codecs.ZstdCodec(), zstd_bomb),
    "blosc": (zarr.codecs.BloscCodec(cname="zstd"), lambda: numcodecs.Blosc("zstd").encode(bytes(2**29))),
    "lz4": (numcodecs.LZ4(), lambda: numcodecs.LZ4().encode(bytes(2**29))),
}

SHARDED = ("gzip", "zstd", "zstd without its size", "blosc")
"""Those of Zarr v3; v2 has no shards."""


def write_store(path, compressors=None, shards=False, zarr_format=None, **options):
    """A store of another program: two chunks of 16 rows, in one shard or in none."""
    zarr_format = zarr_format or (2 if isinstance(compressors, numcodecs.abc.Codec) else 3)
    group = zarr.create_group(path, attributes=ATTRIBUTES, zarr_format=zarr_format)
    rng = np.random.default_rng(0)
    arrays = {"image": rng.normal(size=(ROWS, 5, 64, 64)).astype("f4"), "object_id": np.arange(ROWS)}
    arrays |= {"ra": rng.uniform(0, 1, ROWS), "dec": rng.uniform(0, 1, ROWS)}
    for name, values in arrays.items():
        inner = (ROWS // 2, *values.shape[1:])
        layout = {"shards": values.shape} if shards else {}
        group.create_array(name, data=values, chunks=inner, compressors=compressors, **layout, **options)
    return path


READ = """
import sys
from pathlib import Path
from catalogs.store.cutouts import open_store

def peak():
    return 1024 * int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

store = open_store(Path(sys.argv[1]))
before = peak()
image, damaged = store.images(0, 32)
print(peak() - before, *damaged.nonzero()[0])
"""


def rise_and_damage(path):
    """Rise of the peak memory of a process of its own that reads the images, and the damaged rows."""
    done = subprocess.run(
        [sys.executable, "-c", READ, path], check=True, capture_output=True, text=True, timeout=100
    )
    rise, *rows = map(int, done.stdout.split())
    return rise, rows


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shards"), [*((name, False) for name in BOMBS), *((name, True) for name in SHARDED)]
)
def test_a_bomb_is_damage_and_takes_no_memory(tmp_path, name, shards):
    codec, make = BOMBS[name]
    path, bomb = write_store(tmp_path / "a.zarr", codec, shards), bytes(make())
    if shards:
        file = path / "image/c/0/0/0/0"
        content = bytearray(file.read_bytes())
        index = bytearray(content[-36:-4])
        index[:16] = struct.pack("<QQ", len(content) - 36, len(bomb))
        checksum = bytes(numcodecs.CRC32C(location="end").encode(bytes(index)))[-4:]
        file.write_bytes(content[:-36] + bomb + index + checksum)
    else:
        file = path / ("image/0.0.0.0" if isinstance(codec, numcodecs.abc.Codec) else "image/c/0/0/0/0")
        assert file.exists()
        file.write_bytes(bomb)
    rise, rows = rise_and_damage(path)
    assert rows == list(range(16))
    assert rise < MOST_RISE


@pytest.mark.parametrize("name", sorted(COMPRESSORS))
@pytest.mark.parametrize("size", [1, 255, 300, 2**16 + 255, 2**16 + 256, 3 * 2**20])
def test_what_has_its_size_passes_to_the_byte(name, size):
    data = bytes(numcodecs.get_codec({"id": name}).encode(bytes(size)))
    check_decoded_size(name, data, size)
    with pytest.raises(ValueError, match="more than its"):
        check_decoded_size(name, data, size - 1)


def test_a_bomb_behind_a_filter_is_damage(tmp_path):
    """Zarr v2 takes a compressor for a filter, too."""
    path = write_store(tmp_path / "a.zarr", None, zarr_format=2, filters=numcodecs.Zlib())
    (path / "image/0.0.0.0").write_bytes(zlib_bomb())
    rise, rows = rise_and_damage(path)
    assert rows == list(range(16))
    assert rise < MOST_RISE


def test_a_sparse_file_of_gigabytes_is_no_chunk(tmp_path):
    path = write_store(tmp_path / "a.zarr")
    os.truncate(path / "image/c/0/0/0/0", 2**30)
    rise, rows = rise_and_damage(path)
    assert rows == list(range(16))
    assert rise < MOST_RISE


def test_chunks_compressed_twice_are_refused(tmp_path):
    path = write_store(tmp_path / "a.zarr", [zarr.codecs.GzipCodec(), zarr.codecs.ZstdCodec()])
    with pytest.raises(InputRefused, match="compresses or shards its chunks twice"):
        open_store(path)


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec")
def test_codecs_beside_shards_are_refused(tmp_path):
    sharding = zarr.codecs.ShardingCodec(chunk_shape=(16, 5, 64, 64), codecs=[zarr.codecs.BytesCodec()])
    path = write_store(tmp_path / "a.zarr")
    group = zarr.open_group(path)
    group.create_array(
        "image",
        shape=(ROWS, 5, 64, 64),
        chunks=(ROWS, 5, 64, 64),
        dtype="f4",
        serializer=sharding,
        compressors=zarr.codecs.GzipCodec(),
        overwrite=True,
    )
    with pytest.raises(InputRefused, match="codecs beside its shards"):
        open_store(path)


# ---------------------------------------------------------------- chunks that are missing in a shard


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_a_chunk_that_is_missing_in_a_shard_is_damage(tmp_path, location, endian):
    path = write_store(tmp_path / "a.zarr")
    group = zarr.open_group(path)
    image = np.asarray(group["image"][:])
    image[16:] = 0
    inner = [zarr.codecs.BytesCodec(), zarr.codecs.Crc32cCodec()]
    sharding = zarr.codecs.ShardingCodec(
        chunk_shape=(16, 5, 64, 64),
        codecs=inner,
        index_codecs=[zarr.codecs.BytesCodec(endian=endian), zarr.codecs.Crc32cCodec()],
        index_location=location,
    )
    for empty in (False, True):
        array = group.create_array(
            "image",
            shape=image.shape,
            chunks=image.shape,
            dtype="f4",
            serializer=sharding,
            compressors=None,
            overwrite=True,
            config={"write_empty_chunks": empty},
        )
        array[:] = image
        got, damaged = open_store(path).images(0, ROWS)
        assert np.flatnonzero(damaged).tolist() == ([] if empty else list(range(16, 32)))
        np.testing.assert_array_equal(got, image)


def test_an_id_that_is_missing_in_a_shard_is_refused(tmp_path):
    path = write_store(tmp_path / "a.zarr", shards=True)  # id 0 is the fill value, but not all of a chunk
    array = zarr.open_group(path)["object_id"]
    array[:16] = 0  # which zarr leaves out of the shard
    with pytest.raises(InputRefused, match="is missing in the shard object_id/c/0"):
        open_store(path).column("object_id")


# ---------------------------------------------------------------- what is no file


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device"])
@pytest.mark.parametrize("name", ["image/c/0/0/0/0", "zarr.json", "ra/zarr.json"])
def test_what_is_no_file_is_refused_in_a_store(tmp_path, monkeypatch, name, kind):
    path = write_store(tmp_path / "a.zarr")
    plant(path / name, kind, monkeypatch)
    with pytest.raises(InputRefused, match=rf"{name} is a {kind}"):
        open_store(path)


def plant(file, kind, monkeypatch):
    file.unlink(missing_ok=True)
    if kind == "FIFO":
        os.mkfifo(file)
    elif kind == "socket":
        monkeypatch.chdir(file.parent)  # the path of a socket has at most 107 bytes
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(file.name)
    else:
        try:
            os.mknod(file, 0o20600, os.makedev(1, 5))  # /dev/zero
        except PermissionError:
            pytest.skip("making a device needs root")
