"""Positions of objects: which columns they are in, and their values in degrees."""

from typing import NamedTuple

import numpy as np

from catalogs.tables import names
from catalogs.tables.columns import Columns

TURNS = 720
"""Degrees up to which a right ascension is one: one across 0 h may count on, as in `photoz.healpix29`."""


class Positions(NamedTuple):
    """Positions of N objects, as the table has them."""

    pair: tuple[str, str]
    """Names of the columns."""
    ra: np.ndarray
    """(N,) float64, degrees; NaN: not known"""
    dec: np.ndarray
    """(N,) float64, degrees; NaN: not known"""


def find(
    table: Columns, ra: str | None, dec: str | None, flags: tuple[str, str] = names.POSITION_FLAGS
) -> Positions | None:
    """The columns `ra` and `dec`, which `flags` name, else the first pair with a usual name and numbers.

    None where there is none: VizieR has texts, too. Angles are in degrees where the table says no unit.
    """
    for pair in names.positions(table.path, table.names, ra, dec, flags):
        if ra or all(table.read(name).dtype.kind in "fiu" for name in pair):
            a, d = (table.numbers(name, "deg") for name in pair)
            known = np.abs(a) <= TURNS
            return Positions(pair, np.where(known, a, np.nan), np.where(np.abs(d) <= 90, d, np.nan))
    return None
