"""Every rejected cutout has the one reason that applies, and none of its pixels is left."""

import numpy as np
import pytest

from catalogs.products.schema import Flag, Reject
from catalogs.products.screen import screen_estimates, screen_images

PIXELS = 64 * 64
BAND = (0, 2)  # cutout 0, band i


@pytest.fixture
def cutout():
    return np.random.default_rng(2).normal(size=(1, 5, 64, 64)).astype(np.float32)


def nan_pixels(image, count):
    image[BAND].reshape(-1)[:count] = np.nan


def fill(index, value):
    def spoil(image):
        image[index] = value

    return spoil


def constant_but_for_a_nan(image):
    image[BAND] = 3
    image[(*BAND, 0, 0)] = np.nan


def nan_and_infinite(image):
    image[BAND] = np.nan
    image[0, 0, 0, 0] = np.inf


CASES = {
    "usable": (lambda image: None, ""),
    "all NaN": (fill(..., np.nan), Reject.NO_DATA),
    "a pixel +Inf": (fill((*BAND, 3, 4), np.inf), Reject.INFINITE),
    "a pixel -Inf": (fill((*BAND, 3, 4), -np.inf), Reject.INFINITE),
    "three bands of NaN": (fill(np.s_[0, 1:4], np.nan), ""),
    "four bands of NaN": (fill(np.s_[0, 1:], np.nan), Reject.FEW_BANDS),
    "a constant band": (fill(BAND, 3), Reject.CONSTANT_BAND),
    "constant but for a NaN": (constant_but_for_a_nan, Reject.CONSTANT_BAND),
    "all zero": (fill(..., 0), Reject.NO_DATA),
    "NaN and infinite": (nan_and_infinite, Reject.INFINITE),
    "2048 of 4096 NaN": (lambda image: nan_pixels(image, 2048), ""),
}


@pytest.mark.parametrize(("spoil", "expected"), CASES.values(), ids=CASES)
def test_a_cutout_is_rejected_for_its_fault(cutout, spoil, expected):
    image = np.concatenate([cutout, cutout, cutout])
    spoil(image[1:2])
    before = image.copy()
    clean, reason, *_ = screen_images(image, np.zeros(3, bool))
    assert reason.tolist() == ["", expected, ""]
    np.testing.assert_array_equal(clean[[0, 2]], before[[0, 2]])  # its neighbours are untouched
    np.testing.assert_array_equal(clean[1], 0 if expected else before[1])


@pytest.mark.parametrize(("spoil", "_reason"), CASES.values(), ids=CASES)
def test_damage_comes_before_every_other_reason(cutout, spoil, _reason):
    spoil(cutout)
    clean, reason, *_ = screen_images(cutout, np.ones(1, bool))
    assert reason.tolist() == [Reject.DAMAGED]
    assert not clean.any()


def test_masked_pixels_are_flagged_and_nan(cutout):
    cutout[0, 1, 5, 6] = 0
    clean, reason, flags, observed = screen_images(np.repeat(cutout, 2, 0), np.zeros(2, bool))
    assert reason.tolist() == ["", ""]
    assert flags.tolist() == [Flag.MASKED_PIXELS] * 2
    assert np.argwhere(np.isnan(clean)).tolist() == [[0, 1, 5, 6], [1, 1, 5, 6]]
    assert observed.all()


@pytest.mark.parametrize("empty", [2048, 2049, PIXELS])
def test_a_band_with_hardly_any_data_is_not_observed(cutout, empty):
    """As one that is not there: the pixels it has are not used."""
    nan_pixels(cutout, empty)
    clean, reason, flags, observed = screen_images(cutout, np.zeros(1, bool))
    assert reason.tolist() == [""]
    if empty == 2048:
        assert observed.all()
        assert flags.tolist() == [Flag.MASKED_PIXELS | Flag.NO_DATA_REGION]
    else:
        assert observed.tolist() == [[True, True, False, True, True]]
        assert flags.tolist() == [Flag.MISSING_BAND]
        assert np.isnan(clean[BAND]).all()


def test_a_model_that_needs_all_bands_rejects_what_lacks_one(cutout):
    nan_pixels(cutout, PIXELS)
    clean, reason, *_ = screen_images(cutout, np.zeros(1, bool), least_bands=5)
    assert reason.tolist() == [Reject.FEW_BANDS]
    assert not clean.any()


FAR_BELOW = -77.7
NO_DATA = {
    "NaN": np.nan,
    "zero": 0.0,
    **{
        f"{value:g}": value
        for value in (-99.0, -999.0, -9999.0, -32768.0, -1e30, 1e20, 9.96921e36, -3.4028235e38)
    },
    "far below any noise": FAR_BELOW,
}
"""How surveys write a pixel without data; the noise here is 1."""


@pytest.mark.parametrize("value", NO_DATA.values(), ids=NO_DATA)
@pytest.mark.parametrize("where", [np.s_[..., 30:34, 30:34], np.s_[..., :8], np.s_[2, 0, 0]], ids=str)
def test_pixels_without_data_are_treated_alike_however_they_are_written(cutout, value, where):
    image = np.repeat(cutout, 2, 0)
    image[1][where] = value
    as_nan = np.repeat(cutout, 2, 0)
    as_nan[1][where] = np.nan
    clean, reason, flags, _ = screen_images(image, np.zeros(2, bool))
    expected = screen_images(as_nan, np.zeros(2, bool))
    np.testing.assert_array_equal(clean, expected[0])
    assert (reason == expected[1]).all()
    assert flags.tolist() == expected[2].tolist()
    assert flags[1] & Flag.MASKED_PIXELS
    assert flags[0] == 0


@pytest.mark.parametrize("value", [value for value in NO_DATA.values() if value != FAR_BELOW], ids=str)
def test_a_band_is_absent_however_that_is_written(cutout, value):
    """But by a number that only noise beside it would tell: it is a constant band."""
    cutout[:, 2] = value
    clean, reason, flags, observed = screen_images(cutout, np.zeros(1, bool))
    assert (reason.tolist(), flags.tolist()) == ([""], [Flag.MISSING_BAND])
    assert observed.tolist() == [[True, True, False, True, True]]
    assert np.isnan(clean[:, 2]).all()


def test_a_margin_is_flagged_as_a_region_and_a_few_pixels_are_not(cutout):
    few, margin = cutout.copy(), np.zeros_like(cutout)
    few[..., 10:13, 10:13] = np.nan
    margin[..., 8:56, 8:56] = cutout[..., 8:56, 8:56]
    _, reason, flags, _ = screen_images(np.concatenate([few, margin]), np.zeros(2, bool))
    assert reason.tolist() == ["", ""]
    assert flags.tolist() == [Flag.MASKED_PIXELS, Flag.MASKED_PIXELS | Flag.NO_DATA_REGION]


def test_a_bright_star_and_the_dark_ring_about_it_are_data(cutout):
    """A million times the noise, with its sky taken off too deeply by thirty times the noise."""
    cutout[..., 30:34, 30:34] = 1e6
    cutout[..., 20:24, 20:24] -= 30
    before = cutout.copy()
    clean, reason, flags, _ = screen_images(cutout, np.zeros(1, bool))
    assert (reason.tolist(), flags.tolist()) == ([""], [0])
    np.testing.assert_array_equal(clean, before)


def test_no_cutouts_are_no_trouble():
    clean, reason, flags, _ = screen_images(np.zeros((0, 5, 64, 64), np.float32), np.zeros(0, bool))
    assert (len(clean), len(reason), len(flags)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("redshift", "reason", "flags"),
    [
        (0.5, "", 0),
        (0.01, "", 0),
        (4.0, "", 0),
        (0.009, "", Flag.Z_LIMIT),
        (4.001, "", Flag.Z_LIMIT),
        (-0.5, "", Flag.Z_LIMIT),
        (-1.0, Reject.BAD_OUTPUT, 0),
        (np.nan, Reject.BAD_OUTPUT, 0),
        (np.inf, Reject.BAD_OUTPUT, 0),
        (-np.inf, Reject.BAD_OUTPUT, 0),
    ],
)
def test_a_redshift_is_screened_for_possible_values_and_the_training_range(redshift, reason, flags):
    z_range = (0.01, 4.0)
    screened = screen_estimates(np.array([redshift]), {}, np.array([""]), z_range)
    assert (screened[0].tolist(), screened[1].tolist()) == ([reason], [flags])


def test_the_estimate_for_a_rejected_cutout_gives_no_flags():
    columns = {"OOD_SCORE": np.array([0.0, 0.0])}
    _, flags = screen_estimates(np.array([9.0, 9.0]), columns, np.array([Reject.NO_DATA, ""]), (0.01, 4.0))
    assert flags.tolist() == [0, Flag.Z_LIMIT | Flag.ATYPICAL]


def test_the_estimate_for_a_rejected_cutout_does_not_change_its_reason():
    reason = np.array([Reject.FEW_BANDS, Reject.NO_DATA, ""])
    screened, _ = screen_estimates(np.array([np.nan, 0.5, 0.5]), {}, reason, (0, 4))
    assert screened.tolist() == reason.tolist()


def test_a_broad_or_two_peaked_p_of_z_and_an_atypical_galaxy_are_flagged():
    """At redshift 1: broad beyond a half width of 0.3; a second peak; one galaxy in 2000 is as atypical."""
    columns = {
        "PHOTOZ_ERR68_MIN": np.array([0.8, 0.69, 0.8, 0.8]),
        "PHOTOZ_ERR68_MAX": np.array([1.2, 1.31, 1.2, 1.2]),
        "PHOTOZ_MODE2": np.array([np.nan, np.nan, 2.0, np.nan]),
        "OOD_SCORE": np.array([0.5, 0.5, np.nan, 0.0005]),
    }
    reason, flags = screen_estimates(np.ones(4), columns, np.full(4, ""), (0.01, 4.0))
    assert (reason == "").all()
    assert flags.tolist() == [0, Flag.BROAD, Flag.TWO_PEAKS, Flag.ATYPICAL]
