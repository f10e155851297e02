"""Whether the objects of a catalogue are like those that its model was made with, taken together.

OOD_SCORE is a p-value, the share of reference galaxies that are less like the training set. One of 0.01 says
little of an object; but of objects like the training set's the scores are uniform from 0 to 1, and a tile of
another population shows in their distribution long before any single object is flagged.
"""

import math

import numpy as np

BINS = 1000
"""Equal bins from 0 to 1 in which scores are counted."""
CRITICAL = 1.63
"""Kolmogorov's statistic, that chance exceeds once in a hundred."""
REFERENCE = 0.05
"""Distance that is allowed besides: the reference galaxies are a sample themselves, of some thousand."""


class Drift:
    """Counts of OOD_SCORE; memory does not grow with the rows."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)

    def add(self, score: np.ndarray) -> None:
        """Add scores (n,); those that are not finite are of a model without any."""
        score = np.asarray(score, np.float64)
        self.counts += np.histogram(score[np.isfinite(score)], BINS, (0, 1))[0]

    @property
    def distance(self) -> float:
        """Kolmogorov's distance of their distribution from a uniform one, 0 to 1; NaN without scores."""
        number = self.counts.sum()
        if not number:
            return math.nan
        edges = np.arange(1, BINS + 1) / BINS
        return float(np.abs(np.cumsum(self.counts) / number - edges).max())

    @property
    def chance(self) -> float:
        """The distance that objects like the training set's exceed once in a hundred tiles; or less often."""
        number = int(self.counts.sum())
        return REFERENCE + CRITICAL / math.sqrt(number) if number else math.nan

    @property
    def finding(self) -> str:
        """What is found; nothing where it is within chance."""
        if not self.distance > self.chance:
            return ""
        return (
            "its objects are not like those that the model was made with: the distribution of OOD_SCORE is "
            f"off by {self.distance:.2f}, chance by {self.chance:.2f}"
        )

    @property
    def sentence(self) -> str:
        """What is found, and what follows; nothing where it is within chance."""
        return f"{self.finding}; widths of p(z) and RISK may not hold" if self.finding else ""
