"""The search for the rows of a unit that kill workers, by trials of ever smaller spans."""

from collections import Counter

from mmae.production.units import Rows, Unit

MAX_DEATHS = 64
"""Workers that a search may cost. One row of 65536 takes 19, two take 38."""
CONFIRMATIONS = 3
"""Workers that a single row must kill before it is held guilty: any may have been lost by chance."""


def halves(rows: Rows) -> list[Rows]:
    """Trials of both halves, or of the single row."""
    middle = (rows.start + rows.stop + 1) // 2
    spans = [(rows.start, middle), (middle, rows.stop)]
    return [Rows(rows.unit, *span, is_trial=True) for span in spans if span[0] < span[1]]


class Bisection:
    """A search in one unit; it ends with the unit, whose crashing rows are known."""

    def __init__(self, unit: Unit):
        self.unit = unit
        self.running = 0
        """Trials that have not ended."""
        self.deaths = 0
        self.kills: Counter[int] = Counter()
        """Workers that single rows have killed."""

    def begin(self) -> list[Unit]:
        """The first trials."""
        return self._trials(halves(self.unit.rows))

    def after(self, rows: Rows, died: bool) -> list[Unit]:
        """Units to do next, once the trial of `rows` has ended, with the death of its worker or without."""
        self.running -= 1
        if died:
            self.deaths += 1
            if rows.size > 1:
                return self._trials(halves(rows))
            self.kills[rows.start] += 1
            if self.kills[rows.start] < CONFIRMATIONS:
                return self._trials([rows])
        if self.running:
            return []
        crashing = sorted(row for row, deaths in self.kills.items() if deaths == CONFIRMATIONS)
        return [self.unit._replace(rows=self.unit.rows._replace(crashing=tuple(crashing)))]

    def _trials(self, spans: list[Rows]) -> list[Unit]:
        self.running += len(spans)
        return [self.unit._replace(rows=span) for span in spans]
