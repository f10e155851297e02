"""Which objects the model was made with: told by position, or by id where there is no position."""

import numpy as np
from scipy.spatial import KDTree

from catalogs.surveys.desi import locate

RADIUS = 1.0
"""Distance up to which two positions are of one object, arcsec, as in the crossmatch with DESI."""
CHORD = 2 * np.sin(np.radians(RADIUS / 3600) / 2)
"""The same between points of the unit sphere."""
UNKNOWN = -1


class Positions:
    """Positions on the sky (L,), degrees, by which objects are found; NaN: not known."""

    def __init__(self, ra: np.ndarray, dec: np.ndarray):
        self.rows = np.flatnonzero(has_position(ra, dec))
        self.tree = KDTree(directions(ra[self.rows], dec[self.rows]))

    def nearest(self, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Numbers (m,) of the nearest position within RADIUS of others (m,); -1: there is none."""
        found, placed = np.full(len(ra), -1), np.flatnonzero(has_position(ra, dec))
        if len(self.rows) and len(placed):
            # bounded: to a point far away all are about as near, and the tree would look at each
            bound = np.nextafter(CHORD, 1)
            distance, nearest = self.tree.query(
                directions(ra[placed], dec[placed]), distance_upper_bound=bound
            )
            near = distance <= CHORD
            found[placed[near]] = self.rows[nearest[near]]
        return found


class Roles:
    """Roles of galaxies in the making of a model, to be looked up.

    table : (L,) of bundle.ROLES; positions are NaN where the training set has none
    """

    def __init__(self, table: np.ndarray):
        self.table = table
        self.placed = has_position(table["ra"], table["dec"])
        self.positions = Positions(table["ra"], table["dec"])

    def of(self, object_id: np.ndarray, ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
        """Roles of objects, (m,) int8: that of the galaxy at the position, 0: none, -1: not known.

        Surveys give a galaxy different ids, and different galaxies the same id: an id counts only where the
        object or the galaxy has no position. One that is not found then says nothing.
        """
        placed = has_position(ra, dec)
        role = np.where(placed & self.placed.all(), 0, UNKNOWN).astype(np.int8)
        rows = locate(self.table["object_id"], object_id)
        by_id = (rows >= 0) & ~(placed & self.placed[rows])
        role[by_id] = self.table["role"][rows[by_id]]
        nearest = self.positions.nearest(ra, dec)
        return np.where(nearest >= 0, self.table["role"][nearest], role) if len(self.table) else role


def has_position(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    return np.isfinite(ra) & np.isfinite(dec)


def directions(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors of positions (m,) in degrees: (m, 3)."""
    ra, dec = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)
