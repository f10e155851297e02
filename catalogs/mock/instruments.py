"""Instruments of the mock survey: passbands and sky of HSC, fibres and arms of DESI."""

import numpy as np
from speclite import filters

from catalogs.store.format import BANDS
from catalogs.surveys.desi import SKY_LINES
from catalogs.surveys.galaxiesml import ZERO_POINT

C = 2.99792458e18
"""Speed of light, A/s."""

# --- DESI --------------------------------------------------------------------------------------------------

PIXELS = 7783
WAVE = np.linspace(3600.0, 9824.0, PIXELS)
"""Wavelength grid of GalaxiesML-Spectra, A, vacuum."""
STEP = WAVE[1] - WAVE[0]
FIBRE_DIAMETER = 1.5
"""Diameter of a fibre, arcsec."""
FIBRE_SEEING = 1.1
"""FWHM of the seeing at the focal plane of DESI, arcsec."""
RESOLUTION = 1.8
"""FWHM of a line, A, nearly the same from R = 2000 at 3600 A to 5500 at 9800 A (Abareshi et al. 2022)."""
FIBRE_SKY = 2.5
"""Sky in a fibre, 1e-17 erg/s/cm2/A: scales the Poisson noise of the object."""
NOISE = np.array(
    [
        (3600, 5.0), (3650, 2.6), (3750, 1.5), (3850, 1.05), (4000, 0.80), (4250, 0.60), (4500, 0.47),
        (4750, 0.41), (5250, 0.33), (5650, 0.33), (5780, 0.45), (5900, 0.30), (6200, 0.25), (6900, 0.21),
        (7500, 0.21), (7580, 0.28), (7700, 0.18), (8100, 0.165), (8750, 0.15), (9250, 0.16), (9500, 0.19),
        (9824, 0.25),
    ]
)  # fmt: skip
"""Noise between sky lines in 1000 s of dark time, (A, 1e-17 erg/s/cm2/A), from coadds of DESI's early data
release; the two bumps are the dichroics."""


def _spectrum_sigma() -> np.ndarray:
    """Noise of a 1000 s exposure with its sky lines, 1e-17 erg/s/cm2/A, (7783,)."""
    level = np.exp(np.interp(WAVE, NOISE[:, 0], np.log(NOISE[:, 1])))
    return level * (1 + 1.5 * sky_lines(1.5).sum(0))


def sky_lines(sigma: float) -> np.ndarray:
    """Gaussians of height 1 and width `sigma` (A) at the sky lines, (26, 7783)."""
    return np.exp(-0.5 * ((WAVE - SKY_LINES[:, None]) / sigma) ** 2)


SPECTRUM_SIGMA = _spectrum_sigma()
SKY_LINE_PROFILES = sky_lines(RESOLUTION / 2.355)

# --- HSC ---------------------------------------------------------------------------------------------------

SEEING = np.array([0.79, 0.75, 0.61, 0.68, 0.68])
"""Median FWHM g r i z y, arcsec, pixel response included (Aihara et al. 2019, PDR2 Wide)."""
SEEING_SCATTER = 0.1
"""Scatter of ln FWHM between fields and bands; bands of one field are observed on different nights."""
WINGS = 0.3
"""Share of the PSF's light in its wings: 8, 2 and 0.6 % of the peak are left at 2.2, 3.4 and 4.5 HWHM."""
SKY_SIGMA = np.array([0.037, 0.057, 0.077, 0.156, 0.287])
"""Sky noise a pixel, g r i z y, HSC-SSP Wide coadds."""
SKY_CORRELATION = 0.1
"""Correlation of the noise of neighbouring pixels, which the coadd's warping smooths."""
GAIN = np.array([2300.0, 2400.0, 3300.0, 2000.0, 1100.0])
"""Effective electrons a unit of flux: dark sky of 21.9 20.9 19.9 18.9 18.2 mag/arcsec^2 over SKY_SIGMA^2."""
SATURATION = 10 ** (0.4 * (ZERO_POINT - 20.0))
"""Flux above which a pixel is saturated: the peak of a star of magnitude 17."""
FILTERS = dict(zip(BANDS, ("hsc2017-g", "hsc2017-r2", "hsc2017-i2", "hsc2017-z", "hsc2017-y"), strict=True))
"""Total responses (Kawanomoto et al. 2018) in speclite; r2 and i2 replaced r and i in 2016."""
GRID = WAVE[0] + STEP * np.arange(9190)
"""Wavelengths of SEDs, A: WAVE extended to the red end of y."""


def _band_weights() -> np.ndarray:
    """Weights that turn f_lambda on GRID into image flux: photon-counting AB magnitudes, (5, len(GRID))."""
    curves = [filters.load_filter(name) for name in FILTERS.values()]
    response = np.stack([np.interp(GRID, curve.wavelength, curve.response) for curve in curves])
    mean = GRID * response / (C / GRID * response).sum(1, keepdims=True)  # <f_nu> = mean @ f_lambda
    return mean * 1e-17 / 3.631e-20 * 10 ** (0.4 * ZERO_POINT)


BAND_WEIGHTS = _band_weights()
