"""Search for positions that are close together on the sky: a join over HEALPix cells."""

import numpy as np
from astropy import units as u
from astropy.coordinates import angular_separation
from astropy_healpix import HEALPix

CELLS = HEALPix(nside=2**12, order="nested")
"""Cells of 51 arcsec: 200 million on the sky."""
MAX_RADIUS = 10.0
"""Largest radius, arcsec: below the width of any cell, so that matches are in the same cell or beside it."""


class Positions:
    """Positions (N,), each indexed under its cell and the 8 around it, so that no cell border splits a pair.

    Memory is 144 bytes a position. They are compared with blocks of any size, and the pairs do not depend on
    the division into blocks. Positions that are not finite have no matches.
    """

    def __init__(self, ra: np.ndarray, dec: np.ndarray) -> None:
        self.ra, self.dec = ra, dec
        known = np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90))
        cell = _cell(ra[known], dec[known])
        with np.errstate(invalid="ignore"):  # 24 cells on the sky have only 7 neighbours; the eighth is -1
            cells = np.concatenate([cell[None], CELLS.neighbours(cell)]).ravel()
        order = np.argsort(cells, kind="stable")
        order = order[cells[order] >= 0]
        self.cells = cells[order]
        self.index = np.tile(known, 9)[order]

    def near(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Mask (m,) of positions (m,) in the same cell as one of these, or in a neighbouring cell."""
        cell = _cell(ra, dec)
        first = np.searchsorted(self.cells, cell)
        return np.append(self.cells, -1)[first] == cell

    def within(
        self, ra: np.ndarray, dec: np.ndarray, radius: float
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """All pairs of a position (m,), degrees, with one of these, up to `radius` arcsec apart.

        Returns
        -------
        row : (p,) int, indices into ra and dec
        index : (p,) int, indices into these positions
        separation : (p,) float64, arcsec
        """
        assert 0 < radius <= MAX_RADIUS, radius
        cell = _cell(ra, dec)
        first, end = (np.searchsorted(self.cells, cell, side) for side in ("left", "right"))
        count = end - first
        row = np.repeat(np.arange(len(ra)), count)
        index = self.index[np.arange(len(row)) + np.repeat(first - np.cumsum(count) + count, count)]
        position = np.radians([ra[row], dec[row]])
        candidate = np.radians([self.ra[index], self.dec[index]])
        separation = np.degrees(angular_separation(*position, *candidate)) * 3600
        close = separation <= radius
        return row[close], index[close], separation[close]


def _cell(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return CELLS.lonlat_to_healpix(ra * u.deg, dec * u.deg)
