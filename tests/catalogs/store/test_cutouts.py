"""A cutout store returns what was written and marks lost rows; an ambiguous store is refused."""

import json
import os
import shutil

import numcodecs
import numpy as np
import pytest
import zarr

from catalogs.bands import HSC
from catalogs.errors import InputRefused, UsageError
from catalogs.products.model_input import ModelInput
from catalogs.store import cutouts
from catalogs.store import format as cutout_format
from catalogs.store.cutouts import open_store, pad
from catalogs.store.format import ImageMetadata
from catalogs.store.manifest import altered_files
from mmae import cli

N, SHARD_ROWS = 300, 128  # shards of rows 0-127, 128-255, 256-299
ATTRIBUTES = {"bands": list(HSC), "pixel_scale": 0.168, "zero_point": 27.0}


def draw(n, size=64, bands=5):
    rng = np.random.default_rng(n)
    return {
        "image": rng.normal(size=(n, bands, size, size)).astype(np.float32),
        "object_id": rng.permutation(n) + 2**53,  # beyond the integers that float64 holds
        "ra": rng.uniform(0, 360, n),
        "dec": rng.uniform(-90, 90, n),
    }


def rows_of(data):
    return lambda start, stop: {name: values[start:stop] for name, values in data.items()}


@pytest.fixture(scope="module")
def data():
    return draw(N)


@pytest.fixture(scope="module")
def written(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "tile.zarr"
    cutouts.write(path, rows_of(data), n=N, survey="test", shard_rows=SHARD_ROWS)
    return path


# ---------------------------------------------------------------- our own stores


def test_a_store_gives_back_what_was_written(written, data):
    store = open_store(written)
    image, damaged = store.images(0, N)
    assert not damaged.any()
    assert image.tobytes() == data["image"].tobytes()
    for name in ("object_id", "ra", "dec"):
        assert store.column(name).tobytes() == data[name].tobytes()
    assert (store.n, store.survey, store.pixel_scale, store.zero_point) == (N, "test", 0.168, 27.0)
    assert not store.has_spectra
    assert store.size == 64
    assert not altered_files(written)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (100, 270), (127, 129), (299, 300), (64, 64)])
def test_any_range_of_rows_is_the_same_rows(written, data, start, stop):
    store = open_store(written)
    np.testing.assert_array_equal(store.images(start, stop)[0], data["image"][start:stop])
    np.testing.assert_array_equal(store.column("object_id", start, stop), data["object_id"][start:stop])


def test_a_training_store_gives_back_spectra_and_redshifts(tmp_path):
    data, wave = draw(70), np.linspace(3600, 9824, 50)
    rng = np.random.default_rng(0)
    data |= {name: rng.normal(size=(70, 50)).astype(np.float32) for name in ("flux", "ivar")}
    data["redshift"] = rng.uniform(0, 4, 70)
    cutouts.write(tmp_path / "train.zarr", rows_of(data), n=70, survey="test", wave=wave, shard_rows=64)
    store = open_store(tmp_path / "train.zarr")
    assert store.has_spectra
    np.testing.assert_array_equal(store.wave, wave)
    for name in ("flux", "ivar", "redshift"):
        np.testing.assert_array_equal(store.column(name), data[name])


def test_what_is_known_of_objects_is_kept_beside_their_images(tmp_path):
    data, rng, path = draw(70), np.random.default_rng(1), tmp_path / "a.zarr"
    data["mask"] = rng.random((70, 64, 64)) < 0.1
    data |= {name: rng.uniform(1, 2, (70, 5)).astype(np.float32) for name in ("noise", "psf_fwhm")}
    with pytest.raises(ValueError, match="which a store does not hold"):
        cutouts.write(path, rows_of(data), n=70, survey="test", shard_rows=64)
    known = ("mask", "noise", "psf_fwhm")
    cutouts.write(path, rows_of(data), n=70, survey="test", shard_rows=64, known=known)
    store = open_store(path)
    for name in known:
        np.testing.assert_array_equal(store.column(name), data[name])
    assert not store.has("ebv")
    image, _ = store.images(60, 70)
    expected = np.where(data["mask"][60:, None], np.nan, data["image"][60:])
    np.testing.assert_array_equal(image, expected)
    assert not altered_files(path)


def test_a_store_of_no_objects_is_a_store(tmp_path):
    path = tmp_path / "empty.zarr"
    cutouts.write(path, rows_of(draw(0)), n=0, survey="test")
    store = open_store(path)
    assert store.n == 0
    assert store.images(0, 0)[0].shape == (0, 5, 64, 64)
    assert len(store.column("object_id")) == 0
    assert not altered_files(path)


def test_a_chunk_of_zeros_is_on_disk_and_is_no_damage(tmp_path):
    data = draw(64)
    data["image"][:] = 0
    cutouts.write(tmp_path / "a.zarr", rows_of(data), n=64, survey="test", shard_rows=64)
    image, damaged = open_store(tmp_path / "a.zarr").images(0, 64)
    assert not image.any()
    assert not damaged.any()


# ---------------------------------------------------------------- damage


def flip(offset):
    def damage(shard):
        content = bytearray(shard.read_bytes())
        content[offset] ^= 1
        shard.write_bytes(content)

    return damage


def truncate(shard):
    os.truncate(shard, shard.stat().st_size // 2)


ALL = range(128, 256)
DAMAGES = {
    "deleted": (lambda shard: shard.unlink(), ALL),
    "of no length": (lambda shard: os.truncate(shard, 0), ALL),
    "of zeros": (lambda shard: shard.write_bytes(bytes(shard.stat().st_size)), ALL),
    "truncated": (truncate, ALL),
    "last byte cut off": (lambda shard: os.truncate(shard, shard.stat().st_size - 1), ALL),
    "replaced by another shard": (lambda shard: shutil.copy(shard.parents[3] / "0/0/0/0", shard), ALL),
    "a bit flipped in the first chunk": (flip(1000), range(128, 192)),
    "a bit flipped in the second chunk": (flip(64 * 5 * 64 * 64 * 4 + 1000), range(192, 256)),
    "a bit flipped in the index": (flip(-10), ALL),
    "a bit flipped in the crc32c of the first chunk": (flip(64 * 5 * 64 * 64 * 4 + 1), range(128, 192)),
}


@pytest.mark.parametrize("step", [N, 50], ids=["in one go", "by 50 rows"])
@pytest.mark.parametrize(("damage", "lost"), DAMAGES.values(), ids=DAMAGES)
def test_exactly_the_rows_that_are_lost_are_marked(store, data, damage, lost, step):
    damage(store / "image/c/1/0/0/0")
    assert list(altered_files(store)) == ["image/c/1/0/0/0"]
    opened = open_store(store)
    blocks = [opened.images(start, min(N, start + step)) for start in range(0, N, step)]
    image, damaged = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
    assert np.flatnonzero(damaged).tolist() == list(lost)
    np.testing.assert_array_equal(image[~damaged], data["image"][~damaged])
    assert not image[damaged].any()


@pytest.mark.parametrize("damage", [DAMAGES[name][0] for name in ("deleted", "of no length", "truncated")])
@pytest.mark.parametrize("name", ["object_id", "ra"])
def test_ids_and_positions_are_never_guessed(store, name, damage):
    damage(store / name / "c/1")
    opened = open_store(store)
    assert len(opened.column(name, 0, 128)) == 128
    with pytest.raises(InputRefused, match=f"{name}/c/1 is damaged"):
        opened.column(name, 100, 200)


def test_an_exchanged_shard_of_ids_is_detected(store):
    """A shard that is intact in itself and of the right length."""
    shutil.copy(store / "object_id/c/0", store / "object_id/c/1")
    with pytest.raises(InputRefused, match="object_id/c/1 is damaged"):
        open_store(store).column("object_id")


def test_only_shards_have_chunk_sums(written):
    manifest = json.loads(cutout_format.manifest_path(written).read_text())["files"]
    assert {name for name, entry in manifest.items() if "chunk_sums" not in entry} == {
        name for name in manifest if name.endswith("zarr.json")
    }
    sums = [entry["chunk_sums"] for entry in manifest.values() if "chunk_sums" in entry]
    assert len(sums) == 4 * 3 == len(set(sums))


def edit(file, **changes):
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


@pytest.mark.parametrize("name", ["zarr.json", "image/zarr.json", "object_id/zarr.json"])
def test_edited_metadata_are_refused(store, name):
    edit(store / name, attributes={**ATTRIBUTES, "survey": "another"})
    with pytest.raises(InputRefused, match=f"{name} is not what the manifest says"):
        open_store(store)


def test_our_own_store_needs_its_manifest(store):
    cutout_format.manifest_path(store).unlink()
    with pytest.raises(InputRefused, match="has no manifest beside it"):
        open_store(store)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"files": 5}', '{"files": {"a": 5}}', '{"files": [1]}'])
def test_a_malformed_manifest_is_refused(store, content):
    cutout_format.manifest_path(store).write_text(content)
    with pytest.raises(InputRefused, match="is not a manifest"):
        open_store(store)


def test_a_newer_version_of_the_store_is_refused(store):
    cutout_format.manifest_path(store).write_text('{"files": {}}')
    edit(store / "zarr.json", attributes={**ATTRIBUTES, "format": cutout_format.FORMAT, "version": 2})
    with pytest.raises(InputRefused, match="version 2"):
        open_store(store)


# ---------------------------------------------------------------- stores of other programs

FEW = 20


@pytest.fixture(scope="module")
def few():
    return draw(FEW)


def write_other(path, data, attributes=ATTRIBUTES, zarr_format=3, rows_per_chunk=7, **options):
    """Write a store as another program may lay it out: no manifest, no format name."""
    group = zarr.create_group(path, attributes=attributes, zarr_format=zarr_format)
    for name, values in data.items():
        chunks = (rows_per_chunk, *values.shape[1:])
        group.create_array(name, data=values, chunks=chunks, **options)
    return path


def as_type(kind):
    return lambda data: data | {"image": data["image"].astype(kind)}


LAYOUTS = {
    "v3": {},
    "v2": {"zarr_format": 2},
    "v2, zlib and shuffle": {
        "zarr_format": 2,
        "filters": numcodecs.Shuffle(),
        "compressors": numcodecs.Zlib(),
    },
    "uncompressed": {"compressors": None},
    "chunks of 1 row": {"rows_per_chunk": 1},
    "chunks of 100 rows": {"rows_per_chunk": 100},
}


@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", ">f8"])
@pytest.mark.parametrize("options", LAYOUTS.values(), ids=LAYOUTS)
def test_other_layouts_give_the_same_pixels(tmp_path, few, options, kind):
    data = few | {
        name: few[name].astype(few[name].dtype.newbyteorder(kind[0])) for name in ("ra", "object_id")
    }
    store = open_store(write_other(tmp_path / "a.zarr", as_type(kind)(data), **options))
    image, damaged = store.images(0, FEW)
    assert image.tobytes() == few["image"].tobytes()
    assert image.dtype.isnative
    assert not damaged.any()
    for name in ("object_id", "ra", "dec"):
        assert store.column(name).tobytes() == few[name].tobytes()


def test_consolidated_metadata_are_ignored(tmp_path, few):
    path = write_other(tmp_path / "a.zarr", few, zarr_format=2)
    zarr.consolidate_metadata(path)
    second_copy = json.loads((path / ".zmetadata").read_text())["metadata"]
    second_copy["image/.zarray"] |= {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 5}]}
    edit(path / ".zmetadata", metadata=second_copy)
    np.testing.assert_array_equal(open_store(path).images(0, FEW)[0], few["image"])


def test_half_precision_is_read_as_it_is(tmp_path, few):
    store = open_store(write_other(tmp_path / "a.zarr", as_type(np.float16)(few)))
    np.testing.assert_array_equal(store.images(0, FEW)[0], few["image"].astype(np.float16).astype(np.float32))


def test_values_beyond_float32_become_infinite(tmp_path, few):
    data = as_type(np.float64)(few)
    data["image"][3, 2, 1, 0] = 1e300
    image, damaged = open_store(write_other(tmp_path / "a.zarr", data)).images(0, FEW)
    assert np.argwhere(np.isinf(image)).tolist() == [[3, 2, 1, 0]]
    assert not damaged.any()


def test_bands_are_taken_by_name(tmp_path, few):
    order = ["y", "u", "g", "z", "i", "r"]
    planes = {band: few["image"][:, k] for k, band in enumerate("grizy")} | {
        "u": np.full((FEW, 64, 64), 9, "f4")
    }
    data = few | {"image": np.stack([planes[band] for band in order], axis=1)}
    store = open_store(write_other(tmp_path / "a.zarr", data, ATTRIBUTES | {"bands": order}))
    image, damaged = store.images(0, FEW, ("g", "r", "i", "z", "y", "w"))
    np.testing.assert_array_equal(image[:, :5], few["image"])
    assert np.isnan(image[:, 5]).all()  # absent is not zero
    assert not damaged.any()
    np.testing.assert_array_equal(store.images(0, FEW)[0], data["image"])


def test_bands_have_the_names_of_the_table(tmp_path, few):
    """Whatever the store calls them, alone or beside its survey; and what the user says goes first."""
    by_letter = ATTRIBUTES | {"bands": list("grizy")}
    called = ["HSC-G", "HSC-R2", "hsc2017-i2", "hsc_z", "HSC-Y"]
    path = write_other(tmp_path / "a.zarr", few, ATTRIBUTES | {"bands": called})
    assert open_store(path).bands == HSC
    path = write_other(tmp_path / "b.zarr", few, by_letter | {"survey": "HSC PDR2"})
    assert open_store(path).bands == HSC
    path = write_other(tmp_path / "c.zarr", few, by_letter | {"survey": "Rubin DP1"})
    renamed = open_store(path, ImageMetadata(bands=HSC))
    assert (renamed.bands, renamed.own_bands) == (HSC, ("lsst_g", "lsst_r", "lsst_i", "lsst_z", "lsst_y"))


def test_larger_images_are_cut_about_their_centre(tmp_path):
    data = draw(3, size=127)
    store = open_store(write_other(tmp_path / "a.zarr", data))
    image = store.images(0, 3)[0]
    np.testing.assert_array_equal(image[..., 32, 32], data["image"][..., 63, 63])
    np.testing.assert_array_equal(image, data["image"][..., 31:95, 31:95])
    assert store.size == 127


@pytest.mark.parametrize(("size", "first"), [(84, 21), (126, 0), (127, 0), (136, 0)])
def test_as_many_pixels_are_cut_as_are_asked_for(tmp_path, size, first):
    data = draw(3, size=127)
    store = open_store(write_other(tmp_path / "a.zarr", data))
    image, _ = store.images(0, 3, size=size)
    pixels = slice(first, first + size)
    np.testing.assert_array_equal(image, data["image"][..., pixels, pixels])
    assert (image[..., image.shape[-1] // 2, 0] == data["image"][..., 63, first]).all()


def test_larger_cuts_of_a_damaged_store_are_salvaged(tmp_path):
    data = draw(N, size=80)
    path = tmp_path / "a.zarr"
    cutouts.write(path, rows_of(data), n=N, survey="test", shard_rows=SHARD_ROWS, size=80)
    flip(1000)(path / "image/c/1/0/0/0")
    image, damaged = open_store(path).images(0, N, size=80)
    assert damaged.nonzero()[0].tolist() == list(range(128, 192))
    np.testing.assert_array_equal(image[~damaged], data["image"][~damaged])


@pytest.mark.parametrize("pixel_scale", [0.168, 0.16805, 0.2, 0.084, 0.336])
def test_the_ratio_of_pixel_scales(tmp_path, few, pixel_scale):
    store = open_store(write_other(tmp_path / "a.zarr", few))
    ratio = store.pixel_ratio(pixel_scale)
    assert ratio == (1 if abs(pixel_scale / 0.168 - 1) < 1e-3 else pixel_scale / 0.168)


@pytest.mark.parametrize("pixel_scale", [0.0839, 0.337, 1e300])
def test_a_pixel_scale_beyond_half_and_twice_is_refused(tmp_path, few, pixel_scale):
    store = open_store(write_other(tmp_path / "a.zarr", few))
    with pytest.raises(InputRefused) as refusal:
        store.pixel_ratio(pixel_scale)
    assert f"pixel_scale 0.168 arcsec a pixel, the model was trained at {pixel_scale}:" in str(refusal.value)


def test_smaller_images_keep_their_size_and_can_be_padded(tmp_path):
    data = draw(3, size=48)
    store = open_store(write_other(tmp_path / "a.zarr", data))
    image = store.images(0, 3)[0]
    assert store.size == 48
    np.testing.assert_array_equal(image, data["image"])
    padded = pad(image)
    np.testing.assert_array_equal(padded[..., 8:56, 8:56], data["image"])
    assert padded.shape == (3, 5, 64, 64)
    assert np.count_nonzero(padded) == np.count_nonzero(data["image"])


def test_the_user_may_state_what_a_store_lacks(tmp_path, few):
    path = write_other(tmp_path / "a.zarr", few, attributes={})
    store = open_store(path, ImageMetadata(HSC, 0.2, 31.4))
    assert (store.pixel_scale, store.zero_point) == (0.2, 31.4)
    np.testing.assert_array_equal(store.images(0, FEW)[0], few["image"])


def test_the_fingerprint_is_of_the_content(tmp_path, few):
    path = write_other(tmp_path / "a.zarr", few)
    store = open_store(path)
    before = store.fingerprint
    staged = shutil.copytree(path, tmp_path / "staged.zarr", copy_function=shutil.copy)  # with new times
    copy = open_store(staged)
    assert copy.stamp != store.stamp
    assert copy.fingerprint == before
    zarr.open_group(path)["image"][0, 0, 0, 0] = 5
    assert open_store(path).fingerprint != before


@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "of others"])
def test_a_store_that_changes_while_it_is_read_is_noticed(written, tmp_path, few, foreign):
    path = tmp_path / "a.zarr"
    if foreign:
        write_other(path, few)
    else:
        shutil.copytree(written, path)
        shutil.copy(cutout_format.manifest_path(written), tmp_path / "a.zarr.manifest.json")
    store = open_store(path)
    fingerprint = store.fingerprint
    file = next(file for file in sorted((path / "image" / "c").rglob("*")) if file.is_file())
    content = file.read_bytes()
    file.write_bytes(content)  # the same again: only its time is new
    assert store.is_unchanged(fingerprint)
    file.write_bytes(content[:1000] + bytes([content[1000] ^ 1]) + content[1001:])
    assert not store.is_unchanged(fingerprint)
    file.unlink()
    assert not store.is_unchanged(fingerprint)


UNDECODABLE = {
    "gzip": zarr.codecs.GzipCodec(),
    "zstd": zarr.codecs.ZstdCodec(),
    "blosc": zarr.codecs.BloscCodec(),
    "nothing": None,
    **{
        codec.codec_id: codec
        for codec in (numcodecs.Zlib(), numcodecs.BZ2(), numcodecs.LZMA(), numcodecs.LZ4(), numcodecs.Blosc())
    },
}


def write_and_truncate(path, few, name, codec):
    """Write a store and cut off the end of its chunk with rows 7 to 13."""
    v2 = isinstance(codec, numcodecs.abc.Codec)
    write_other(path, few, zarr_format=2 if v2 else 3, compressors=codec)
    position = ["1", *["0"] * (few[name].ndim - 1)]
    chunk = path / name / (".".join(position) if v2 else "/".join(["c", *position]))
    os.truncate(chunk, chunk.stat().st_size - 21)
    return open_store(path)


@pytest.mark.parametrize("codec", UNDECODABLE.values(), ids=UNDECODABLE)
def test_a_truncated_chunk_without_a_manifest_is_marked(tmp_path, few, codec):
    image, damaged = write_and_truncate(tmp_path / "a.zarr", few, "image", codec).images(0, FEW)
    assert np.flatnonzero(damaged).tolist() == list(range(7, 14))
    np.testing.assert_array_equal(image[~damaged], few["image"][~damaged])


@pytest.mark.parametrize("codec", UNDECODABLE.values(), ids=UNDECODABLE)
def test_truncated_positions_without_a_manifest_are_refused(tmp_path, few, codec):
    store = write_and_truncate(tmp_path / "a.zarr", few, "ra", codec)
    with pytest.raises(InputRefused, match="ra does not decode"):
        store.column("ra")


# ---------------------------------------------------------------- what is refused


def with_arrays(**changes):
    """Replace arrays of a good store; None removes one."""

    def make(path, few):
        data = {name: values for name, values in (few | changes).items() if values is not None}
        write_other(path, data, rows_per_chunk=FEW)

    return make


def with_attributes(**changes):
    """Replace attributes of a good store; None removes one."""

    def make(path, few):
        attributes = {name: value for name, value in (ATTRIBUTES | changes).items() if value is not None}
        write_other(path, few, attributes)

    return make


def with_metadata(file, zarr_format=3, **changes):
    """Edit a metadata file by hand: zarr itself would not write it."""

    def make(path, few):
        write_other(path, few, zarr_format=zarr_format)
        edit(path / file, **changes)

    return make


def with_link(name, target):
    def make(path, few):
        write_other(path, few)
        (path / name).symlink_to(target)

    return make


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
ONES = np.ones(FEW)
REFUSED = {
    "an empty directory": (lambda path, few: path.mkdir(), "is not a Zarr group"),
    "a directory of something else": (
        lambda path, few: (path.mkdir(), (path / "notes.txt").write_text("hello")),
        "is not a Zarr group",
    ),
    "an array in place of a group": (
        lambda path, few: zarr.create_array(path, data=ONES),
        "is not a Zarr group",
    ),
    "metadata that are not JSON": (
        lambda path, few: (path.mkdir(), (path / "zarr.json").write_text("{")),
        "is not JSON",
    ),
    "no images": (with_arrays(image=None), "no array `image`"),
    "no ids": (with_arrays(object_id=None), "no array `object_id`"),
    "no positions": (with_arrays(dec=None), "no array `dec`"),
    "a group for images": (
        lambda path, few: (with_arrays(image=None)(path, few), zarr.open_group(path).create_group("image")),
        "no array `image`",
    ),
    "images of rank 3": (
        with_arrays(image=np.ones((FEW, 64, 64), "f4")),
        r"the axes \(N, bands, size, size\)",
    ),
    "oblong images": (with_arrays(image=np.ones((FEW, 5, 64, 32), "f4")), "size, size"),
    "ids of rank 2": (with_arrays(object_id=np.ones((FEW, 2), "i8")), "object_id has shape"),
    "a scalar position": (
        with_metadata(
            "ra/zarr.json", shape=[], chunk_grid={"name": "regular", "configuration": {"chunk_shape": []}}
        ),
        "ra",
    ),
    "complex images": (with_arrays(image=np.ones((FEW, 5, 64, 64), "c8")), "complex64"),
    "integer images": (with_arrays(image=np.ones((FEW, 5, 64, 64), "i4")), "int32"),
    "objects for images": (
        with_metadata("image/.zarray", 2, dtype="|O", filters=[{"id": "vlen-utf8"}]),
        "vlen-utf8",
    ),
    "ids of text": (with_arrays(object_id=np.full(FEW, "id-1", "U4")), "ids must be integers"),
    "ids of floats": (with_arrays(object_id=ONES), "ids must be integers"),
    "objects for ids": (
        with_metadata("object_id/.zarray", 2, dtype="|O", filters=[{"id": "pickle", "protocol": 5}]),
        "codec 'pickle'",
    ),
    "more ids than images": (with_arrays(object_id=np.arange(FEW + 1)), "object_id has shape"),
    "fewer positions than images": (with_arrays(ra=np.ones(FEW - 1)), "N is 20 in image"),
    "fluxes and wavelengths apart": (
        with_arrays(flux=np.ones((FEW, 9)), ivar=np.ones((FEW, 9)), redshift=ONES, wave=np.ones(8)),
        "P is 8 in wave",
    ),
    "noise of too few bands": (with_arrays(noise=np.ones((FEW, 4), "f4")), "bands is 5 in image"),
    "seeing of all objects together": (with_arrays(psf_fwhm=np.ones(5, "f4")), r"the axes \(N, bands\)"),
    "extinction of other objects": (with_arrays(ebv=np.ones(FEW - 1)), "N is 20 in image"),
    "a mask for each band": (
        with_arrays(mask=np.ones((FEW, 5, 64, 64), "u1")),
        r"the axes \(N, size, size\)",
    ),
    "a mask of weights": (with_arrays(mask=np.ones((FEW, 64, 64), "f4")), "0 where a pixel is good"),
    "a band under two names": (with_attributes(bands=["hsc_g", "HSC-G", "i", "z", "y"]), "each once"),
    "a band twice": (with_attributes(bands=["g", "r", "i", "z", "z"]), "each once"),
    "fewer names than bands": (with_attributes(bands=["g", "r", "i", "z"]), "for 5 planes"),
    "bands without names": (with_attributes(bands=None), "pass --bands"),
    "bands in one word": (with_attributes(bands="grizy"), "list of names"),
    "bands by number": (with_attributes(bands=[1, 2, 3, 4, 5]), "list of names"),
    "no pixel scale": (with_attributes(pixel_scale=None), "pass --pixel-scale"),
    "another frame": (with_attributes(frame="galactic"), "has ra and dec of the frame 'galactic'"),
    "no zero point": (with_attributes(zero_point=None), "pass --zero-point"),
    "a pixel scale of NaN": (with_attributes(pixel_scale=float("nan")), "not a positive number"),
    "a zero point in words": (with_attributes(zero_point="27"), "not a positive number"),
    "a pixel scale that is true": (with_attributes(pixel_scale=True), "not a positive number"),
    "an unknown codec": (
        with_metadata("image/zarr.json", codecs=[BYTES, {"name": "brandnew"}]),
        "codec 'brandnew'",
    ),
    "an unknown codec in a shard": (
        with_metadata(
            "image/zarr.json",
            codecs=[{"name": "sharding_indexed", "configuration": {"codecs": [BYTES, {"name": "brandnew"}]}}],
        ),
        "codec 'brandnew'",
    ),
    "Pickle behind a benign filter": (
        with_metadata(
            "image/.zarray", 2, filters=[{"id": "delta", "dtype": "<f4"}, {"id": "pickle", "protocol": 5}]
        ),
        "codec 'pickle'",
    ),
    "Pickle that says it is zstd": (
        with_metadata("image/.zarray", 2, filters=[{"name": "zstd", "id": "pickle"}]),
        "codec 'pickle'",
    ),
    "a link that leads out": (with_link("escape", "/etc/hostname"), "leads out of the store"),
    "a folder that leads out": (with_link("folder", ".."), "leads out of the store"),
    "a link that leads to itself": (with_link("loop", "loop"), "or nowhere"),
    "a link that leads nowhere": (with_link("dangling", "gone"), "or nowhere"),
    "a petabyte of images": (
        with_metadata("image/zarr.json", shape=[10**12, 5, 64, 64]),
        r"claims 8\.19e\+16",
    ),
    "chunks of a petabyte": (
        with_metadata(
            "image/zarr.json",
            chunk_grid={"name": "regular", "configuration": {"chunk_shape": [10**12, 5, 64, 64]}},
        ),
        "1 GiB",
    ),
    "chunks of nothing": (
        with_metadata(
            "image/zarr.json",
            chunk_grid={"name": "regular", "configuration": {"chunk_shape": [0, 5, 64, 64]}},
        ),
        "chunks of shape",
    ),
    "a shape below zero": (with_metadata("image/zarr.json", shape=[-1, 5, 64, 64]), "cannot be read"),
    "a type nobody knows": (with_metadata("image/zarr.json", data_type="float31"), "cannot be read"),
    "codecs of the wrong kind": (with_metadata("image/zarr.json", codecs=5), "codec '5'"),
}


@pytest.mark.parametrize(("make", "sentence"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_a_doubtful_store_is_refused_with_a_sentence(tmp_path, capsys, few, make, sentence):
    path = tmp_path / "a.zarr"
    make(path, few)
    with pytest.raises(InputRefused, match=sentence) as refusal:
        open_store(path)
    assert str(path) in str(refusal.value)
    assert cli.run_command("store", ["info", str(path)]) == cli.REFUSED
    assert capsys.readouterr() == ("", f"mmae store: {refusal.value}\n")


CONTRADICTIONS = {
    "--pixel-scale": ImageMetadata(pixel_scale=0.2),
    "--zero-point": ImageMetadata(zero_point=31.4),
}


@pytest.mark.parametrize(("flag", "metadata"), CONTRADICTIONS.items(), ids=CONTRADICTIONS)
def test_the_user_may_not_contradict_the_store(written, flag, metadata):
    with pytest.raises(InputRefused, match=flag):
        open_store(written, metadata)
    assert open_store(written, ImageMetadata(HSC, 0.168, 27.0)).n == N


def test_maggies_have_a_zero_point_of_0(tmp_path, few):
    path = write_other(tmp_path / "a.zarr", few, ATTRIBUTES | {"zero_point": 0})
    assert open_store(path, ImageMetadata(zero_point=0.0)).zero_point == 0
    for zero_point in (0.0, 22.5, 31.4):
        ModelInput(HSC, zero_point, 0.168, 2).check(open_store(path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("pixel_scale", value) for value in (float("nan"), float("inf"), 0.0, -1.0)),
        *(("zero_point", value) for value in (float("nan"), float("inf"), -1.0)),
    ],
)
def test_a_flag_that_is_no_scale_is_a_usage_error(name, value):
    with pytest.raises(UsageError, match="must be a positive number"):
        ImageMetadata(**{name: value})


@pytest.mark.parametrize("kind", ["nothing", "a file", "a link to itself"])
def test_a_path_to_no_store_is_a_usage_error(tmp_path, kind):
    path = tmp_path / "a.zarr"
    if kind == "a file":
        path.touch()
    elif kind == "a link to itself":
        path.symlink_to(path)
    with pytest.raises(UsageError, match="is a file" if kind == "a file" else "does not exist"):
        open_store(path)
