"""What is read without zarr is what zarr reads, and only where all is well."""

import shutil

import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec

from catalogs.errors import InputRefused
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from catalogs.store.own_layout import OwnLayout

N, SHARD_ROWS = 300, 128  # shards of rows 0-127, 128-255, 256-299; chunks of 64 rows, columns of 128
SPANS = [(0, N), (0, 64), (64, 256), (100, 270), (127, 129), (299, 300), (290, 999), (70, 70)]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    rng = np.random.default_rng(0)
    columns = {
        "image": rng.normal(size=(N, 2, 16, 16)).astype(np.float32),
        "object_id": rng.permutation(N) + 2**53,
        "ra": rng.uniform(0, 360, N),
        "dec": rng.uniform(-90, 90, N),
        "noise": rng.uniform(size=(N, 2)).astype(np.float32),
        "mask": rng.integers(0, 2, (N, 16, 16)).astype(np.uint8),
    }
    path = tmp_path_factory.mktemp("written") / "tile.zarr"
    cutouts.write(
        path,
        lambda start, stop: {name: column[start:stop] for name, column in columns.items()},
        n=N,
        survey="test",
        bands=["hsc_g", "hsc_r"],
        size=16,
        known=["noise", "mask"],
        shard_rows=SHARD_ROWS,
    )
    return path


@pytest.fixture
def store(written, tmp_path):
    """A copy that a test may damage."""
    for path in (written, written.with_name("tile.zarr.manifest.json")):
        copy = shutil.copytree if path.is_dir() else shutil.copy
        copy(path, tmp_path / path.name)
    return tmp_path / "tile.zarr"


@pytest.mark.parametrize("name", ["image", "object_id", "ra", "noise", "mask"])
@pytest.mark.parametrize(("start", "stop"), SPANS)
def test_every_array_of_ours_is_read_without_zarr_and_alike(written, name, start, stop):
    array = open_store(written).array(name)
    layout = OwnLayout.of(written, array)
    assert layout is not None
    rows, expected = layout.read(start, stop), array[start:stop]
    assert rows.dtype == expected.dtype
    assert rows.shape == expected.shape
    assert rows.tobytes() == expected.tobytes()


OTHERS = {
    "without crc32c": {"shards": (128, 2, 4), "compressors": None},
    "compressed": {"shards": (128, 2, 4), "compressors": [BloscCodec(cname="lz4"), Crc32cCodec()]},
    "big-endian": {"shards": (128, 2, 4), "serializer": BytesCodec(endian="big")},
    "chunks of half a row": {"shards": (128, 2, 4), "chunks": (64, 1, 4)},
    "shards of half a row": {"shards": (128, 1, 4), "chunks": (64, 1, 4)},
    "not in shards": {},
    "other names of files": {
        "shards": (128, 2, 4),
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "."}},
    },
    "of numbers that are none of ours": {"shards": (128, 2, 4), "dtype": "complex64"},
}


@pytest.mark.parametrize("options", OTHERS.values(), ids=OTHERS)
def test_any_other_layout_is_left_to_zarr(tmp_path, options):
    common = {"shape": (N, 2, 4), "chunks": (64, 2, 4), "dtype": "float32", "compressors": [Crc32cCodec()]}
    array = zarr.create_group(tmp_path / "a.zarr").create_array("image", **(common | options))
    assert OwnLayout.of(tmp_path / "a.zarr", array) is None
    ours = {"shards": (128, 2, 4)}
    array = zarr.create_group(tmp_path / "b.zarr").create_array("image", **(common | ours))
    assert OwnLayout.of(tmp_path / "b.zarr", array) is not None


def flip(where):
    def damage(shard):
        content = bytearray(shard.read_bytes())
        content[where] ^= 1
        shard.write_bytes(content)

    return damage


def cut(shard):
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size // 2)


DAMAGES = {
    "a pixel": flip(100),
    "the crc32c of a chunk": flip(-37),
    "an offset in the index": flip(-36),
    "the crc32c of the index": flip(-1),
    "cut short": cut,
    "of no length": lambda shard: shard.write_bytes(b""),
    "of three bytes": lambda shard: shard.write_bytes(b"abc"),
    "deleted": lambda shard: shard.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_whatever_is_damaged_is_not_read_here(store, damage):
    damage(store / "image/c/0/0/0/0")
    layout = OwnLayout.of(store, open_store(store).array("image"))
    assert layout.read(0, SHARD_ROWS) is None
    assert layout.read(SHARD_ROWS, N) is not None


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_damage_is_told_in_the_words_that_zarr_finds_for_it(store, damage, monkeypatch):
    """Also where no manifest says what is damaged: a store of another program may have our layout."""
    (store / "zarr.json").write_text((store / "zarr.json").read_text().replace("mmae-cutouts", "other"))
    store.with_name("tile.zarr.manifest.json").unlink()
    damage(store / "image/c/0/0/0/0")
    damage(store / "ra/c/0")

    def found():
        opened = open_store(store)
        image, damaged = opened.images(0, N)
        with pytest.raises(InputRefused) as refused:
            opened.column("ra")
        return image.tobytes(), damaged.tolist(), str(refused.value)

    here = found()
    assert any(here[1])
    monkeypatch.setattr(OwnLayout, "of", lambda store, array: None)
    assert here == found()
