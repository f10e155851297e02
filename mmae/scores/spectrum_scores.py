"""How well a spectrum is rebuilt: chi2 of hidden pixels, and the slope of the continuum.

Both are measured on pixels of 24 angstrom, those of the paper, so that models of any resolution can be
compared. Spectra are normalised: centred on 0, in units of their own rms.
"""

import numpy as np

from catalogs.store.spectra import POOL, STORED_POOL, pool
from mmae.scores.lines import LINES

BLOCK = 27
"""Pixels of a store, 130 A, over which the noise is taken as one; they part 1296."""
COARSE = POOL // STORED_POOL
"""Pixels of a store in one of 24 A."""


def noise(spectrum: np.ndarray) -> np.ndarray:
    """Noise of each pixel of spectra (B, 1296) as a store has them, without an ivar: (B, 1296).

    1.4826 median|d| / sqrt 2, d being differences of neighbouring pixels in blocks of 130 A: a galaxy hardly
    changes from one pixel to the next, and the median passes over its narrow lines.
    """
    blocks = spectrum.reshape(len(spectrum), -1, BLOCK)
    sigma = 1.4826 * np.median(np.abs(np.diff(blocks, axis=2)), axis=2) / np.sqrt(2)
    return sigma.repeat(BLOCK, axis=1)


def coarse_noise(sigma: np.ndarray) -> np.ndarray:
    """Noise of means of neighbouring pixels of independent noise: (B, 1296) -> (B, 259)."""
    return np.sqrt(pool(sigma**2, COARSE) / COARSE)


def chi2(rebuilt: np.ndarray, truth: np.ndarray, sigma: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Mean of ((rebuilt - truth) / noise)^2 over the hidden pixels of each galaxy.

    All (B, L), pixels of 24 A. (B,); NaN where nothing is hidden whose noise is known; 1 for a perfect model.
    """
    known = hidden & (sigma > 0)
    ratio = np.divide(rebuilt - truth, sigma, out=np.zeros_like(sigma), where=known)
    count = known.sum(1)
    return np.where(count > 0, (ratio**2).sum(1) / np.maximum(count, 1), np.nan)


def continuum(wave: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Which pixels (L,) of galaxies (B,) are free of the main lines: (B, L) bool."""
    free = np.ones((len(redshift), len(wave)), bool)
    for line in LINES.values():
        observed, half = (side * (1 + redshift[:, None]) for side in (line.rest, line.reach))
        free &= np.abs(wave - observed) > half
    return free


def slope(wave: np.ndarray, flux: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Slopes of straight lines through the used pixels of spectra (B, L), rms per 1000 A: (B,)."""
    count = used.sum(1, keepdims=True)
    assert (count > 1).all(), "no pixel is free of lines"
    x = np.broadcast_to((wave - wave.mean()) / 1000, flux.shape)
    x, y = (np.where(used, v - (v * used).sum(1, keepdims=True) / count, 0) for v in (x, flux))
    return (x * y).sum(1) / (x * x).sum(1)
