"""Stores as people write them: the model sees the same cutouts, or the difference is flagged or refused."""

import base64
import struct

import numpy as np
import pytest
import zarr

from catalogs.bands import HSC
from catalogs.errors import InputRefused
from catalogs.products.model_input import ModelInput
from catalogs.products.schema import Flag, Reject
from catalogs.products.sky import is_unlike_training
from catalogs.store.cutouts import open_store
from catalogs.store.format import ImageMetadata
from mmae import cli
from mmae.production.predictor import doubt_unlike
from mmae.production.sky_warning import sky_warning

N = 24
ATTRIBUTES = {"bands": list("grizy"), "pixel_scale": 0.168, "zero_point": 27.0}
WANTED = ModelInput(tuple("grizy"), 27.0, 0.168, 2)
read = WANTED.read
HOLE = np.s_[..., 30:34, 30:34]
HALF = np.s_[..., 32:]
REGION = Flag.MASKED_PIXELS | Flag.NO_DATA_REGION


@pytest.fixture(scope="module")
def image():
    """Round galaxies in noise, all numbers multiples of 1/128, so that packing loses nothing."""
    y, x = np.mgrid[:64, :64] - 31.5
    galaxy = 20 * np.exp(-np.hypot(x, y) / 5)
    noisy = galaxy + np.random.default_rng(5).normal(0, 0.2, (N, 5, 64, 64))
    return (np.round(noisy * 128) / 128 + (np.round(noisy * 128) == 0) / 128).astype(np.float32)


def write(path, image, zarr_format=3, attributes=None, chunks=(8, 5, 32, 32), **array):
    """A plain store without a manifest; `attributes` are of the array `image`."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    group.attrs.update(ATTRIBUTES)
    pixels = group.create_array(
        "image", data=image, chunks=chunks, config={"write_empty_chunks": True}, **array
    )
    pixels.attrs.update(attributes or {})
    columns = {"object_id": np.arange(N), "ra": np.linspace(1, 2, N), "dec": np.linspace(3, 4, N)}
    for name, values in columns.items():
        group.create_array(name, data=values, chunks=(8,), fill_value=0)
    return path


def holed(image, value):
    image = image.copy()
    image[HOLE] = value
    return image


def xarrays(value):
    """A _FillValue as xarray writes it into a Zarr v3 store."""
    return base64.standard_b64encode(struct.pack("<d", value)).decode()


PACKED = {
    "scale_factor": lambda image: {"image": image * 128, "attributes": {"scale_factor": 1 / 128}},
    "scale_factor and add_offset, int16": lambda image: {
        "image": ((image + 4) * 128).astype(np.int16),
        "attributes": {"scale_factor": 1 / 128, "add_offset": -4.0, "_FillValue": -32768},
    },
    "attributes that say nothing": lambda image: {
        "image": image,
        "attributes": {"scale_factor": 1.0, "add_offset": 0, "_FillValue": xarrays(np.nan), "units": "?"},
    },
    "Zarr v2": lambda image: {"image": image, "zarr_format": 2, "fill_value": 0},
    "float64": lambda image: {"image": image.astype(np.float64)},
}


@pytest.mark.parametrize("variant", PACKED.values(), ids=PACKED)
def test_packed_numbers_are_unpacked(image, tmp_path, variant):
    cutouts = read(open_store(write(tmp_path / "a.zarr", **variant(image))), 0, N)
    assert cutouts.image.tobytes() == image.tobytes()
    assert not cutouts.flags.any()
    assert (cutouts.reason == "").all()


HOLES = {
    "NaN": lambda image: {"image": holed(image, np.nan)},
    "zeros": lambda image: {"image": holed(image, 0)},
    "a sentinel": lambda image: {"image": holed(image, -9999)},
    "_FillValue": lambda image: {"image": holed(image, 7.123), "attributes": {"_FillValue": 7.123}},
    "_FillValue of xarray": lambda image: {
        "image": holed(image, 7.123),
        "attributes": {"_FillValue": xarrays(7.123)},
    },
    "missing_value": lambda image: {
        "image": holed(image, 7.123),
        "attributes": {"missing_value": [5.1, 7.123]},
    },
    "valid_range": lambda image: {"image": holed(image, 900), "attributes": {"valid_range": [-100, 100]}},
    "the fill value of Zarr v2": lambda image: {
        "image": holed(image, 7.123),
        "zarr_format": 2,
        "fill_value": 7.123,
    },
    "packed": lambda image: {
        "image": holed(image * 128, -9.5),
        "attributes": {"scale_factor": 1 / 128, "_FillValue": -9.5},
    },
}


@pytest.mark.parametrize("variant", HOLES.values(), ids=HOLES)
def test_a_hole_is_a_hole_however_it_is_written(image, tmp_path, variant):
    cutouts = read(open_store(write(tmp_path / "a.zarr", **variant(image))), 0, N)
    assert cutouts.image.tobytes() == holed(image, np.nan).tobytes()
    assert (cutouts.flags == Flag.MASKED_PIXELS).all()
    assert (cutouts.reason == "").all()


@pytest.mark.parametrize("margin", ["absent", 0.0, np.nan, -999.0], ids=str)
def test_a_margin_is_a_margin_however_it_is_written(image, tmp_path, margin):
    inside = image[..., 8:56, 8:56]
    framed, expected = (np.full_like(image, value) for value in (0 if margin == "absent" else margin, np.nan))
    framed[..., 8:56, 8:56] = expected[..., 8:56, 8:56] = inside
    cutouts = read(open_store(write(tmp_path / "a.zarr", inside if margin == "absent" else framed)), 0, N)
    assert cutouts.image.tobytes() == expected.tobytes()
    assert (cutouts.flags == REGION).all()
    assert (cutouts.reason == "").all()


@pytest.mark.parametrize("value", [0, np.nan])
def test_half_an_image_is_flagged_and_less_is_not_used(image, tmp_path, value):
    half = image.copy()
    half[HALF] = value
    half[0, :, 31, :] = value
    half[1, 2, 31, :] = value
    cutouts = read(open_store(write(tmp_path / "a.zarr", half)), 0, N)
    assert cutouts.reason.tolist() == [Reject.NO_DATA] + [""] * (N - 1)
    assert cutouts.flags.tolist() == [Flag.MISSING_BAND, REGION | Flag.MISSING_BAND] + [REGION] * (N - 2)
    assert cutouts.observed[1].tolist() == [True, True, False, True, True]
    assert np.isnan(cutouts.image[1, 2]).all()


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_chunk_that_is_not_there_is_damage(image, tmp_path, zarr_format):
    path = write(tmp_path / "a.zarr", image, zarr_format)
    (path / ("image/1.0.1.0" if zarr_format == 2 else "image/c/1/0/1/0")).unlink()
    cutouts = read(open_store(path), 0, N)
    lost = np.arange(N) // 8 == 1
    assert (cutouts.reason == np.where(lost, Reject.DAMAGED, "")).all()
    assert cutouts.image[~lost].tobytes() == image[~lost].tobytes()
    assert cli.run_command("store", ["verify", str(path)]) == cli.REFUSED
    (path / ("ra/2" if zarr_format == 2 else "ra/c/2")).unlink()
    with pytest.raises(InputRefused, match=r"ra does not decode \(the chunk ra/.*2 is missing\)"):
        open_store(path).column("ra")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_arrays_that_nobody_reads_may_be_of_any_kind(image, tmp_path):
    path = write(tmp_path / "a.zarr", image)
    zarr.open_group(path).create_array("name", shape=(N,), dtype=str)
    zarr.consolidate_metadata(path)
    assert read(open_store(path), 0, N).image.tobytes() == image.tobytes()


NOISE = np.full(5, 0.2)
OTHER_SKIES = {
    "a pedestal": (lambda image: image + 100, "level 5e+02 sigma"),
    "nJy called zero point 27": (lambda image: image * np.float32(57.5), "r: noise 47 x"),
    "a band in other units": (
        lambda image: image * np.array([1, 1, 1, 1, 1e-3], np.float32)[:, None, None],
        "y: noise 0.00",
    ),
}


@pytest.mark.parametrize(("change", "expected"), OTHER_SKIES.values(), ids=OTHER_SKIES)
def test_a_sky_unlike_that_of_the_training_set_is_told_and_flagged(image, tmp_path, change, expected):
    usual, other = (
        open_store(write(tmp_path / name, pixels))
        for name, pixels in (("a.zarr", image), ("b.zarr", change(image)))
    )
    assert sky_warning(usual, NOISE, WANTED) == ""
    warning = sky_warning(other, NOISE, WANTED)
    assert expected in warning
    assert "flagged UNLIKE_TRAINING_PIXELS" in warning
    assert not is_unlike_training(read(usual, 0, N).image, NOISE).any()
    assert is_unlike_training(read(other, 0, N).image, NOISE).all()


def test_what_is_unlike_the_training_set_is_not_sure_of_anything():
    flags = np.array([0, Flag.ATYPICAL, Flag.UNLIKE_TRAINING_PIXELS | Flag.BROAD, Flag.BROAD])
    values = {"PHOTOZ_RISK_BEST": np.full(4, 0.01), "PHOTOZ_CONF_BEST": np.full(4, 0.9)}
    doubt_unlike(values, flags)
    assert values["PHOTOZ_RISK_BEST"].tolist() == [0.01, 1, 1, 0.01]
    assert values["PHOTOZ_CONF_BEST"].tolist() == [0.9, 0, 0, 0.9]
    doubt_unlike({"PHOTOZ_POINT": np.zeros(4)}, flags)  # the paper's model has no p(z)


def test_a_sky_without_data_is_not_known_to_be_unlike(image):
    framed = np.full_like(image, np.nan)
    assert not is_unlike_training(framed, NOISE).any()
    framed[..., 8:56, 8:56] = image[..., 8:56, 8:56]
    assert not is_unlike_training(framed, NOISE).any()


DOUBTFUL = {
    "_Unsigned": ("image", {"_Unsigned": "true"}),
    "a scale that is no number": ("image", {"scale_factor": "small"}),
    "a scale of nothing": ("image", {"scale_factor": 0}),
    "an infinite offset": ("image", {"add_offset": "inf"}),
    "a range of one number": ("image", {"valid_range": [1]}),
    "a fill value that is true": ("image", {"_FillValue": True}),
    "packed ids": ("object_id", {"scale_factor": 2}),
}


@pytest.mark.parametrize(("name", "attributes"), DOUBTFUL.values(), ids=DOUBTFUL)
def test_attributes_that_make_no_sense_are_refused_with_their_name(image, tmp_path, name, attributes):
    path = write(tmp_path / "a.zarr", image)
    zarr.open_group(path)[name].attrs.update(attributes)
    with pytest.raises(InputRefused, match=rf"a.zarr/{name} .*({'|'.join(attributes)})"):
        open_store(path)


def test_a_store_with_bands_that_the_model_does_not_know_is_taken_by_those_it_does(image, tmp_path):
    path = write(tmp_path / "a.zarr", image)
    zarr.open_group(path).attrs["bands"] = ["hsc_y", "HSC-G", "vis", "hsc_z", "hsc_r"]
    store, wanted = open_store(path), ModelInput(HSC, 27.0, 0.168, 2)
    wanted.check(store)
    assert wanted.differences(store) == (
        "leaves out vis, which the model does not know; goes on without hsc_i"
    )
    cutouts = wanted.read(store, 0, N)
    assert cutouts.observed.tolist() == [[True, True, False, True, True]] * N
    np.testing.assert_array_equal(cutouts.image[:, [4, 0, 3, 1]], image[:, [0, 1, 3, 4]])
    assert (cutouts.flags == Flag.MISSING_BAND).all()


def test_bands_are_taken_for_others_where_the_user_says_so_and_it_is_told(image, tmp_path):
    path = write(tmp_path / "a.zarr", image)
    zarr.open_group(path).attrs["survey"] = "Rubin DP1"
    wanted = ModelInput(HSC, 27.0, 0.168, 2)
    with pytest.raises(InputRefused, match=r"bands lsst_g .* knows hsc_g .* say so with --bands"):
        wanted.check(open_store(path))
    told = wanted.differences(open_store(path, ImageMetadata(bands=HSC)))
    assert told.startswith("takes lsst_g for hsc_g, ")
    zarr.open_group(path).attrs["survey"] = "of my own"
    assert wanted.differences(open_store(path)).startswith("takes g for hsc_g, r for hsc_r")
    with pytest.raises(InputRefused, match="no survey has such fluxes"):
        ModelInput(HSC, 60, 0.168, 2).check(open_store(path))
