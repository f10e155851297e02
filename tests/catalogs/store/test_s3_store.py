"""Cutout stores on S3: read as they are in a file system, and what becomes of them there is found."""

import numpy as np
import pytest
import zarr
from s3_server import upload

from catalogs.errors import InputRefused
from catalogs.store import cutouts
from catalogs.store.command import Info, Preview, Verify, info, preview, verify
from catalogs.store.cutouts import open_store
from catalogs.store.format import manifest_path

N = 200


@pytest.fixture
def local(tmp_path):
    """A store of four shards, with masks and a further column."""
    random = np.random.default_rng(1)
    rows = {
        "image": random.normal(size=(N, 5, 64, 64)).astype(np.float32),
        "object_id": np.arange(N),
        "ra": random.uniform(0, 360, N),
        "dec": random.uniform(-90, 90, N),
        "noise": random.uniform(1, 2, (N, 5)).astype(np.float32),
        "mask": (random.uniform(size=(N, 64, 64)) < 0.01).astype(np.uint8),
        "columns/mag": random.uniform(20, 25, N),
    }
    path = tmp_path / "tile.zarr"
    cutouts.write(
        path,
        lambda a, b: {name: rows[name][a:b] for name in rows},
        n=N,
        survey="s",
        known=("noise", "mask"),
        extra=("mag",),
        shard_rows=64,
    )
    return path


def foreign(path, **options):
    """A store of another program: without shards, its chunks compressed."""
    random = np.random.default_rng(2)
    group = zarr.create_group(path, attributes={"bands": list("grizy"), "survey": "hsc"}, **options)
    group.attrs.update({"pixel_scale": 0.168, "zero_point": 27.0})
    group.create_array(
        "image", data=random.normal(size=(30, 5, 64, 64)).astype(np.float32), chunks=(7, 5, 64, 64)
    )
    group.create_array("object_id", data=np.arange(30), chunks=(30,))
    for name in ("ra", "dec"):
        group.create_array(name, data=random.uniform(0, 90, 30), chunks=(11,))
    return path


def equal(one, other):
    """Whether two stores hold the same, read in blocks that begin and end anywhere."""
    assert (one.n, one.bands, one.survey, one.fingerprint) == (
        other.n,
        other.bands,
        other.survey,
        other.fingerprint,
    )
    for start, stop in ((0, one.n), (3, 29), (one.n, one.n)):
        for here, there in zip(one.images(start, stop), other.images(start, stop), strict=True):
            np.testing.assert_array_equal(here, there)
        for name in ("object_id", "ra", "dec", *("noise", "mask")[: 2 * one.has("mask")], *one.extra):
            np.testing.assert_array_equal(one.column(name, start, stop), other.column(name, start, stop))
    return True


def test_a_store_is_the_same_on_s3(local, bucket):
    assert equal(open_store(local), open_store(upload(local, bucket / "my tiles")))


@pytest.mark.parametrize("version", [2, 3])
def test_a_store_of_another_program_is_the_same_on_s3(tmp_path, bucket, version):
    path = foreign(tmp_path / "other.zarr", zarr_format=version)
    assert equal(open_store(path), open_store(upload(path, bucket)))


def test_a_block_is_fetched_in_few_requests(local, bucket, proxy):
    """As many as it has chunks, and those of the first time: the listing, metadata, sums of the shards."""
    store = open_store(upload(local, bucket))
    store.images(0, 64)
    del proxy.seen[:]
    store.images(0, 64)
    assert len(proxy.seen) == 2  # image and mask


def test_commands_read_it(local, bucket, monkeypatch, capsys, tmp_path):
    there = upload(local, bucket)
    monkeypatch.chdir(tmp_path)
    info(Info(there))
    verify(Verify(there))
    preview(Preview(there, count=2))
    assert (tmp_path / "tile.zarr.preview.png").is_file()
    assert "every file is what its manifest says" in capsys.readouterr().out


def test_what_was_changed_on_s3_is_found(local, bucket, capsys):
    there = upload(local, bucket)
    store = open_store(there)
    fingerprint = store.fingerprint
    assert store.is_unchanged(fingerprint)
    shard = there / "image/c/1/0/0/0"
    whole = shard.read_bytes()
    shard.unlink()
    shard.create(whole[:1000] + bytes([whole[1000] ^ 1]) + whole[1001:])
    (there / "noise/c/0/0").unlink()
    (there / "stray").create(b"x")
    assert not store.is_unchanged(fingerprint)
    with pytest.raises(InputRefused, match="is damaged, in 3 files"):
        verify(Verify(there))
    said = capsys.readouterr().out
    assert "image/c/1/0/0/0: has other content than was written" in said
    assert "noise/c/0/0: is missing" in said
    assert "stray: is not of this store" in said
    again = open_store(there)
    assert again.images(64, 128)[1].all()
    assert not again.images(0, 64)[1].any()
    with pytest.raises(InputRefused, match=r"noise/c/0/0 is damaged"):
        again.column("noise", 0, 1)


def test_an_upload_without_its_manifest_is_refused(local, bucket):
    there = upload(local, bucket)
    manifest_path(there).unlink()
    with pytest.raises(
        InputRefused, match=r"no manifest beside it \(tile\.zarr\.manifest\.json\): copy that"
    ):
        open_store(there)
