"""Magnitudes of a table of redshifts, by which objects are judged."""

import numpy as np

from catalogs.bands import TABLE
from catalogs.products.model_input import is_something

I_MAGNITUDES, R_MAGNITUDES = (
    tuple(
        f"MAG_{name.upper()}"
        for name in (letter, *(band.name for band in TABLE.values() if band.filter == letter))
    )
    for letter in ("i", "r")
)
MAGNITUDES = I_MAGNITUDES + R_MAGNITUDES
"""The first of which is used: in the i band, bare or of a survey, else in r."""


def first(columns: dict[str, np.ndarray]) -> tuple[str, np.ndarray] | None:
    """Name and values (N,) of the first of MAGNITUDES among columns; None where there is none of them."""
    return next(((name, columns[name]) for name in MAGNITUDES if name in columns), None)


def known(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The columns, (N,) each; magnitudes are NaN where they are not known: -99 is no bright galaxy."""
    return {
        name: np.where(is_something(values.astype(np.float32)), values, np.nan)
        if name.upper() in MAGNITUDES
        else values
        for name, values in columns.items()
    }
