"""Bleed trails in images of noise, galaxies and stars; the noise of a pixel is 1."""

import numpy as np
import pytest

from catalogs.products.schema import Flag
from catalogs.products.screen import screen_images
from catalogs.products.trails import trails

Y, X = np.indices((64, 64)) - 31.5


def sky(seed=0):
    return np.random.default_rng(seed).standard_normal((1, 5, 64, 64)).astype(np.float32)


def galaxy(peak, major, minor, angle=0.0):
    """An exponential disc: scale lengths along the columns and across them, pixels."""
    y, x = Y * np.cos(angle) + X * np.sin(angle), X * np.cos(angle) - Y * np.sin(angle)
    return peak * np.exp(-np.hypot(y / major, x / minor))


def found(image):
    return trails(image.astype(np.float32), np.ones(image.shape[:2]))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("first", [0, 30, 61])
def test_a_trail_is_found_with_its_margin_wherever_it_lies(first, turned):
    """It fades by a factor of 25 along the cutout, and passes through the galaxy or beside it."""
    image = sky() + galaxy(200, 4, 4)
    image[0, 3, :, first : first + 3] += 500 * np.exp(-np.arange(64) / 20)[:, None]
    has, pixels = found(image.swapaxes(2, 3) if turned else image)
    expected = np.zeros((5, 64, 64), bool)
    expected[3, :, max(0, first - 1) : first + 4] = True
    assert has.tolist() == [True]
    np.testing.assert_array_equal(pixels[0], expected.swapaxes(1, 2) if turned else expected)


@pytest.mark.parametrize(
    "light",
    [
        galaxy(1000, 8, 8),
        galaxy(1000, 15, 1.5),  # edge-on, from edge to edge: 120 times the noise at both
        galaxy(1000, 15, 1.5, np.pi / 2),
        galaxy(1000, 15, 1.5, 0.5),
        1e5 * np.exp(-np.hypot(Y - 30, X - 20) / 6),  # a saturated star at the edge
        50 * np.ones((64, 64)),
    ],
)
def test_no_galaxy_or_star_is_a_trail(light):
    assert not found(sky() + light)[0].any()


def test_screening_takes_a_trail_for_no_data_and_says_so():
    image = sky()
    image[0, 1, :, 20:22] += 100
    clean, reason, flags, observed = screen_images(image, np.zeros(1, bool))
    lost = np.isnan(clean[0])
    assert (lost.sum(), lost[1, :, 19:23].sum()) == (4 * 64, 4 * 64)
    assert (reason[0], flags[0]) == ("", Flag.BLEED_TRAIL | Flag.MASKED_PIXELS | Flag.NO_DATA_REGION)
    assert observed.all()


@pytest.mark.parametrize("nothing", [np.nan, 0.0, -9999.0])
def test_a_strip_between_margins_without_data_is_no_trail(nothing):
    """However they are written; the sky is bright here."""
    image = sky() + 100
    image[..., :28], image[..., 36:] = nothing, nothing
    image[0, :4, :, :28] = 100 + sky(1)[0, :4, :, :28]
    flags = screen_images(image, np.zeros(1, bool))[2]
    assert not flags[0] & Flag.BLEED_TRAIL
