"""The spectrograph of the mock survey: wavelengths, fibres and noise of DESI."""

import numpy as np

from catalogs.store.spectra import WAVE
from catalogs.surveys.desi import SKY_LINES

PIXELS = len(WAVE)
STEP = WAVE[1] - WAVE[0]
BLUE, RED = (WAVE[0] + STEP * np.arange(*pixels) for pixels in ((-500, 0), (0, 9190)))
"""Wavelengths from 3200 A, where the u band begins, to WAVE; and WAVE extended to the red end of y, A."""
GRID = np.concatenate([BLUE, RED])
"""Wavelengths of SEDs, A."""
PIECES = slice(0, len(BLUE)), slice(len(BLUE), len(GRID))
"""Where BLUE and RED are in GRID. What is drawn or summed over GRID is so piece by piece, so that nothing of
BLUE moves the last bit of an image or a spectrum that does not see it."""
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
