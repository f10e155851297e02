"""Pixels in float16: half of the bytes, and an error of at most 0.05 % of the flux, or 3e-8 if that is more.

That is a thousandth of the noise of the sky, in units that float16 has the range for (storage.md).
"""

from collections.abc import Sequence

import numpy as np

from catalogs.errors import InputRefused

LARGEST, LEAST = 65504, np.float16(2.0**-24)
"""The largest number of float16, and the least one above 0."""
FAINTEST = 2.0**-16
"""Median of the absolute flux of the pixels of a band below which rounding is felt: its steps are 2^-24."""
MANTISSA = 13
"""Bits of mantissa that float32 has more."""
SIGN_AND_NUMBER = np.int32(-0x70000001)
"""Bits of float32 that a float16 has, its sign and its number, once shifted by MANTISSA."""
REBASE = np.float32(2.0**112)
"""Ratio of the same exponent bits in float32 and float16."""
NOT_FINITE = np.uint16(0x7C00)
"""Exponent bits of the infinities and NaN of float16."""


def widened(half: np.ndarray) -> np.ndarray:
    """float32 numbers of float16, exactly, in a fifth of the time that `astype` takes."""
    wide = np.empty(half.shape, np.float32)
    bits = wide.view(np.int32)
    np.left_shift(half.view(np.int16), MANTISSA, out=bits, dtype=np.int32)
    bits &= SIGN_AND_NUMBER
    wide *= REBASE
    special = (half.view(np.uint16) & NOT_FINITE) == NOT_FINITE
    if special.any():
        wide[special] = half[special].astype(np.float32)
    return wide


def narrowed(image: np.ndarray, first: int, bands: Sequence[str]) -> np.ndarray:
    """float16 of images (m, bands, H, W) float32 of the rows from `first` on, rounded to nearest.

    But what is not 0 does not become 0, which means no data: noise did, in 7 of 1200 mock cutouts.
    Raises InputRefused for a pixel that float16 cannot hold, and for a band in which it would lose the sky.
    """
    remedy = "leave out --float16, or bring the images to another zero point"
    with np.errstate(over="ignore"):
        half = image.astype(np.float16)
    overflown = np.argwhere(np.isinf(half) & np.isfinite(image))
    if len(overflown):
        row, band, *_ = place = tuple(overflown[0])
        raise InputRefused(
            f"a pixel of row {first + row} in {bands[band]} is {image[place]:.6g}, and float16 ends at "
            f"{LARGEST}: {remedy}"
        )
    vanished = (half == 0) & (image != 0)
    half[vanished] = np.copysign(LEAST, image[vanished])
    for band, pixels in zip(bands, np.moveaxis(image, 1, 0), strict=True):
        known = np.abs(pixels[np.isfinite(pixels) & (pixels != 0)])
        if len(known) and np.median(known) < FAINTEST:
            raise InputRefused(
                f"half of the pixels in {band} of rows {first} to {first + len(image) - 1} are below "
                f"{np.median(known):.2g}, where float16 loses the sky: {remedy}"
            )
    return half
