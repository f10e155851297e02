"""A queue whose results are taken in the order of its units, so that one process can write them."""

from collections import deque
from collections.abc import Iterator, Sequence

from mmae.production.units import Rows, Source, Unit


class InOrder:
    """The units of one source; implements `scheduler.Queue`.

    Parameters
    ----------
    spans : first row, and the row after the last, of the units to do, in order.
    unit_rows : rows of a unit; the first row of each span is a multiple of it.
    ahead : units that may be handed out before the results of those before them are taken (back-pressure).
    """

    def __init__(self, source: Source, spans: Sequence[tuple[int, int]], unit_rows: int, ahead: int):
        self.source, self.ahead = source, ahead
        self.units = deque(Unit(source, Rows(span[0] // unit_rows, *span)) for span in spans)
        self.begun: deque[int] = deque()
        """Units handed out whose results have not been taken."""
        self.done: dict[int, dict] = {}

    @property
    def waiting(self) -> int:
        return max(0, min(len(self.units), self.ahead - len(self.begun)))

    @property
    def ended(self) -> bool:
        return not self.units

    def take(self, seconds: float = 0.0) -> Unit | None:
        """The next unit; None while too many results wait to be taken."""
        if not self.waiting:
            return None
        unit = self.units.popleft()
        self.begun.append(unit.rows.unit)
        return unit

    def complete(self, unit: Unit, result: dict | Exception) -> None:
        """Keep what came of a unit. Raises what came instead."""
        if isinstance(result, Exception):
            raise result
        self.done[unit.rows.unit] = result

    def results(self) -> Iterator[dict]:
        """Results that are there, up to the first that is not."""
        while self.begun and self.begun[0] in self.done:
            yield self.done.pop(self.begun.popleft())
