"""Who does which unit: a pool of actors that grows, shrinks, and is never waited for in vain.

An actor has at most two units, one to do and one so that it need not wait for the next. When nothing is left
to hand out, a unit that waits behind another goes to an actor that is idle. What an actor had is handed out
again when it dies, with its node or alone, or does not answer in time; its place is taken by a new one. Such
units are then done with no other beside them, so that one that kills is known. With units named by their rows
and parts written whole, none of this can be seen in a catalogue.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from catalogs.errors import InputRefused
from mmae.ray_session import CONTROL, IN_FLIGHT, ray
from mmae.tiles import Tile

MAX_DEATHS = 3
"""Actors that may die over one unit before its tile fails; or in a row, before any could begin."""
NO_WORKER_SECONDS = 300.0
"""How long a run waits for an actor; importing torch from a busy file system takes a minute."""
PATIENCE_SECONDS = 600.0
PATIENCE_FACTOR = 20.0
"""An actor has PATIENCE_SECONDS, and PATIENCE_FACTOR times what its unit takes at the mean rate."""
SLOWEST_RATE = 2.0
"""Objects/s an actor, assumed until the first unit is done; one old core does ten."""
TICK_SECONDS, LONG_TICK_SECONDS = 0.05, 1.0
"""Between two looks at what there is, while an actor could take more, and while none could."""


class Unit(NamedTuple):
    """A row range of a tile, by its number in the plan."""

    tile: Tile
    number: int

    @property
    def rows(self) -> int:
        start, stop = self.tile.plan.span(self.number)
        return stop - start


class Work(Protocol):
    """Where units come from, and where what became of them goes."""

    @property
    def waiting(self) -> int:
        """Units that can be taken at once, about."""

    @property
    def ended(self) -> bool:
        """Whether no more units will come."""

    def take(self, seconds: float = 0.0) -> Unit | None:
        """The next unit; None if none came within the time."""

    def settle(self, unit: Unit, answer: dict | Exception) -> None:
        """A unit's manifest, or why its tile cannot be finished."""


@dataclass(eq=False)
class Worker:
    """What is known of an actor."""

    actor: Any
    ready: bool = False
    units: dict[Any, tuple[int, Unit]] = field(default_factory=dict)
    """Answer awaited -> ticket and unit, in the order in which it does them."""
    since: float = 0.0
    """When it began the first of them."""
    recalling: bool = False
    """Whether it has been asked for its second unit back."""
    alone: bool = False
    """Whether it does a unit that must be the only one."""


class Scheduler:
    """Have all units of `work` done by actors that `start` gives, as many at a time as `places` says."""

    def __init__(self, work: Work, start: Callable[[], Any], places: Callable[[], int]):
        self.work, self.start, self.places = work, start, places
        self.workers: list[Worker] = []
        self.again: list[Unit] = []
        """Units that an actor had and did not do."""
        self.asked: dict[Any, Callable[[Any], None]] = {}
        """Answer awaited -> what to do with it."""
        self.tickets = 0
        self.deaths: Counter[tuple[str, int]] = Counter()
        self.stillborn = 0
        self.done_rows, self.done_seconds = 0, 0.0
        self.last_worker = time.monotonic()

    def run(self) -> None:
        """Returns when every unit is settled. Raises OSError where no actor can be had."""
        while not (self.work.ended and not self.again and not self.in_flight):
            self.hand_out()
            self.grow()
            self.share()
            for answer in self.wait():
                if settle := self.asked.pop(answer, None):
                    settle(answer)
            self.give_up_the_stuck()
            self.check_that_somebody_works()

    @property
    def in_flight(self) -> int:
        return sum(len(worker.units) for worker in self.workers)

    # ------------------------------------------------------------ actors come and go

    def grow(self) -> None:
        """As many actors as there are units, and places for them."""
        wanted = min(self.places(), self.in_flight + len(self.again) + self.work.waiting)
        while len(self.workers) < wanted:
            worker = Worker(self.start())
            self.workers.append(worker)
            self.asked[worker.actor.__ray_ready__.remote()] = partial(self.admit, worker)

    def admit(self, worker: Worker, answer: Any) -> None:
        """An actor is up, or could not come up."""
        try:
            ray.get(answer)
        except ray.exceptions.RayError as error:
            self.workers.remove(worker)
            self.stillborn += 1
            if self.stillborn == MAX_DEATHS:
                raise OSError(f"{MAX_DEATHS} workers died before they could begin: {error}") from error
        else:
            worker.ready, self.stillborn = True, 0

    def bury(self, worker: Worker, how: object) -> None:
        """Hand out again what an actor had; the unit it was at may have been its death."""
        if worker not in self.workers:
            return
        self.workers.remove(worker)
        ray.kill(worker.actor)  # it may only hang, or have lost an answer
        units = [unit for _, unit in worker.units.values()]
        for answer in worker.units:
            self.asked.pop(answer, None)
        for unit in units:
            unit.tile.note(f"a worker died over unit {unit.number}: {' '.join(str(how).split())}")
        if len(units) == 1 and self.is_hopeless(units[0]):
            unit = units.pop()
            span, log = unit.tile.plan.span(unit.number), unit.tile.files.log
            error = OSError(
                f"{MAX_DEATHS} workers died over unit {unit.number} (rows {span}); {log} says how; "
                "the same command goes on from there"
            )
            self.work.settle(unit, error)
        self.again += units

    def is_hopeless(self, unit: Unit) -> bool:
        """Count a death that is this unit's alone, and say whether it is one too many."""
        name = (unit.tile.name, unit.number)
        self.deaths[name] += 1
        return self.deaths[name] == MAX_DEATHS

    # ------------------------------------------------------------ units go and come back

    def hand_out(self) -> None:
        """First something to do for everybody, then something to wait."""
        for has in range(IN_FLIGHT):
            for worker in self.workers:
                if worker.ready and len(worker.units) == has and not worker.alone:
                    again = self.take_again() if has == 0 else None
                    if (unit := again or self.work.take()) is None:
                        return
                    worker.alone = again is not None
                    self.give(worker, unit)

    def take_again(self) -> Unit | None:
        """A unit that another actor had."""
        while self.again:
            unit = self.again.pop(0)
            if unit.tile.error is None:
                return unit
            self.work.settle(unit, unit.tile.error)
        return None

    def give(self, worker: Worker, unit: Unit) -> None:
        answer = worker.actor.process.remote(self.tickets, unit.tile.task, unit.number)
        if not worker.units:
            worker.since = time.monotonic()
        worker.units[answer] = self.tickets, unit
        self.asked[answer] = partial(self.answered, worker, unit)
        self.tickets += 1

    def answered(self, worker: Worker, unit: Unit, answer: Any) -> None:
        try:
            manifest = ray.get(answer)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if not isinstance(cause, InputRefused | OSError):  # a lost actor, or one in an unknown state
                self.bury(worker, error)
                return
            manifest = cause  # in its own words, without the actor's traceback
        del worker.units[answer]
        worker.alone = False
        if manifest is None:  # taken back; we hear of it here first
            self.again.append(unit)
            return
        now = time.monotonic()
        self.done_rows, self.done_seconds = self.done_rows + unit.rows, self.done_seconds + now - worker.since
        worker.since = now
        self.work.settle(unit, manifest)

    def share(self) -> None:
        """Take units that wait behind others back for actors that are idle, once there are no more."""
        if self.again or not self.work.ended:
            return
        idle = sum(worker.ready and not worker.units for worker in self.workers)
        idle -= sum(worker.recalling for worker in self.workers)
        rich = [worker for worker in self.workers if len(worker.units) > 1 and not worker.recalling]
        for worker in sorted(rich, key=lambda worker: -worker.since)[: max(0, idle)]:
            waiting, (ticket, _) = list(worker.units.items())[-1]
            answer = worker.actor.take_back.options(concurrency_group=CONTROL).remote(ticket)
            worker.recalling = True
            self.asked[answer] = partial(self.recalled, worker, waiting)

    def recalled(self, worker: Worker, waiting: Any, answer: Any) -> None:
        """The unit is ours again, or has begun, or went down with its actor."""
        worker.recalling = False
        with contextlib.suppress(ray.exceptions.RayError):
            if ray.get(answer) and waiting in worker.units:
                _, unit = worker.units.pop(waiting)
                del self.asked[waiting]
                unit.tile.note(f"unit {unit.number} waited behind another and goes to an idle worker")
                self.again.append(unit)

    # ------------------------------------------------------------ nobody is waited for in vain

    def wait(self) -> list[Any]:
        """What has come by now; a while passes if nothing has."""
        if not self.asked:
            time.sleep(TICK_SECONDS)
            return []
        asked = list(self.asked)
        hungry = not self.work.ended and any(len(worker.units) < IN_FLIGHT for worker in self.workers)
        first, _ = ray.wait(asked, timeout=TICK_SECONDS if hungry else LONG_TICK_SECONDS)
        return ray.wait(asked, num_returns=len(asked), timeout=0)[0] if first else []

    def give_up_the_stuck(self) -> None:
        for worker in list(self.workers):
            if worker.units:
                _, unit = next(iter(worker.units.values()))
                seconds = time.monotonic() - worker.since
                if seconds > self.patience(unit.rows):
                    self.bury(worker, f"it gave no answer for {seconds:.0f} s")

    def patience(self, rows: int) -> float:
        """Seconds that an actor may take for a unit."""
        if not self.done_rows:
            return PATIENCE_SECONDS + rows / SLOWEST_RATE
        return PATIENCE_SECONDS + PATIENCE_FACTOR * rows * self.done_seconds / self.done_rows

    def check_that_somebody_works(self) -> None:
        if any(worker.ready for worker in self.workers) or not (self.again or self.work.waiting):
            self.last_worker = time.monotonic()
        elif time.monotonic() - self.last_worker > NO_WORKER_SECONDS:
            raise OSError(
                f"there was no worker for {NO_WORKER_SECONDS:.0f} s; the same command goes on from here"
            )
