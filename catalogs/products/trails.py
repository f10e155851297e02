"""Bleed trails: the charge of a saturated star that ran along the columns of its detector.

A trail lies across the whole of a cutout, a few pixels wide, brighter than what is on both sides of it, and
no brighter in the middle than at both ends: that tells it from a galaxy seen edge-on. Trails along rows are
found, too: coadds are turned. A diagonal one is not.
"""

from functools import reduce

import numpy as np

BESIDE = 8
"""Pixels from a trail to what it is compared with on both sides: trails are less wide."""
LEAST_SIZE = 4 * BESIDE
CONTRAST = 4.0
"""How much brighter a trail is than that, in units of the noise of a pixel."""
STEEP = np.float32(1.3)
"""How much brighter, besides, as a ratio: the wings of a star near by are less steep in most rows."""
ROWS = 0.75
"""Share of the pixels along a trail that are so much brighter."""
SAMPLED = (63, 21)
"""One in so many pixels along a trail is looked at first, both ends, and then in the few, two between."""
PEAKED = 1.5
"""How much brighter than its ends a trail may be half-way to the middle."""
MARGIN = 1
"""Pixels on both sides that its wings are in."""


def trails(image: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which of images (N, bands, H, W) have a trail, (N,) bool, and the pixels of these under it.

    The pixels are (M, bands, H, W) bool. NaN: no data; noise (N, bands): of a pixel, in the unit of the
    images; where it is not known, NaN, nothing is found, nor in images that are less wide than LEAST_SIZE.
    """
    if min(image.shape[2:]) < LEAST_SIZE:
        return np.zeros(len(image), bool), np.zeros((0, *image.shape[1:]), bool)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite pixels
        which = np.arange(len(image))
        few, of_few = image, noise
        for step in SAMPLED:
            suspect = _suspect(few, of_few, step)
            which = which[suspect]
            if not len(which):
                return np.zeros(len(image), bool), np.zeros((0, *image.shape[1:]), bool)
            few, of_few = image[which], noise[which]
        found = _columns(few, of_few)[:, :, None, :] | _columns(few.swapaxes(2, 3), of_few)[..., None]
    with_trail = found.any((1, 2, 3))
    has_trail = np.zeros(len(image), bool)
    has_trail[which[with_trail]] = True
    return has_trail, found[with_trail]


def _suspect(image: np.ndarray, noise: np.ndarray, step: int) -> np.ndarray:
    """Images (N,) with a column in a band that is bright in all of one in `step` rows that have data.

    Or a row in all of one in `step` columns. Or, of the first such step, where none of these has data: the
    next looks at more.
    """
    limit = CONTRAST * noise
    suspect = np.zeros(len(image), bool)
    for sampled in (image[:, :, ::step], image[..., ::step].swapaxes(2, 3)):
        # a sample of columns is copied, as each of its numbers is in another line
        excess = _excess(np.ascontiguousarray(sampled))
        least = reduce(np.fmin, (excess[:, :, row] for row in range(excess.shape[2])))  # (N, bands, W)
        bright = least > limit[..., None]
        if step == SAMPLED[0]:
            bright |= np.isnan(least) & np.isfinite(limit[..., None])
        suspect |= bright.any((1, 2))
    return suspect


def _excess(image: np.ndarray) -> np.ndarray:
    """How much brighter images (N, bands, H, W) are than the wings of a star that is at their sides."""
    side = np.empty_like(image)
    side[..., BESIDE:-BESIDE] = np.fmax(image[..., : -2 * BESIDE], image[..., 2 * BESIDE :])
    side[..., :BESIDE] = image[..., BESIDE : 2 * BESIDE]
    side[..., -BESIDE:] = image[..., -2 * BESIDE : -BESIDE]
    return image - np.fmax(side, STEEP * side)


def _columns(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Columns (N, bands, W) of images that are a trail, with a margin."""
    height = image.shape[2]
    end, halfway = height // 8, 3 * height // 8
    excess = _excess(image)
    known = np.isfinite(excess)
    bright = (excess > CONTRAST * noise[:, :, None, None]).sum(2)
    trail = bright >= np.maximum(ROWS * known.sum(2), height / 2)
    ends = np.fmax(_median(excess[:, :, :end]), _median(excess[:, :, -end:]))
    between = np.fmax(_median(excess[:, :, end:halfway]), _median(excess[:, :, -halfway:-end]))
    trail &= ~(between > PEAKED * ends)
    for _ in range(MARGIN):
        wings = np.zeros_like(trail)
        wings[..., 1:] |= trail[..., :-1]
        wings[..., :-1] |= trail[..., 1:]
        trail = trail | wings
    return trail


def _median(excess: np.ndarray) -> np.ndarray:
    """Medians over rows (N, bands, H, W) of what has data; NaN where nothing has."""
    ordered = np.sort(excess, axis=2)  # NaN come last
    middle = np.maximum((~np.isnan(excess)).sum(2) - 1, 0) // 2
    return np.take_along_axis(ordered, middle[:, :, None], 2)[:, :, 0]
