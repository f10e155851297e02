"""Artefacts in spectra: single pixels too sharp for the spectrograph, replaced with the median flux.

They are cosmic rays and detector edges that DESI's own masks miss. An emission line, however narrow, extends
to neighbouring pixels: by DESI's resolution matrices the two beside its peak have 0.38 to 0.6 of its height.
"""

import numpy as np

SIGNIFICANCE = 10.0
"""Smallest excess of an artefact, in units of its error and of the scatter around it."""
WINDOW = 51
"""Pixels over which the median and the scatter are taken: 41 A, many times the width of a narrow line."""
SHARPNESS = 0.25
"""Largest mean excess of an artefact's neighbours, as a share of its own."""


def replace_artefacts(flux: np.ndarray, ivar: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Replace artefacts with the median flux of their spectrum, and set their ivar to 0.

    An artefact is a valid pixel whose excess over the running median (51 pixels) is, up or down,

    - more than 10 times its error, ivar ** -0.5,
    - more than 10 times the scatter (1.4826 MAD) of those 51 pixels, and
    - more than 4 times the mean excess of its two neighbours; beside an edge or a gap there is only one
      neighbour, or none, which counts as 0.

    Its ivar becomes 0, as the flux there is unknown. Normalisation (spectra.py), for which a pixel is valid
    where ivar > 0, then skips it as any gap; the median is for readers that ignore ivar, as in the released
    data.

    Parameters
    ----------
    flux, ivar : (n, P), any unit; a pixel is valid where ivar > 0.

    Returns
    -------
    flux, ivar : (n, P), new arrays
    artefact : (n, P) bool
    """
    artefact = _is_artefact(flux, ivar)
    flux, ivar = flux.copy(), np.where(artefact, ivar.dtype.type(0), ivar)
    for row in np.flatnonzero(artefact.any(1)):
        flux[row, artefact[row]] = np.median(flux[row, ivar[row] > 0])
    return flux, ivar, artefact


def _is_artefact(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Mask of the artefacts, (n, P) bool."""
    valid = ivar > 0
    error = np.where(valid, ivar, 1.0) ** -0.5
    beside, neighbours = _mean_of_neighbours(np.where(valid, flux, 0.0), valid)
    # smaller steps from the neighbours cannot pass: only the few candidates left need a running median
    step = np.abs(flux - beside) > (1 - SHARPNESS) * SIGNIFICANCE * error
    row, column = np.nonzero(valid & (step | (neighbours == 0)))

    half = WINDOW // 2
    padded = np.pad(np.where(valid, flux, np.nan), ((0, 0), (half, half)), constant_values=np.nan)
    window = padded[row[:, None], column[:, None] + np.arange(WINDOW)]  # (candidates, WINDOW)
    median = np.nanmedian(window, axis=1)
    scatter = 1.4826 * np.nanmedian(np.abs(window - median[:, None]), axis=1)
    excess = flux[row, column] - median
    excess_beside = np.where(neighbours[row, column] > 0, beside[row, column] - median, 0)
    passed = (
        (np.abs(excess) > SIGNIFICANCE * error[row, column])
        & (np.abs(excess) > SIGNIFICANCE * scatter)
        & (excess_beside * np.sign(excess) < SHARPNESS * np.abs(excess))
    )
    artefact = np.zeros(flux.shape, bool)
    artefact[row[passed], column[passed]] = True
    return artefact


def _mean_of_neighbours(flux: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over the valid pixels beside each pixel, (n, P), and their number: 0, 1 or 2."""
    total, count = np.zeros(flux.shape), np.zeros(flux.shape, int)
    for pixel, neighbour in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[:, :-1], np.s_[:, 1:])):
        total[pixel] += flux[neighbour]
        count[pixel] += valid[neighbour]
    return total / np.maximum(count, 1), count
