"""Cutouts on coarser and finer pixels: light, place and width of sources are kept, to stated bounds."""

import math

import numpy as np
import pytest

from catalogs.store.resampling import footprint, resample

SCALES = [(0.168, 0.2), (0.2, 0.168), (0.168, 0.263), (0.168, 0.17), (0.168, 0.09), (0.168, 0.336)]
"""arcsec a pixel, of the input and of the output."""
RATIOS = [0.5, 0.61, 0.84, 0.99, 1.01, 0.2 / 0.168, 1.6, 2.0]
FWHM_SIGMA = 2 * math.sqrt(2 * math.log(2))


def light(size, scale, fwhm, centre):
    """Light of a Gaussian on each of `size` pixels of a row about its target; arcsec."""
    edges = (np.arange(size + 1) - size // 2 - 0.5) * scale
    return np.diff([math.erf((edge - centre) / fwhm * FWHM_SIGMA / math.sqrt(2)) / 2 for edge in edges])


def gaussian(size, scale, fwhm, y=0.0, x=0.0):
    """A source of flux 1, y and x arcsec from the middle of pixel size // 2: (1, 1, size, size)."""
    plane = np.outer(light(size, scale, fwhm, y), light(size, scale, fwhm, x))
    return plane[None, None].astype(np.float32)


def moments(image, scale):
    """Flux, centroid (y, x) from the middle pixel, and FWHM of the Gaussian on a cutout; arcsec."""
    image = image[0, 0].astype(np.float64)
    place = (np.arange(len(image)) - len(image) // 2) * scale
    flux, rows, columns = image.sum(), image.sum(1), image.sum(0)
    y, x = rows @ place / flux, columns @ place / flux
    variance = (rows @ (place - y) ** 2 + columns @ (place - x) ** 2) / flux / 2 - scale**2 / 12  # of a pixel
    return flux, y, x, FWHM_SIGMA * math.sqrt(variance)


@pytest.mark.parametrize(("scale", "new"), SCALES)
@pytest.mark.parametrize("fwhm", [0.6, 0.8, 1.3])
def test_sources_keep_their_light_their_place_and_their_width(scale, new, fwhm):
    for y, x in np.random.default_rng(1).uniform(-0.1, 0.1, (8, 2)):
        image = resample(gaussian(footprint(new / scale), scale, fwhm, y, x), new / scale)
        flux, found_y, found_x, width = moments(image, new)
        assert flux == pytest.approx(1, abs=1e-5)
        assert math.hypot(found_y - y, found_x - x) < 0.01 * min(scale, new)
        assert width == pytest.approx(fwhm, rel=0.02)
        place = (np.arange(64) - 32) * new
        aperture = np.hypot(place[:, None] - y, place - x) < 1.5
        assert image[0, 0][aperture].sum() == pytest.approx(
            gaussian(64, new, fwhm, y, x)[0, 0][aperture].sum(), abs=1e-3
        )


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("more", [0, 1, 20, 21])
def test_the_target_stays_in_the_middle_of_its_pixel(ratio, more):
    """Whatever the size, even or odd, of the input."""
    image = resample(gaussian(footprint(ratio) + more, 1, 5), ratio)
    _, y, x, _ = moments(image, 1)
    assert max(abs(y), abs(x)) < 1e-6


def test_a_slope_is_that_of_the_new_pixels():
    """Pixel j of 136 holds j - 68; a new one, of twice the size, holds four times that of its middle."""
    image = np.broadcast_to(np.arange(136, dtype=np.float32) - 68, (1, 1, 136, 136))
    found = resample(image, 2.0)
    np.testing.assert_allclose(found[0, 0, 10], 8.0 * (np.arange(64) - 32), atol=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_an_even_sky_stays_even(ratio):
    found = resample(np.full((1, 2, 140, 140), 3, np.float32), ratio)
    np.testing.assert_allclose(found, 3 * ratio**2, rtol=1e-6)


def noise(n, size, seed=0):
    return np.random.default_rng(seed).standard_normal((n, 5, size, size)).astype(np.float32)


def test_the_same_scale_is_the_same_pixels():
    image = noise(2, 101)
    assert resample(image, 1.0).tobytes() == image[..., 18:82, 18:82].tobytes()
    small = resample(image[..., :40, :40], 1.0)
    assert small[..., 12:52, 12:52].tobytes() == image[..., :40, :40].tobytes()
    assert np.isnan(small).sum() == 2 * 5 * (64**2 - 40**2)


@pytest.mark.parametrize("fwhm", [0.7, 1.0])
def test_there_and_back_again(fwhm):
    image = gaussian(140, 0.168, fwhm, 0.05, -0.03)
    there = resample(image, 0.2 / 0.168, 100)
    back = resample(there, 0.168 / 0.2)
    assert np.abs(back - image[..., 38:102, 38:102]).max() < 0.01 * image.max()


@pytest.mark.parametrize(
    ("ratio", "sigma", "correlation"),
    [(0.2 / 0.168, 1.06, 0.08), (0.168 / 0.2, 0.63, 0.28), (0.5, 0.975 / 4, 0.65), (2.0, 0.933 * 2, 0.026)],
)
def test_white_noise_becomes_what_is_said(ratio, sigma, correlation):
    found = resample(noise(40, footprint(ratio)), ratio)
    assert found.std() == pytest.approx(sigma, rel=0.01)
    for a, b in ((found[..., 1:], found[..., :-1]), (found[..., 1:, :], found[..., :-1, :])):
        assert (a * b).mean() / found.var() == pytest.approx(correlation, abs=0.01)


@pytest.mark.parametrize("ratio", RATIOS)
def test_a_cutout_is_the_same_alone_and_in_company(ratio):
    image = noise(9, footprint(ratio))
    image[4, 2, 30:33, 20:40] = np.nan
    together = resample(image, ratio)
    for start, stop in ((0, 1), (3, 5), (4, 5), (8, 9), (1, 9)):
        assert resample(image[start:stop], ratio).tobytes() == together[start:stop].tobytes()
    assert resample(np.asfortranarray(image), ratio).tobytes() == together.tobytes()
    assert resample(image[:, 2:3], ratio).tobytes() == together[:, 2:3].tobytes()


@pytest.mark.parametrize("ratio", RATIOS)
def test_nothing_beyond_the_footprint_counts(ratio):
    image = noise(1, footprint(ratio) + 20)
    assert resample(image, ratio).tobytes() == resample(image[..., 10:-10, 10:-10], ratio).tobytes()
    assert not np.isnan(resample(image, ratio)).any()


@pytest.mark.parametrize("ratio", RATIOS)
def test_pixels_without_data_count_for_nothing(ratio):
    """New pixels inside a hole are NaN, those that it does not touch as they were, others of the same sky."""
    size = footprint(ratio)
    image, holed = np.full((1, 1, size, size), 2, np.float32), np.full((1, 1, size, size), 2, np.float32)
    hole = slice(size // 2 - 6, size // 2 + 7)
    image[..., hole, hole], holed[..., hole, hole] = 1e9, np.nan
    found = resample(holed, ratio)
    lacking = np.isnan(found[0, 0])
    distance = np.abs(np.arange(64) - 32) * ratio  # in pixels of the input
    inside = distance < 6.5 - ratio / 2
    touched = distance < 6.5 + ratio / 2 + 3
    assert lacking[np.ix_(inside, inside)].all()
    assert not lacking[~touched].any()
    assert not lacking[:, ~touched].any()
    np.testing.assert_allclose(found[0, 0][~lacking], 2 * ratio**2, rtol=1e-5)
    assert lacking.mean() == pytest.approx((13 / ratio / 64) ** 2, rel=0.5)  # its area
    far = ~touched
    np.testing.assert_allclose(found[0, 0][far], resample(image, ratio)[0, 0][far], rtol=1e-6)


@pytest.mark.parametrize(
    ("lost", "known"), [(0, True), (1, True), (2, True), (3, False), (5, True), (7, True)]
)
def test_the_share_of_the_weights_on_what_is_lost_decides(lost, known):
    """At twice the scale, worked by hand, a new pixel weighs seven by 3 -22 125 300 125 -22 3 of 256.

    Its edges lie midway between two of the input, where the light is 3 -25 150 150 -25 3 of 256 of that up to
    the six nearest. A lost column of 300 of 600 is too much; of 125, the others make up for it.
    """
    column = np.array([3, -22, 125, 300, 125, -22, 3]) / 256
    image = np.zeros((1, 1, 136, 136), np.float32)
    image[..., 65:72] = np.arange(7) ** 2
    assert resample(image, 2.0)[0, 0, 32, 32] == pytest.approx(2 * column @ np.arange(7) ** 2)
    image[..., 65 + lost] = np.nan
    found = resample(image, 2.0)[0, 0, 32, 32]
    rest = np.arange(7) != lost
    expected = 2 * (column * np.arange(7) ** 2)[rest].sum() / (column[rest].sum() / 2)
    assert found == pytest.approx(expected if known else np.nan, nan_ok=True)


def test_a_small_cutout_has_no_data_around_it():
    """48 pixels of 0.2 arcsec are 57.1 of 0.168 about pixel 32: 3.9 pixels lack on a side."""
    found = resample(np.ones((1, 1, 48, 48), np.float32), 0.84)
    known = ~np.isnan(found[0, 0])
    assert known[32].nonzero()[0].tolist() == list(range(4, 60))
    np.testing.assert_allclose(found[0, 0][known], 0.84**2, rtol=1e-6)
