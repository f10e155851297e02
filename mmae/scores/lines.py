"""Emission lines of a galaxy at a known redshift: a Gaussian on a straight continuum, fitted to each.

The fit is astropy's (trust-region least squares within bounds), which specutils would only wrap, at the price
of five more packages and of units carried through every fit.
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
    """Wavelength at rest, angstrom in vacuum."""
    reach: float
    """Half the window of the fit, angstrom at rest: room for the line, and as little as can be for others."""


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

FEWEST = 6
"""Pixels on each side of a line that a fit of five numbers takes at least."""
PIXEL, COARSE_PIXEL = STEP * STORED_POOL, STEP * POOL
"""Angstrom, of a training store and of the paper's model."""
NARROWEST = 0.4
"""Least sigma of a fit, pixels."""

FIT = np.dtype([(name, np.float64) for name in ("centre", "height", "fwhm", "scatter")])
"""Of a line: centre and FWHM in angstrom, height above the continuum, and the robust scatter of the spectrum
about the fit, both in the unit of the spectrum. NaN where the line is not in the spectrum."""


def reach(line: Line, redshift: np.ndarray, pixel: float = PIXEL) -> np.ndarray:
    """Half the window of a line in observed angstrom, for spectra of such pixels; (B,) -> (B,)."""
    return np.maximum(line.reach * (1 + redshift), FEWEST * pixel)


def search(line: Line, redshift: np.ndarray) -> np.ndarray:
    """How far from where it should be a line is looked for, observed angstrom; the same for every model."""
    return reach(line, redshift) / 2


def widest(line: Line, redshift: np.ndarray) -> np.ndarray:
    """The largest FWHM a fit to a spectrum of a store can give, observed angstrom."""
    return reach(line, redshift) / 2 * gaussian_sigma_to_fwhm


def in_spectrum(wave: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Whether the windows of LINES lie in spectra, even in those of coarse pixels, so that all models are
    judged by the same lines: (P,) and (B,) -> (B, L) bool."""
    observed = observed_lines(redshift)
    half = np.stack([reach(line, redshift, COARSE_PIXEL) for line in LINES.values()], 1)
    return (wave[0] <= observed - half) & (observed + half <= wave[-1])


def observed_lines(redshift: np.ndarray) -> np.ndarray:
    """Where LINES are observed, angstrom: (B,) -> (B, L)."""
    return (1 + redshift)[:, None] * [line.rest for line in LINES.values()]


def fit(wave: np.ndarray, flux: np.ndarray, line: Line, redshift: float) -> tuple[float, ...]:
    """One line in one spectrum, (P,) and (P,), in the order of FIT.

    The centre is bound to `search`, sigma to half the window; the height may be negative.
    """
    pixel = float(wave[1] - wave[0])
    z = np.array(redshift)
    observed, half, near = line.rest * (1 + z), float(reach(line, z, pixel)), float(search(line, z))
    used = np.abs(wave - observed) <= half
    x, y = (wave[used] - observed) / pixel, flux[used].astype(np.float64)
    level = float(np.median(y))
    bound = near / pixel
    tallest = np.argmax(np.where(np.abs(x) <= max(bound, 1), y, -np.inf))
    begin = Gaussian1D(
        float(y[tallest]) - level,
        float(np.clip(x[tallest], -bound, bound)),
        max(2 * NARROWEST, min(2.0, half / pixel / 4)),
        bounds={"mean": (-bound, bound), "stddev": (NARROWEST, half / pixel / 2)},
    )
    found = TRFLSQFitter()(begin + Linear1D(0.0, level), x, y, maxiter=50)
    height, centre, sigma, _, _ = found.parameters
    # five numbers were fitted, to as few as twelve pixels
    scatter = 1.4826 * np.median(np.abs(y - found(x))) * math.sqrt(len(x) / (len(x) - len(found.parameters)))
    return observed + centre * pixel, height, sigma * pixel * gaussian_sigma_to_fwhm, float(scatter)


def fit_lines(wave: np.ndarray, flux: np.ndarray, redshift: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """All lines that are wanted of galaxies.

    wave (P,); flux (B, P); redshift (B,); wanted (B, L) bool, of LINES. Gives (B, L) of FIT.
    """
    fits = np.full(wanted.shape, np.nan, FIT)
    lines = list(LINES.values())
    with warnings.catch_warnings():  # a fit that gives up is judged by what it gives
        warnings.simplefilter("ignore", AstropyUserWarning)
        for galaxy, which in np.argwhere(wanted):
            fits[galaxy, which] = fit(wave, flux[galaxy], lines[which], float(redshift[galaxy]))
    return fits


def signal_to_noise(fits: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """S/N of lines of FIT, were each measured by its own profile: height sqrt(sqrt(pi) sigma) / noise.

    That is sqrt(sum (h g)^2) / noise over the pixels of a Gaussian g. `noise`: of a pixel of PIXEL angstrom.
    """
    sigma = fits["fwhm"] * gaussian_fwhm_to_sigma / PIXEL
    return fits["height"] * np.sqrt(math.sqrt(math.pi) * sigma) / noise
