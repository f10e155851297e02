"""The cut flow of a selection, and a summary of its data as in Table 1 of the paper."""

import math
from typing import NamedTuple

import numpy as np
from rich import box
from rich.table import Table


class Cut(NamedTuple):
    """A line of the cut flow."""

    name: str
    meaning: str
    """Description of the removed pairs."""
    before: int
    after: int

    @property
    def removed(self) -> int:
        return self.before - self.after


class Summary(NamedTuple):
    """A line of Table 1; None where a dataset has no values."""

    dataset: str
    n: int
    z_p90: float | None
    z_max: float | None
    i_mag_p90: float | None


class RedshiftHistogram:
    """Counts of redshifts in bins, for percentiles of any number of redshifts in constant memory."""

    def __init__(self) -> None:
        self.edges = np.linspace(0, 10, 100_001)
        self.counts = np.zeros(len(self.edges) - 1, np.int64)
        self.largest = -math.inf

    def add(self, z: np.ndarray) -> None:
        z = z[np.isfinite(z)]
        self.counts += np.histogram(np.clip(z, 0, 10), self.edges)[0]
        self.largest = max(self.largest, z.max(initial=-math.inf))

    def summary(self, dataset: str) -> Summary:
        """Summary of the redshifts; the percentile is good to 1e-4."""
        cumulative = np.cumsum(self.counts)
        n = int(cumulative[-1])
        if not n:
            return Summary(dataset, 0, None, None, None)
        z_p90 = float(self.edges[np.searchsorted(cumulative, 0.9 * n)])
        return Summary(dataset, n, z_p90, self.largest, None)


def summarise(dataset: str, z: np.ndarray, i_mag: np.ndarray) -> Summary:
    """Summary of n objects, ignoring z that is not above 0 and invalid i_mag (99)."""
    known_z, known_mag = z[z > 0], i_mag[(i_mag > 0) & (i_mag < 50)]
    z_p90, mag_p90 = (float(np.percentile(x, 90)) if len(x) else None for x in (known_z, known_mag))
    return Summary(dataset, len(z), z_p90, float(known_z.max()) if len(known_z) else None, mag_p90)


def cut_table(first: str, cuts: list[Cut]) -> Table:
    """Cut flow as a printed table; `first` describes the pairs before all cuts."""
    table = Table(box=box.SIMPLE)
    table.add_column("cut")
    for name in ("removed", "left"):
        table.add_column(name, justify="right")
    table.add_row(first, "", f"{cuts[0].before:,}")
    for cut in cuts:
        table.add_row(cut.name, f"{cut.removed:,}", f"{cut.after:,}")
    return table


def summary_table(summaries: list[Summary]) -> Table:
    table = Table(box=box.SIMPLE)
    table.add_column("dataset")
    for name in ("n", "z (90th pct.)", "z (max)", "i mag (90th pct.)"):
        table.add_column(name, justify="right")
    for dataset, n, *values in summaries:
        table.add_row(dataset, f"{n:,}", *("-" if value is None else f"{value:.3f}" for value in values))
    return table
