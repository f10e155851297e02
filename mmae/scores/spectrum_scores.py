"""Scores of rebuilt spectra: chi2 of hidden pixels, and the slope of the continuum.

Both are measured on the paper's pixels of 24 angstrom, so that models of any resolution can be compared.
Spectra are normalised: centred on 0, in units of their own rms.
"""

import numpy as np

from catalogs.store.spectra import POOL, STORED_POOL, pool
from mmae.scores.lines import LINES

BLOCK = 27
"""Pixels of a store, 130 A, over which the noise is taken to be constant; a divisor of 1296."""
COARSE = POOL // STORED_POOL
"""Number of pixels of a store in a pixel of 24 A."""


def noise(spectrum: np.ndarray) -> np.ndarray:
    """Noise of each pixel of spectra (B, 1296) of a store, which have no ivar: (B, 1296).

    1.4826 median|d| / sqrt 2, where d are differences of neighbouring pixels in blocks of 130 A: the spectrum
    of a galaxy hardly changes between neighbouring pixels, and the median is robust against narrow lines.
    """
    blocks = spectrum.reshape(len(spectrum), -1, BLOCK)
    sigma = 1.4826 * np.median(np.abs(np.diff(blocks, axis=2)), axis=2) / np.sqrt(2)
    return sigma.repeat(BLOCK, axis=1)


def coarse_noise(sigma: np.ndarray) -> np.ndarray:
    """Noise of means of neighbouring pixels, whose noise is independent: (B, 1296) -> (B, 259)."""
    return np.sqrt(pool(sigma**2, COARSE) / COARSE)


def chi2(rebuilt: np.ndarray, truth: np.ndarray, sigma: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Mean of ((rebuilt - truth) / noise)^2 over the hidden pixels of each galaxy.

    All (B, L), pixels of 24 A. Returns (B,): 1 for a perfect model, NaN without hidden pixels of known noise.
    """
    known = hidden & (sigma > 0)
    ratio = np.divide(rebuilt - truth, sigma, out=np.zeros_like(sigma), where=known)
    count = known.sum(1)
    return np.where(count > 0, (ratio**2).sum(1) / np.maximum(count, 1), np.nan)


def continuum(wave: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Mask (B, L) of the pixels (L,) of galaxies (B,) that are free of the main lines."""
    free = np.ones((len(redshift), len(wave)), bool)
    for line in LINES.values():
        observed, half = (side * (1 + redshift[:, None]) for side in (line.rest, line.half_window))
        free &= np.abs(wave - observed) > half
    return free


def slope(wave: np.ndarray, flux: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Slopes of straight lines fitted to the used pixels of spectra (B, L), rms per 1000 A: (B,)."""
    count = used.sum(1, keepdims=True)
    assert (count > 1).all(), "no pixel is free of lines"
    x = np.broadcast_to((wave - wave.mean()) / 1000, flux.shape)
    x, y = (np.where(used, v - (v * used).sum(1, keepdims=True) / count, 0) for v in (x, flux))
    return (x * y).sum(1) / (x * x).sum(1)
