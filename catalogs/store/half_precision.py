"""Pixels in float16: half of the bytes, and an error of 0.05 % of the flux or less than the noise.

The largest is 65504; a store is not written in float16 where a pixel is beyond (see storage.md).
"""

import numpy as np

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
