"""Cutouts as a model takes them, from stores on other pixels: what is lost stays lost, and is said."""

import math
from dataclasses import replace

import numpy as np
import pytest
import zarr

from catalogs.errors import InputRefused
from catalogs.products.model_input import ModelInput
from catalogs.products.schema import Flag, Reject
from catalogs.store.chunks import undecodable_files
from catalogs.store.cutouts import open_store
from catalogs.store.resampling import footprint

N, SCALE, COARSE, FINE = 6, 0.168, 0.2, 0.14
"""arcsec a pixel, of the model and of stores."""
HOLE = slice(27, 37)
WANTED = ModelInput(tuple("grizy"), 27.0, SCALE, 2)

read = WANTED.read


def galaxies(size, pixel_scale, zero_point=27.0, noise=1e-9):
    """Gaussians of 1.2 arcsec and flux 100 at zero point 27, on pixel size // 2: (N, 5, size, size)."""
    place = (np.arange(size + 1) - size // 2 - 0.5) * pixel_scale
    light = np.diff([math.erf(edge / 1.2 * 2 * math.sqrt(math.log(2))) / 2 for edge in place])
    flux = 100 * np.outer(light, light) * 10 ** (0.4 * (zero_point - 27))
    sky = np.random.default_rng(1).normal(0, noise, (N, 5, size, size))
    return (flux + sky).astype(np.float32)


def store_of(path, image, pixel_scale, zero_point=27.0):
    """A store of another program."""
    attributes = {"bands": list("grizy"), "pixel_scale": pixel_scale, "zero_point": zero_point}
    group = zarr.create_group(path, attributes=attributes)
    group.create_array("image", data=image, chunks=(2, *image.shape[1:]), config={"write_empty_chunks": True})
    for name, values in {"object_id": np.arange(N), "ra": np.zeros(N), "dec": np.zeros(N)}.items():
        group.create_array(name, data=values)
    return open_store(path)


@pytest.mark.parametrize("pixel_scale", [COARSE, FINE, 0.31, 0.09])
def test_a_galaxy_on_other_pixels_and_in_another_unit_is_the_same_galaxy(tmp_path, pixel_scale):
    size = footprint(SCALE / pixel_scale) + 1
    store = store_of(tmp_path / "a.zarr", galaxies(size, pixel_scale, 31.4), pixel_scale, 31.4)
    found = read(store, 0, N)
    np.testing.assert_allclose(found.image, galaxies(64, SCALE), atol=5e-3 * galaxies(64, SCALE).max())
    assert (found.flags == Flag.RESAMPLED).all()
    assert (found.reason == "").all()


def test_a_store_on_the_pixels_of_the_model_is_as_it_was(tmp_path):
    image = galaxies(80, SCALE, noise=1)
    store = store_of(tmp_path / "a.zarr", image, SCALE)
    nearly = replace(WANTED, pixel_scale=SCALE * 1.0009)
    for found in (WANTED.read(store, 0, N), nearly.read(store, 0, N)):
        assert found.image.tobytes() == image[..., 8:72, 8:72].tobytes()
        assert not found.flags.any()


@pytest.mark.parametrize("pixel_scale", [COARSE, FINE])
def test_no_number_that_stands_for_no_data_is_mixed_with_others(tmp_path, pixel_scale):
    image = galaxies(footprint(SCALE / pixel_scale), pixel_scale, noise=0.1)
    whole, *holed = (np.copy(image) for _ in range(5))
    for pixels, value in zip(holed, (np.nan, 0, -9999, 1e30), strict=True):
        pixels[..., HOLE, HOLE] = value
    read_back = [
        read(store_of(tmp_path / f"{k}.zarr", pixels, pixel_scale), 0, N)
        for k, pixels in enumerate((whole, *holed))
    ]
    for found in read_back[1:]:
        assert found.image.tobytes() == read_back[1].image.tobytes()
        assert (found.flags == Flag.RESAMPLED | Flag.MASKED_PIXELS).all()
        lost = np.isnan(found.image)
        assert lost[0, 0].sum() == pytest.approx((10 * pixel_scale / SCALE) ** 2, rel=0.2)
        assert (
            np.abs(found.image - read_back[0].image)[~lost].max() < 1.5
        )  # noise of 0.1, slopes of 1 a pixel


def test_cutouts_that_are_too_small_are_framed_and_flagged_or_rejected(tmp_path):
    """As at the model's own scale: beyond a cutout are no data, and half of the sky is too much."""
    for size, reason in ((64, ""), (56, ""), (52, Reject.NO_DATA)):
        image = galaxies(size, FINE, noise=0.1)
        framed = np.pad(image, ((0, 0), (0, 0), (20, 20), (20, 20)), constant_values=np.nan)
        bare, padded = (
            read(store_of(tmp_path / f"{size}-{len(pixels[0, 0])}.zarr", pixels, FINE), 0, N)
            for pixels in (image, framed)
        )
        assert bare.image.tobytes() == padded.image.tobytes()
        for found in (bare, padded):
            assert (found.reason == reason).all()
            missing = Flag.MISSING_BAND if reason else Flag.MASKED_PIXELS | Flag.NO_DATA_REGION
            assert (found.flags == Flag.RESAMPLED | missing).all()
        if not reason:
            known = math.floor(size * FINE / SCALE)
            assert np.isfinite(bare.image[0, 0, 32]).sum() in (known - 1, known, known + 1)


def test_bad_rows_have_the_reasons_that_they_have_elsewhere(tmp_path):
    image = galaxies(70, COARSE, noise=0.1)
    image[0, 2], image[1, :4], image[2, 2], image[3, 2], image[4] = np.inf, 0, 5, np.nan, np.nan
    store = store_of(tmp_path / "a.zarr", image, COARSE)
    found = read(store, 0, N)
    assert found.reason.tolist() == ["INFINITE", "FEW_BANDS", "CONSTANT_BAND", "", "NO_DATA", ""]
    own = replace(WANTED, pixel_scale=COARSE).read(store, 0, N)
    assert found.reason.tolist() == own.reason.tolist()
    assert found.observed[[1, 3, 5]].tolist() == own.observed[[1, 3, 5]].tolist()
    assert not found.image[[0, 1, 2, 4]].any()
    assert (found.flags & Flag.RESAMPLED != 0).all()
    (tmp_path / "a.zarr" / "image" / "c" / "2" / "0" / "0" / "0").unlink()
    lost = read(open_store(tmp_path / "a.zarr"), 0, N)
    assert lost.reason.tolist() == [*found.reason[:4].tolist(), "DAMAGED", "DAMAGED"]
    assert not lost.image[lost.reason != ""].any()


def test_a_row_is_the_same_whatever_is_read_with_it(tmp_path):
    image = galaxies(70, COARSE, noise=0.1)
    image[2, :, 30, 30] = np.nan
    store = store_of(tmp_path / "a.zarr", image, COARSE)
    together = read(store, 0, N)
    for row in range(N):
        assert read(store, row, row + 1).image.tobytes() == together.image[row].tobytes()
    assert read(store, 0, 0).image.shape == (0, 5, 64, 64)


def test_pixels_over_twice_those_of_the_model_are_refused(tmp_path):
    store = store_of(tmp_path / "a.zarr", galaxies(64, 0.4), 0.4)
    with pytest.raises(
        InputRefused, match=r"has pixel_scale 0\.4 arcsec a pixel, the model was trained at 0\.168"
    ):
        read(store, 0, N)


def told(path, pixel_scale=SCALE, **arrays):
    """A store of another program that says something of its objects, at zero point 31.4."""
    size = footprint(SCALE / pixel_scale) if pixel_scale != SCALE else 64
    store_of(path, galaxies(size, pixel_scale, 31.4, noise=1.0), pixel_scale, 31.4)
    for name, values in arrays.items():
        options = {} if name == "mask" else {"config": {"write_empty_chunks": True}}
        zarr.open_group(path).create_array(name, data=values, chunks=(2, *values.shape[1:]), **options)
    return open_store(path)


@pytest.mark.parametrize("pixel_scale", [SCALE, COARSE])
def test_what_a_store_says_of_its_objects_is_brought_to_the_unit_of_the_model(tmp_path, pixel_scale):
    """1 nJy is 10^(-0.4 * 4.4) = 0.01738 at zero point 27; the noise of resampled images is another."""
    noise, fwhm = np.full((N, 5), 2.0, np.float32), np.tile(np.float32([0.9, 0.8, 0.7, 0.6, 0.5]), (N, 1))
    ebv = np.full(N, 0.04, np.float32)
    noise[1], fwhm[2, 3], ebv[3] = np.nan, -99, -1
    store = told(tmp_path / "a.zarr", pixel_scale, noise=noise, psf_fwhm=fwhm, ebv=ebv)
    found = ModelInput(("y", "g", "lsst_u"), 27.0, SCALE, 2).read(store, 0, N).conditions
    assert found.shape == (N, 7)
    expected = [0.03476, 0.03476, np.nan] if pixel_scale == SCALE else [np.nan] * 3
    np.testing.assert_allclose(found[0], [*expected, 0.5, 0.9, np.nan, 0.04], rtol=1e-3)
    assert np.isnan(found[1, :3]).all()
    np.testing.assert_allclose(found[2, 3:], [0.5, 0.9, np.nan, 0.04])
    assert np.isnan(found[3, 6])
    assert np.isnan(ModelInput(tuple("grizy"), 27.0, SCALE, 2).read(store, 2, 3).conditions[0, 8])


def test_zero_is_an_extinction_but_no_noise_and_no_seeing(tmp_path):
    zeros = np.zeros((N, 5), np.float32)
    store = told(tmp_path / "a.zarr", noise=zeros, psf_fwhm=zeros, ebv=np.zeros(N, np.float32))
    found = read(store, 0, N).conditions
    assert np.isnan(found[:, :10]).all()
    assert (found[:, 10] == 0).all()


@pytest.mark.parametrize("dtype", ["u1", "i4", "?"])
@pytest.mark.parametrize("pixel_scale", [SCALE, COARSE])
def test_bad_pixels_are_no_data(tmp_path, pixel_scale, dtype):
    """As if they had been NaN in the file; a mask of all pixels is an image without data."""
    size = footprint(SCALE / pixel_scale) if pixel_scale != SCALE else 64
    mask = np.zeros((N, size, size), dtype)
    mask[1, 3:9, 40:50] = 1
    mask[2] = 1
    masked = told(tmp_path / "a.zarr", pixel_scale, mask=mask)
    image = galaxies(size, pixel_scale, 31.4, noise=1.0)
    image[np.broadcast_to(mask[:, None] != 0, image.shape)] = np.nan
    holed = store_of(tmp_path / "b.zarr", image, pixel_scale, 31.4)
    found, expected = read(masked, 0, N), read(holed, 0, N)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)
    assert found.flags[1] & Flag.MASKED_PIXELS
    assert found.reason[2] == Reject.NO_DATA
    assert not found.flags[0] & Flag.MASKED_PIXELS
    np.testing.assert_array_equal(read(masked, 1, 2).image, found.image[1:2])
    assert len(list((tmp_path / "a.zarr/mask/c").iterdir())) == 2  # of three: zarr leaves zeros out
    assert not any("mask" in file for file in undecodable_files(tmp_path / "a.zarr"))


def test_what_the_model_learned_from_and_is_not_told_is_said(tmp_path):
    store = told(tmp_path / "a.zarr", ebv=np.zeros(N, np.float32) + 0.01)
    wanted = replace(WANTED, bands=store.bands, told=("psf_fwhm", "ebv"))
    assert wanted.differences(store) == "goes on without psf_fwhm"
