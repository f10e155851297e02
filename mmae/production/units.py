"""Units of work: what the scheduler hands to workers, and what these are of."""

from typing import Any, Generic, NamedTuple, Protocol, TypeVar


class Source(Protocol):
    """What units are of: the catalogue of a tile, or its embeddings."""

    error: Exception | None
    """Why it cannot be finished."""

    @property
    def name(self) -> str:
        """Of the tile."""

    @property
    def task(self) -> Any:
        """What a worker needs to know of it; small, it comes with every unit."""

    @property
    def log(self) -> object:
        """Where its notes are, in words."""

    def note(self, text: str) -> None:
        """Keep a line on what became of a unit."""


class Rows(NamedTuple):
    """What a worker is to do of a task."""

    unit: int
    """Number in the plan."""
    start: int
    stop: int
    """The row after the last."""
    crashing: tuple[int, ...] = ()
    """Rows that kill workers: they are rejected unread."""
    is_trial: bool = False
    """Whether only to see if a worker survives them; nothing is kept."""

    @property
    def size(self) -> int:
        """Number of rows."""
        return self.stop - self.start


S = TypeVar("S", bound=Source)


class Unit(NamedTuple, Generic[S]):
    """Rows of a source."""

    source: S
    rows: Rows

    @property
    def key(self) -> tuple[str, int]:
        """Names the unit, whatever part of its rows this is."""
        return self.source.name, self.rows.unit
