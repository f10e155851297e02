"""Scores of rebuilt images and spectra against numbers worked by hand."""

import numpy as np
import pytest

from catalogs.store.spectra import pool
from mmae.scores import image_scores, spectrum_scores
from mmae.scores.image_scores import WEIGHT, X, Y, galaxy_scores, measure, pixel_scores
from mmae.scores.lines import PIXEL
from mmae.scores.rebuilding import Truth, image_errors

WAVE = 3602.0 + PIXEL * np.arange(1296)


def gaussian(flux: float, sigma_x: float, sigma_y: float, angle: float = 0.0) -> np.ndarray:
    """An image (1, 5, 64, 64), equal in all bands."""
    x, y = X * np.cos(angle) + Y * np.sin(angle), Y * np.cos(angle) - X * np.sin(angle)
    light = np.exp(-0.5 * ((x / sigma_x) ** 2 + (y / sigma_y) ** 2)) * flux / (2 * np.pi * sigma_x * sigma_y)
    return np.broadcast_to(light.reshape(64, 64), (1, 5, 64, 64))


def test_flux_and_half_light_radius_of_a_gaussian():
    """Half the flux is within sqrt(2 ln 2) sigma; for sigma = 3, all but 3e-4 of it is in the aperture."""
    measured = measure(gaussian(100.0, 3.0, 3.0))
    assert measured.flux == pytest.approx(100, rel=1e-3)
    assert measured.radius == pytest.approx(np.sqrt(2 * np.log(2)) * 3, rel=0.01)
    assert measured.colour == pytest.approx(0)
    assert np.hypot(measured.e1, measured.e2) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("angle", [0.0, np.pi / 4, 1.0])
def test_ellipticity_of_a_gaussian(angle):
    """The weight changes 1/sigma^2 to 1/sigma^2 + 1/weight^2 along either axis."""
    long, short = (1 / (1 / sigma**2 + 1 / WEIGHT**2) for sigma in (3.0, 2.0))
    e = (long - short) / (long + short)
    measured = measure(gaussian(1.0, 3.0, 2.0, angle))
    assert measured.e1 == pytest.approx(e * np.cos(2 * angle), abs=2e-3)
    assert measured.e2 == pytest.approx(e * np.sin(2 * angle), abs=2e-3)


def test_errors_of_galaxies_and_of_none():
    truth = measure(gaussian(100.0, 3.0, 3.0).repeat(2, 0))
    rebuilt = measure(np.concatenate([gaussian(80.0, 3.0, 3.0), np.zeros((1, 5, 64, 64))]))
    scores = galaxy_scores(rebuilt, truth)
    assert scores["flux error"] == pytest.approx([0.2, np.inf])
    assert scores["radius error"] == pytest.approx([0, np.inf])
    assert scores["shape error"] == pytest.approx([0, np.inf])


def test_pixel_errors_are_those_of_hidden_pixels_in_units_of_the_noise():
    truth = np.zeros((2, 5, 64, 64))
    truth[:, 2, 32, 32] = 10.0
    hidden = np.zeros(truth.shape, bool)
    hidden[..., :8, :8] = True
    noise = np.array([1.0, 1.0, 0.5, 1.0, 1.0])
    rebuilt = np.where(hidden, truth + noise[:, None, None] * np.array([1.0, 3.0])[:, None, None, None], 99.0)
    scores = pixel_scores(rebuilt, truth, hidden, noise)
    assert scores["rms error"] == pytest.approx([1, 3])
    assert scores["median error"] == pytest.approx([1.4826, 3 * 1.4826])
    assert scores["PSNR"] == pytest.approx([20 * np.log10(10 / 0.5), 20 * np.log10(10 / 1.5)])
    assert np.isnan(pixel_scores(rebuilt, truth, np.zeros_like(hidden), noise)["PSNR"]).all()


def test_pixels_without_data_are_not_scored():
    """The model is off by 1 everywhere; where there is nothing to compare with it is not off by the flux."""
    galaxy, hidden = np.array(gaussian(500.0, 3.0, 3.0)) + 5, np.ones((1, 5, 64, 64), bool)
    image = np.where(np.arange(64) < 20, np.nan, galaxy)
    truth = Truth(np.arange(1), image, galaxy, galaxy, galaxy, measure(np.nan_to_num(image)))
    scores = image_errors(galaxy + 1, hidden, truth, np.ones(5))
    assert scores["rms error"] == pytest.approx(1)
    assert scores["median error"] == pytest.approx(1.4826)


def test_chi2_of_noise_alone_is_one():
    """For spectra with a slope and a line, with different noise in blue and red, rebuilt without noise."""
    rng = np.random.default_rng(0)
    clean = np.tile(1e-4 * (WAVE - 6000) + 5 * np.exp(-0.5 * ((WAVE - 7000) / 8) ** 2), (50, 1))
    sigma = np.where(WAVE < 6000, 0.5, 0.1)
    noisy = clean + sigma * rng.standard_normal(clean.shape)
    measured = spectrum_scores.noise(noisy)
    assert np.median(measured[:, WAVE < 5900]) == pytest.approx(0.5, rel=0.05)
    assert np.median(measured[:, WAVE > 6100]) == pytest.approx(0.1, rel=0.05)
    coarse = spectrum_scores.coarse_noise(measured)
    rebuilt, truth = pool(clean, 5), pool(noisy, 5)
    hidden = np.zeros(truth.shape, bool)
    hidden[:, 20:] = True
    chi2 = spectrum_scores.chi2(rebuilt, truth, coarse, hidden)
    assert np.median(chi2) == pytest.approx(1, abs=0.2)
    wrong_elsewhere = np.where(hidden, rebuilt, 99.0)  # visible pixels do not count
    np.testing.assert_array_equal(spectrum_scores.chi2(wrong_elsewhere, truth, coarse, hidden), chi2)
    assert np.isnan(spectrum_scores.chi2(rebuilt, truth, coarse, ~hidden & False)).all()


def test_slope_of_the_continuum_ignores_lines():
    wave, redshift = pool(WAVE, 5), np.array([0.1])
    line = 50 * np.exp(-0.5 * ((wave - 6564.6 * 1.1) / 20) ** 2)
    free = spectrum_scores.continuum(wave, redshift)
    measured = spectrum_scores.slope(wave, (0.3e-3 * wave + line)[None], free)
    assert measured == pytest.approx(0.3, rel=1e-6)
    assert image_scores.magnitude(np.array([100.0]), 27.0) == pytest.approx(22)
