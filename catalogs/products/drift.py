"""Whether the objects of a catalogue are like those that its model was made with, taken together.

OOD_SCORE is a p-value, the share of reference galaxies that are less like the training set. One of 0.01 says
little of an object; but of objects like the training set's the scores are uniform from 0 to 1, and a tile of
another population shows in their distribution long before any single object is flagged.

Colours are told by their mean: photometry is white in the training set, and the mean of n objects like its
own is within 1 / sqrt(n) of 0 in every direction (Hotelling 1931). A wrong zero point shifts all of them.
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import gammaincinv

BINS = 1000
"""Equal bins from 0 to 1 in which scores are counted."""
CRITICAL = 1.63
"""Kolmogorov's statistic, that chance exceeds once in a hundred."""
REFERENCE = 0.05
"""Distance that is allowed besides: the reference galaxies are a sample themselves, of some thousand."""
ALLOWED = 0.1
"""The same of the mean colours, in units of their scatter: the sky is not alike everywhere."""
UNIT = 2.0**-20
"""Colours are summed as whole numbers of it, so that no order of the sums changes them."""
LEVEL = 0.99
"""Share of tiles like the training set whose mean colours are within chance."""


class Drift:
    """Counts of OOD_SCORE; memory does not grow with the rows."""

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)

    def add(self, score: np.ndarray) -> None:
        """Add scores (n,); those that are not finite are of a model without any."""
        score = np.asarray(score, np.float64)
        self.counts += np.histogram(score[np.isfinite(score)], BINS, (0, 1))[0]

    @property
    def known(self) -> bool:
        return bool(self.counts.any())

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


def colour_sums(colours: np.ndarray) -> dict[str, list[int] | int]:
    """Sums of white photometry (N, F) over the objects in which it is finite, as a manifest keeps them."""
    known = colours[np.isfinite(colours).all(1)].astype(np.float64)
    sums = np.rint(known / UNIT).astype(np.int64).sum(0)
    return {"objects": len(known), "sums": sums.tolist()}


class ColourDrift:
    """The mean colours of a catalogue; reference: number of galaxies in which they are white, 0: unknown."""

    def __init__(self, reference: int) -> None:
        self.reference, self.objects = reference, 0
        self.sums: list[int] = []

    def add(self, objects: int, sums: Sequence[int]) -> None:
        """Add what `colour_sums` gave of a part."""
        self.objects += objects
        self.sums = [a + b for a, b in zip(self.sums or [0] * len(sums), sums, strict=True)]

    @property
    def known(self) -> bool:
        return bool(self.reference and self.objects and self.sums)

    @property
    def distance(self) -> float:
        """Length of the mean, in units of the scatter of galaxies in every direction; NaN: not known."""
        if not self.known:
            return math.nan
        return float(np.linalg.norm(np.array(self.sums, np.float64) * (UNIT / self.objects)))

    @property
    def chance(self) -> float:
        """The distance that objects like the training set's exceed once in a hundred tiles; or less often."""
        if not self.known:
            return math.nan
        of_chance = 2 * float(gammaincinv(len(self.sums) / 2, LEVEL))  # of chi squared
        return math.sqrt(of_chance * (1 / self.objects + 1 / self.reference) + ALLOWED**2)

    @property
    def sentence(self) -> str:
        """What is found, and what follows; nothing where it is within chance."""
        return colour_finding(self.distance, self.chance) + ADVICE if self.distance > self.chance else ""


ADVICE = "; look for a wrong zero point or name of a band, dust, or other objects than galaxies"


def colour_finding(distance: float, chance: float) -> str:
    """What is found where mean colours are beyond chance."""
    return (
        f"its mean colours are off by {distance:.2f} of the scatter of those that the model was made with, "
        f"chance by {chance:.2f}"
    )
