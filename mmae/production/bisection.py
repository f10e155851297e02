"""Units that cost workers, and the search for the rows that do it, by trials of ever smaller spans."""

from collections import Counter

from mmae.production.units import Rows, Unit

MAX_DEATHS = 64
"""Workers that a search may cost. One row of 65536 takes 19, two take 38."""
MAX_FAILURES = 3
"""Workers lost over one unit before its rows are suspected, and over one row before it is held guilty: any
may have been lost by chance."""


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
            if self.kills[rows.start] < MAX_FAILURES:
                return self._trials([rows])
        if self.running:
            return []
        crashing = sorted(row for row, deaths in self.kills.items() if deaths == MAX_FAILURES)
        return [self.unit._replace(rows=self.unit.rows._replace(crashing=tuple(crashing)))]

    def _trials(self, spans: list[Rows]) -> list[Unit]:
        self.running += len(spans)
        return [self.unit._replace(rows=span) for span in spans]


class Suspects:
    """The units of a run that have cost workers while they were done alone."""

    def __init__(self) -> None:
        self.failures: Counter[tuple[str, int]] = Counter()
        self.searches: dict[tuple[str, int], Bisection] = {}
        """They are kept when they have ended: a unit is searched once."""
        self.is_fruitless = False
        """Whether a search has failed: the fault is not in single rows, and no other is begun."""

    def after_death(self, unit: Unit, is_hung: bool) -> list[Unit]:
        """What to do after the loss of a worker over this unit; its source may have failed then."""
        search = self.searches.get(unit.key)
        if search and unit.rows.is_trial:
            following = self.after_trial(unit, died=True)
            if is_hung or search.deaths == MAX_DEATHS:  # to wait for hung workers takes hours
                self._give_up(unit, MAX_FAILURES + search.deaths)
            return following
        self.failures[unit.key] += 1
        if self.failures[unit.key] < MAX_FAILURES:
            return [unit]
        if is_hung or search or self.is_fruitless:
            self._give_up(unit, self.failures[unit.key])
            return [unit]
        unit.source.note(f"searching unit {unit.rows.unit} for the rows that kill workers")
        self.searches[unit.key] = Bisection(unit)
        return self.searches[unit.key].begin()

    def after_trial(self, unit: Unit, died: bool) -> list[Unit]:
        """What to do after a trial."""
        following = self.searches[unit.key].after(unit.rows, died)
        for whole in (found for found in following if not found.rows.is_trial and unit.source.error is None):
            crashing = ", ".join(map(str, whole.rows.crashing))
            whole.source.note(f"rows of unit {whole.rows.unit} that kill workers: {crashing or 'none'}")
        return following

    def _give_up(self, unit: Unit, deaths: int) -> None:
        """Let the source of a unit fail."""
        self.is_fruitless = True
        start, stop, source = unit.rows.start, unit.rows.stop, unit.source
        source.error = source.error or OSError(
            f"{deaths} workers died over unit {unit.rows.unit} (rows {start} to {stop}); {source.log} says "
            "how; the same command goes on from there"
        )
