"""Sky coverage of a catalogue as a short multi-order coverage map (IVOA MOC).

A tile is described by cells of one order, the finest at which a few cells suffice. Aladin, TOPCAT and mocpy
read the text; HATS calls the same numbers Norder and Npix.
"""

import numpy as np

FINEST = 10
"""Finest order of the map: cells of 3.4 arcmin."""
MAX_CELLS = 32
"""Largest number of cells in the map."""
MAX_CELLS_IN_MEMORY = 4096
"""Largest number of cells kept while rows are added."""
ROW_ORDER = 29
"""Order of the column HEALPIX29."""


class Coverage:
    """Cells that contain at least one of the rows added so far; memory does not grow with the rows."""

    def __init__(self) -> None:
        self.order = FINEST
        self.cells = np.zeros(0, np.int64)

    def add(self, healpix29: np.ndarray) -> None:
        """Add nested cells of order 29, (n,) int64; negative ones have no position and are ignored."""
        known = healpix29[healpix29 >= 0] >> 2 * (ROW_ORDER - self.order)
        self.cells = np.union1d(self.cells, known)
        self.coarsen(MAX_CELLS_IN_MEMORY)

    def coarsen(self, max_cells: int) -> None:
        while len(self.cells) > max_cells:
            self.order, self.cells = self.order - 1, np.unique(self.cells >> 2)

    def moc(self) -> str:
        """The map in the MOC standard's ASCII form, such as "8/123 130-133"; "" where nothing is covered."""
        self.coarsen(MAX_CELLS)
        if not len(self.cells):
            return ""
        breaks = np.flatnonzero(np.diff(self.cells) > 1) + 1
        runs = [(int(run[0]), int(run[-1])) for run in np.split(self.cells, breaks)]
        return f"{self.order}/" + " ".join(f"{a}-{b}" if b > a else f"{a}" for a, b in runs)
