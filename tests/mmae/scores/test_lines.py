"""Fits of lines of known height, width and centre; scores of missing, poor and false lines."""

import numpy as np
import pytest
from astropy.stats import gaussian_fwhm_to_sigma, gaussian_sigma_to_fwhm

from mmae.scores import line_scores
from mmae.scores.line_scores import ALL, LineFits, scorecard
from mmae.scores.lines import FIT, LINES, PIXEL, fit, fit_lines, in_spectrum, signal_to_noise

WAVE = 3602.0 + PIXEL * np.arange(1296)
NOISE = 0.1


def spectrum(centre: float, height: float, sigma: float, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """A Gaussian on a continuum that rises by 0.1 in 1000 A: (1296,)."""
    line = height * np.exp(-0.5 * ((WAVE - centre) / sigma) ** 2)
    return line + 1e-4 * (WAVE - 6000) + noise * np.random.default_rng(seed).standard_normal(len(WAVE))


def test_a_line_without_noise_is_fitted_exactly():
    centre = LINES["Hα"].rest * 1.1 + 7
    fitted = fit(WAVE, spectrum(centre, 3.0, 12.0), LINES["Hα"], 0.1)
    assert fitted == pytest.approx((centre, 3.0, 12.0 * gaussian_sigma_to_fwhm, 0), rel=1e-4, abs=1e-4)


def test_errors_of_a_fit_are_those_of_its_signal_to_noise():
    """For a Gaussian in white noise: sqrt(3/2)/(S/N) of the height, sqrt(2) sigma/(S/N) of the centre."""
    centre, sigma = LINES["Hα"].rest * 1.1, 12.0
    fits = [fit(WAVE, spectrum(centre, 1.0, sigma, NOISE, seed), LINES["Hα"], 0.1) for seed in range(60)]
    table = np.array([tuple(fitted) for fitted in fits], FIT)
    ratio = signal_to_noise(table, NOISE).mean()
    assert ratio == pytest.approx(np.sqrt(np.sqrt(np.pi) * sigma / PIXEL) / NOISE, rel=0.05)  # 21.05
    assert table["height"].std() == pytest.approx(np.sqrt(1.5) / ratio, rel=0.3)
    assert table["centre"].std() == pytest.approx(np.sqrt(2) * sigma / ratio, rel=0.3)
    assert table["scatter"].mean() == pytest.approx(NOISE, rel=0.1)


def test_a_line_is_evaluated_where_its_whole_window_is_in_the_spectrum():
    """Hα, window 100 A at rest but at least 144 A: up to z = (9818 - 6564.6 - 100 (1 + z)) / 6564.6."""
    last = (WAVE[-1] - 6564.6 - 100) / 6664.6
    inside = in_spectrum(WAVE, np.array([0.0, last - 1e-3, last + 1e-3, 3.0]))
    assert inside[:, list(LINES).index("Hα")].tolist() == [True, True, False, False]
    assert inside[:, list(LINES).index("Lyα")].tolist() == [False, False, False, True]


def fits_of(*rebuilt: np.ndarray, height: float = 3.0) -> LineFits:
    """Fits of Hα in rebuilt spectra and in a true one, with S/N 63 or without the line."""
    n, redshift = len(rebuilt), np.full(len(rebuilt), 0.1)
    selected = np.zeros((n, len(LINES)), bool)
    selected[:, list(LINES).index("Hα")] = True
    true = np.tile(spectrum(LINES["Hα"].rest * 1.1, height, 12.0), (n, 1))
    fits = (fit_lines(WAVE, flux, redshift, selected) for flux in (true, np.stack(rebuilt)))
    return LineFits(*fits, np.full(selected.shape, NOISE), redshift)


def row(fits: LineFits, name: str = ALL, label: str = ">10") -> dict:
    card = scorecard(fits)
    return dict(card[(card["line"] == name) & (card["true S/N"] == label)][0])


def test_a_perfect_line_has_no_error():
    centre = LINES["Hα"].rest * 1.1
    scores = row(fits_of(spectrum(centre, 3.0, 12.0)))
    assert (scores["n"], scores["detected"]) == (1, 1)
    for name in ("centre error", "velocity error", "height error", "width error", "flux error"):
        assert scores[name] == pytest.approx(0, abs=1e-3)


def test_a_flat_spectrum_scores_no_better_than_a_poor_line():
    centre = LINES["Hα"].rest * 1.1
    poor = row(fits_of(spectrum(centre + 24, 0.6, 40.0)))
    flat = row(fits_of(np.zeros(len(WAVE))))
    assert (poor["detected"], flat["detected"]) == (1, 0)
    assert flat["height error"] == flat["flux error"] == 1
    assert flat["centre error"] == pytest.approx(55)  # half of 100 A x 1.1
    assert flat["width error"] == pytest.approx(55 / 12 - 1)  # sigma of the widest fit: half the window
    assert poor["height error"] == pytest.approx(0.8, abs=0.01)
    assert poor["width error"] == pytest.approx(40 / 12 - 1, abs=0.02)
    assert poor["height ratio"] == pytest.approx(0.2, abs=0.01)
    assert all(poor[name] < flat[name] for name in ("centre error", "width error", "height error"))


def test_a_line_below_the_noise_is_not_detected():
    centre, sigma = LINES["Hα"].rest * 1.1, 12.0
    limit = 3 * NOISE / np.sqrt(np.sqrt(np.pi) * sigma / PIXEL)
    heights = (0.9 * limit, 1.1 * limit)
    detected = line_scores.detected(fits_of(*(spectrum(centre, height, sigma) for height in heights)))
    assert detected.any(1).tolist() == [False, True]


def test_a_rebuilt_line_without_a_true_one_is_a_false_line():
    centre = LINES["Hα"].rest * 1.1
    fits = fits_of(spectrum(centre, 1.0, 12.0), np.zeros(len(WAVE)), height=0.0)
    scores = row(fits, "Hα")
    assert (scores["n"], scores["n without"], scores["false lines"]) == (0, 2, 0.5)


def test_ratios_of_lines():
    """A ratio that doubles is off by log10(2); one with a missing line counts as one dex."""
    lines = np.zeros((2, len(LINES)), FIT)
    fwhm = 2 * PIXEL / gaussian_fwhm_to_sigma
    for field, value in (("centre", 1.0), ("height", 1.0), ("fwhm", fwhm), ("scatter", 0.0)):
        lines[field] = value
    rebuilt = lines.copy()
    rebuilt["height"][:, list(LINES).index("Hα")] = (2.0, 0.0)
    fits = LineFits(lines, rebuilt, np.full(lines.shape, 0.01), np.zeros(2))
    balmer = line_scores.ratio_table(fits)[1]
    assert (balmer["n"], balmer["both detected"]) == (2, 0.5)
    assert balmer["offset"] == pytest.approx(np.log10(2))
    assert balmer["ratio error"] == pytest.approx((np.log10(2) + 1) / 2)
