"""A store of float16 pixels has half of the bytes, and none of its pixels is one that float16 cannot keep."""

import h5py
import numpy as np
import pytest

from catalogs.errors import InputRefused
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from catalogs.store.half_precision import widened
from mmae import cli

N = 130


def sky(n=N):
    return np.random.default_rng(0).normal(0, 0.05, (n, 2, 16, 16)).astype(np.float32)


def write(path, image, float16=True):
    ids = np.arange(len(image))
    columns = {"image": image, "object_id": ids, "ra": ids / 1.0, "dec": ids / 2.0}
    rows = lambda start, stop: {name: column[start:stop] for name, column in columns.items()}  # noqa: E731
    kept = {"bands": ["lsst_g", "lsst_r"], "size": 16, "float16": float16, "shard_rows": 256}
    cutouts.write(path, rows, n=len(image), survey="test", **kept)
    return open_store(path)


def test_all_numbers_of_float16_become_float32_as_numpy_has_them():
    half = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(2, -1, 64, 64)
    assert widened(half).tobytes() == half.astype(np.float32).tobytes()


def test_pixels_are_kept_to_a_thousandth_of_the_noise_in_half_of_the_bytes(tmp_path):
    image = sky()
    image[7, 1], image[8, 0, 3, 4], image[9, 0, 0, 0] = np.nan, 65504, -np.inf
    whole, half = write(tmp_path / "a.zarr", image, float16=False), write(tmp_path / "b.zarr", image)
    sizes = [(store.path / "image/c/0/0/0/0").stat().st_size for store in (whole, half)]
    assert sizes[1] / sizes[0] == pytest.approx(0.5, abs=0.01)
    read, damaged = half.images(0, N)
    assert read.dtype == np.float32
    assert not damaged.any()
    np.testing.assert_array_equal(read, image.astype(np.float16).astype(np.float32))
    known = np.isfinite(image)
    error = read[known] - image[known]
    assert 0 < error.std() < 0.001 * 0.05


def test_noise_near_zero_does_not_become_what_means_no_data(tmp_path):
    image = sky()
    image[3, 0, 5, 6], image[4, 1, 0, 0], image[5, 0, 0, 0] = 1e-9, -2.9e-8, 0
    read, _ = write(tmp_path / "a.zarr", image).images(0, N)
    assert (read[3, 0, 5, 6], read[4, 1, 0, 0]) == (2.0**-24, -(2.0**-24))
    np.testing.assert_array_equal(read == 0, image == 0)


def test_damage_of_a_float16_store_is_found_by_chunks(tmp_path):
    store = write(tmp_path / "a.zarr", sky())
    shard = store.path / "image/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[64 * 2 * 16 * 16 * 2 + 100] ^= 1  # in the second chunk
    shard.write_bytes(content)
    assert np.flatnonzero(open_store(store.path).images(0, N)[1]).tolist() == [*range(64, 128)]


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda image: image.__setitem__((5, 1, 2, 3), 65520), "row 5 in lsst_r is 65520"),
        (lambda image: image.__setitem__((129, 0, 2, 3), -1e9), "row 129 in lsst_g is -1e"),
        (lambda image: image.__imul__(1e-5), "loses the sky"),
    ],
)
def test_what_float16_cannot_keep_is_refused_and_nothing_is_left(tmp_path, spoil, sentence):
    image = sky()
    spoil(image)
    with pytest.raises(InputRefused, match=sentence):
        write(tmp_path / "a.zarr", image)
    assert not list(tmp_path.iterdir())
    assert write(tmp_path / "b.zarr", image, float16=False).n == N


def test_ingest_writes_float16_when_it_is_asked_to(tmp_path):
    with h5py.File(tmp_path / "in.hdf5", "w") as file:
        file["image"] = np.random.default_rng(1).normal(size=(3, 5, 64, 64)).astype(np.float32)
        file["object_id"], file["ra"], file["dec"] = np.arange(3), np.zeros(3), np.zeros(3)
    command = [str(tmp_path / "in.hdf5"), str(tmp_path / "out.zarr"), "--float16"]
    assert cli.run_command("ingest", command) == cli.OK
    assert open_store(tmp_path / "out.zarr").array("image").dtype == np.float16
