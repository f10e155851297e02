"""Objects that the model was made with, which cannot judge it: as far as the catalogue knows of them."""

from typing import NamedTuple

import numpy as np

from mmae.bundles.roles import RADIUS, Positions

TRAINED, CHOSEN = 1, 2
"""Values of IN_TRAINING; 0 is neither, null is not known."""


class Leaks(NamedTuple):
    """Numbers of objects with a redshift, by what the model has to do with them."""

    told: bool
    """Whether the catalogue says anything of it."""
    trained: int = 0
    """Left out: the model was trained on them."""
    chosen: int = 0
    """Left out: the model was chosen or calibrated by them."""
    near: int = 0
    """Left out: within RADIUS of a row of the catalogue that it was made with, under another id."""
    unknown: int = 0
    """Judged, although the catalogue does not say of them."""

    @property
    def left_out(self) -> int:
        return self.trained + self.chosen + self.near

    def lines(self) -> list[str]:
        """What to tell of it."""
        if not self.told:
            return ["the catalogue does not say what the model was made with: its own galaxies may be judged"]
        counts = (
            (self.trained, "objects left out, as the model was trained on them"),
            (self.chosen, "objects left out, as the model was chosen or calibrated by them"),
            (self.near, f"objects left out, as they are within {RADIUS:g} arcsec of such ones"),
            (self.unknown, "objects judged of which the catalogue does not say whether they were such ones"),
        )
        said = [f"{count:>8} {text}" for count, text in counts if count]
        return said or [f"{0:>8} objects left out, as the model was made with them"]


def find(role: np.ndarray, ra: np.ndarray, dec: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, Leaks]:
    """Which objects with a redshift may judge, (n,) bool, and the numbers of the others.

    Parameters
    ----------
    role : (N,)
        IN_TRAINING of all rows of the catalogue, NaN where it is null.
    ra, dec : (N,)
        Degrees, NaN where unknown.
    rows : (n,)
        Rows with a redshift.
    """
    made = role > 0  # False for NaN
    positions = Positions(ra[made], dec[made])
    near = (positions.nearest(ra[rows], dec[rows]) >= 0) & ~made[rows]
    leaks = Leaks(
        told=bool(np.isfinite(role).any()),
        trained=int((role[rows] == TRAINED).sum()),
        chosen=int((made[rows] & (role[rows] != TRAINED)).sum()),
        near=int(near.sum()),
        unknown=int((np.isnan(role[rows]) & ~near).sum()),
    )
    return ~made[rows] & ~near, leaks
