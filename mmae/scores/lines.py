"""Emission lines of a galaxy of known redshift: fits of a Gaussian on a linear continuum.

The fit is astropy's (bounded trust-region least squares). specutils would only wrap it, at the cost of five
more packages and of units in every fit.
"""

import math
import warnings
from typing import NamedTuple

import numpy as np
from astropy.modeling.fitting import TRFLSQFitter
from astropy.modeling.models import Gaussian1D, Linear1D
from astropy.stats import gaussian_fwhm_to_sigma, gaussian_sigma_to_fwhm
from astropy.utils.exceptions import AstropyUserWarning

from catalogs.store.spectra import POOL, STORED_POOL
from catalogs.surveys.desi import STEP

LIGHT_SPEED = 299792.458
"""km/s"""


class Line(NamedTuple):
    rest: float
    """Rest wavelength, angstrom in vacuum."""
    half_window: float
    """Half the window of the fit, rest-frame angstrom: wide enough for the line, and for few others."""


LINES = {
    "Lyα": Line(1215.67, 60),
    "C IV": Line(1549.06, 60),
    "C III]": Line(1908.73, 80),
    "Mg II": Line(2799.12, 100),
    "[O II]": Line(3728.5, 40),
    "Hβ": Line(4862.7, 60),
    "[O III]": Line(5008.2, 40),
    "Hα": Line(6564.6, 100),
}
"""The main emission lines."""

MIN_PIXELS = 6
"""Smallest number of pixels on each side of a line in a fit of five parameters."""
PIXEL, COARSE_PIXEL = STEP * STORED_POOL, STEP * POOL
"""Pixel of a training store and of the paper's model, angstrom."""
MIN_SIGMA = 0.4
"""Smallest sigma of a fit, pixels."""

FIT = np.dtype([(name, np.float64) for name in ("centre", "height", "fwhm", "scatter")])
"""Fit of a line: centre and FWHM in angstrom, height above the continuum, and the robust scatter of the
spectrum about the fit, both in the unit of the spectrum. NaN where the line is not in the spectrum."""


def half_window(line: Line, redshift: np.ndarray, pixel: float = PIXEL) -> np.ndarray:
    """Half the window of a line, observed angstrom, in spectra of this pixel size; (B,) -> (B,)."""
    return np.maximum(line.half_window * (1 + redshift), MIN_PIXELS * pixel)


def max_shift(line: Line, redshift: np.ndarray) -> np.ndarray:
    """Largest distance of a fitted line from its expected wavelength, observed angstrom; for every model."""
    return half_window(line, redshift) / 2


def max_fwhm(line: Line, redshift: np.ndarray) -> np.ndarray:
    """Largest FWHM of a fit to a spectrum of a store, observed angstrom."""
    return half_window(line, redshift) / 2 * gaussian_sigma_to_fwhm


def in_spectrum(wave: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Whether the windows of LINES lie in the spectra, even at coarse pixels, so that all models are
    evaluated on the same lines: (P,) and (B,) -> (B, L) bool."""
    observed = observed_lines(redshift)
    half = np.stack([half_window(line, redshift, COARSE_PIXEL) for line in LINES.values()], 1)
    return (wave[0] <= observed - half) & (observed + half <= wave[-1])


def observed_lines(redshift: np.ndarray) -> np.ndarray:
    """Observed wavelengths of LINES, angstrom: (B,) -> (B, L)."""
    return (1 + redshift)[:, None] * [line.rest for line in LINES.values()]


def fit(wave: np.ndarray, flux: np.ndarray, line: Line, redshift: float) -> tuple[float, ...]:
    """Fit one line in one spectrum, (P,) and (P,); returns the fields of FIT.

    The centre is bounded by `max_shift`, sigma by half the window; the height may be negative.
    """
    pixel = float(wave[1] - wave[0])
    z = np.array(redshift)
    observed, half, shift = line.rest * (1 + z), float(half_window(line, z, pixel)), float(max_shift(line, z))
    used = np.abs(wave - observed) <= half
    x, y = (wave[used] - observed) / pixel, flux[used].astype(np.float64)
    level = float(np.median(y))
    bound = shift / pixel
    peak = np.argmax(np.where(np.abs(x) <= max(bound, 1), y, -np.inf))
    initial = Gaussian1D(
        float(y[peak]) - level,
        float(np.clip(x[peak], -bound, bound)),
        max(2 * MIN_SIGMA, min(2.0, half / pixel / 4)),
        bounds={"mean": (-bound, bound), "stddev": (MIN_SIGMA, half / pixel / 2)},
    )
    fitted = TRFLSQFitter()(initial + Linear1D(0.0, level), x, y, maxiter=50)
    height, centre, sigma, _, _ = fitted.parameters
    degrees = len(x) - len(fitted.parameters)  # of freedom: five parameters, as few as twelve pixels
    scatter = 1.4826 * np.median(np.abs(y - fitted(x))) * math.sqrt(len(x) / degrees)
    return observed + centre * pixel, height, sigma * pixel * gaussian_sigma_to_fwhm, float(scatter)


def fit_lines(wave: np.ndarray, flux: np.ndarray, redshift: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """Fit the selected lines of galaxies.

    wave (P,); flux (B, P); redshift (B,); selected (B, L) bool, of LINES. Returns (B, L) of FIT.
    """
    fits = np.full(selected.shape, np.nan, FIT)
    lines = list(LINES.values())
    with warnings.catch_warnings():  # the result of a fit that did not converge is used as it is
        warnings.simplefilter("ignore", AstropyUserWarning)
        for galaxy, line in np.argwhere(selected):
            fits[galaxy, line] = fit(wave, flux[galaxy], lines[line], float(redshift[galaxy]))
    return fits


def signal_to_noise(fits: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """S/N of lines of FIT, each measured with its own profile: height sqrt(sqrt(pi) sigma) / noise.

    That is sqrt(sum (h g)^2) / noise over the pixels of a Gaussian g; `noise` is that of a pixel of PIXEL
    angstrom.
    """
    sigma = fits["fwhm"] * gaussian_fwhm_to_sigma / PIXEL
    return fits["height"] * np.sqrt(math.sqrt(math.pi) * sigma) / noise
