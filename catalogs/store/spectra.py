"""Spectra as input of the model: ivar-weighted normalisation, then a mean over neighbouring pixels."""

import numpy as np

POOL = 30
"""Neighbouring pixels averaged into one: 7783 (or 7781) pixels become 259 (paper, section 4)."""
POOLED_LENGTH = 259
WAVE = np.linspace(3600.0, 9824.0, 7783)
"""Wavelengths of GalaxiesML-Spectra, angstrom, vacuum: those of DESI."""
STORED_POOL = 6
"""Pixels averaged into one in a training store: 4.8 A, enough for the width of a galaxy's lines."""

ARTEFACT = 100.0
"""Distance from the mean, in rms, beyond which a first or last pixel is an edge artefact."""


def normalise(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Centre each spectrum on its ivar-weighted mean and scale it by its ivar-weighted rms.

    The normalisation of QuasarNET (Busca & Balland 2018), adopted by the paper (section 4).

    Parameters
    ----------
    flux, ivar : (..., P)
        Flux density and its inverse variance, in any unit. A pixel is valid where both are finite,
        ivar > 0 and flux != 0.

    Returns
    -------
    (..., P) float64
        Dimensionless; 0 in invalid pixels, all 0 where nothing is valid. A first or last pixel beyond
        |100| is replaced with the median of the valid ones.
    """
    valid, centred, rms = _centred(flux, ivar)
    result = centred / np.where(rms > 0, rms, 1.0)

    for edge in (0, -1):
        for row in np.argwhere(np.abs(result[..., edge]) > ARTEFACT):
            spectrum = result[tuple(row)]
            spectrum[edge] = np.median(spectrum[valid[tuple(row)]])
    return result


def pooled_noise(flux: np.ndarray, ivar: np.ndarray, pixels: int = POOL) -> np.ndarray:
    """Noise of spectra after `normalise` and `pool`, by linear propagation.

    Mean and rms are over some thousand pixels, so that their own errors are negligible beside a pixel's, and
    DESI's pixels are independent (Guy et al. 2023). A pixel of the normalised spectrum thus has the variance
    1 / (ivar rms^2), and a mean of n pixels the sum of their variances over n^2.

    flux, ivar : (..., P)
    Returns (..., P // pixels), NaN where any of the pixels is invalid or an edge artefact.
    """
    valid, centred, rms = _centred(flux, ivar)
    for edge in (0, -1):
        valid[..., edge] &= np.abs(centred[..., edge]) <= ARTEFACT * rms[..., 0]
    precision = np.where(valid, ivar, np.nan) * np.where(rms > 0, rms, np.nan) ** 2
    return np.sqrt(pool(1 / precision, pixels) / pixels)


def _centred(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mask of valid pixels, (..., P); spectra less their ivar-weighted mean, (..., P), 0 where invalid; and
    their ivar-weighted rms, (..., 1)."""
    flux = np.asarray(flux, np.float64)
    ivar = np.asarray(ivar, np.float64)
    valid = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0) & (flux != 0)
    weight = np.where(valid, ivar, 0.0)
    clean = np.where(valid, flux, 0.0)
    total = weight.sum(-1, keepdims=True)
    total = np.where(total > 0, total, 1.0)
    centred = np.where(valid, clean - (weight * clean).sum(-1, keepdims=True) / total, 0.0)
    return valid, centred, np.sqrt((weight * centred**2).sum(-1, keepdims=True) / total)


def pool(spectrum: np.ndarray, pixels: int = POOL) -> np.ndarray:
    """Average neighbouring pixels: (..., P) -> (..., P // pixels); those left over at the end are dropped."""
    length = spectrum.shape[-1] // pixels * pixels
    return spectrum[..., :length].reshape(*spectrum.shape[:-1], length // pixels, pixels).mean(-1)
