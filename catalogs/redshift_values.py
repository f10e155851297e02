"""Which numbers are redshifts, in tables and stores: surveys write nines, or -99, where there is none."""

import numpy as np

from catalogs.errors import InputRefused

NINES = (9.99, 9.999, 9.9999, 99.0, 99.9, 99.99, 999.0, 999.9, 9999.0)
"""Redshifts of zCOSMOS, HSC and others that mean there is none; so does any that is not above -1."""
HIGHEST = 30.0
"""Above any redshift that is known; velocities are beyond."""


def is_redshift(z: np.ndarray) -> np.ndarray:
    """Whether a number (n,) is a redshift: finite, above -1, and not all nines, which say there is none."""
    known = np.isfinite(z) & (z > -1)
    for nines in NINES:
        known &= ~(np.abs(z - nines) < 1e-6 * nines)  # float32 has 7 digits
    return known


def check_redshifts(what: str, z: np.ndarray) -> None:
    """Raise InputRefused where one of the finite numbers (n,) is above any redshift; what: which."""
    if z.size and z.max() > HIGHEST:
        raise InputRefused(
            f"{what} is {z.max():g}, as no galaxy has: name a column of redshifts, not of velocities, "
            "and write NaN where there is none"
        )
