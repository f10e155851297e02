"""The scheduler: units go to a pool of Ray actors that grows, shrinks, and is never waited for in vain.

A worker has at most two units in flight, so that it need not wait for its next one. When no more units come,
one that is queued behind another is recalled and goes to an idle worker. The units of a worker are retried
when it fails, alone or with its node, or does not answer in time; a new worker takes its place. A retried
unit is the only one in flight on its worker, so that a unit that kills workers is known. Units are named by
their rows and parts are written whole, so none of this shows in a catalogue.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple, Protocol

from catalogs.errors import InputRefused
from mmae.production.ray_session import CONTROL, IN_FLIGHT, ray
from mmae.production.tiles import Tile

MAX_FAILURES = 3
"""Workers that may be lost over one unit before its tile fails; or in a row, before any could start."""
NO_WORKER_SECONDS = 300.0
"""How long a run waits for a worker; importing torch from a busy file system takes a minute."""
TIMEOUT_SECONDS = 600.0
TIMEOUT_FACTOR = 20.0
"""A unit times out after TIMEOUT_SECONDS, and TIMEOUT_FACTOR times what it takes at the mean rate."""
SLOWEST_RATE = 2.0
"""Objects/s a worker, assumed until the first unit is done; one old core does ten."""
POLL_SECONDS, IDLE_POLL_SECONDS = 0.05, 1.0
"""Between two polls for results, while a worker could take more units, and while none could."""


class Unit(NamedTuple):
    """A row range of a tile, by its number in the plan."""

    tile: Tile
    number: int

    @property
    def rows(self) -> int:
        start, stop = self.tile.plan.span(self.number)
        return stop - start


class Queue(Protocol):
    """Where units come from, and where their results go."""

    @property
    def waiting(self) -> int:
        """Units that can be taken at once, about."""

    @property
    def ended(self) -> bool:
        """Whether no more units will come."""

    def take(self, seconds: float = 0.0) -> Unit | None:
        """The next unit; None if none came within the time."""

    def complete(self, unit: Unit, result: dict | Exception) -> None:
        """Take a unit's manifest, or the reason why its tile cannot be finished."""


@dataclass(eq=False)
class Worker:
    """The scheduler's record of one actor."""

    actor: Any
    ready: bool = False
    units: dict[Any, tuple[int, Unit]] = field(default_factory=dict)
    """Future -> ticket and unit, in the order in which the actor does them."""
    since: float = 0.0
    """When it began the first of them."""
    recalling: bool = False
    """Whether its second unit is being recalled."""
    exclusive: bool = False
    """Whether it does a retried unit, beside which it gets no other."""


class Scheduler:
    """Runs all units of a queue on workers that `start` gives, as many at a time as `capacity` allows."""

    def __init__(self, queue: Queue, start: Callable[[], Any], capacity: Callable[[], int]):
        self.queue, self.start, self.capacity = queue, start, capacity
        self.workers: list[Worker] = []
        self.retries: list[Unit] = []
        """Units that came back from a worker undone."""
        self.callbacks: dict[Any, Callable[[Any], None]] = {}
        """Future -> what to call with it once it is done."""
        self.tickets = 0
        self.failures: Counter[tuple[str, int]] = Counter()
        self.failed_starts = 0
        self.done_rows, self.done_seconds = 0, 0.0
        self.last_worker = time.monotonic()

    def run(self) -> None:
        """Return when every unit is completed. Raises OSError where no worker can be had."""
        while not (self.queue.ended and not self.retries and not self.in_flight):
            self.assign()
            self.start_workers()
            self.rebalance()
            for future in self.poll():
                if callback := self.callbacks.pop(future, None):
                    callback(future)
            self.check_timeouts()
            self.check_workers()

    @property
    def in_flight(self) -> int:
        return sum(len(worker.units) for worker in self.workers)

    # ------------------------------------------------------------ workers

    def start_workers(self) -> None:
        """Start as many workers as there are units and capacity for."""
        wanted = min(self.capacity(), self.in_flight + len(self.retries) + self.queue.waiting)
        while len(self.workers) < wanted:
            worker = Worker(self.start())
            self.workers.append(worker)
            self.callbacks[worker.actor.__ray_ready__.remote()] = partial(self.on_start, worker)

    def on_start(self, worker: Worker, future: Any) -> None:
        """Take a worker that is up into service, or count a failed start."""
        try:
            ray.get(future)
        except ray.exceptions.RayError as error:
            self.workers.remove(worker)
            self.failed_starts += 1
            if self.failed_starts == MAX_FAILURES:
                raise OSError(f"{MAX_FAILURES} workers died before they could begin: {error}") from error
        else:
            worker.ready, self.failed_starts = True, 0

    def on_failure(self, worker: Worker, reason: object) -> None:
        """Retry the units of a failed worker; the one it was at may have been the cause."""
        if worker not in self.workers:
            return
        self.workers.remove(worker)
        ray.kill(worker.actor)  # it may only hang, or its answer may have been lost
        units = [unit for _, unit in worker.units.values()]
        for future in worker.units:
            self.callbacks.pop(future, None)
        for unit in units:
            unit.tile.note(f"a worker died over unit {unit.number}: {' '.join(str(reason).split())}")
        if len(units) == 1 and self.failed_too_often(units[0]):
            unit = units.pop()
            span, log = unit.tile.plan.span(unit.number), unit.tile.files.log
            error = OSError(
                f"{MAX_FAILURES} workers died over unit {unit.number} (rows {span}); {log} says how; "
                "the same command goes on from there"
            )
            self.queue.complete(unit, error)
        self.retries += units

    def failed_too_often(self, unit: Unit) -> bool:
        """Count a failure that this unit alone can have caused; whether it was one too many."""
        name = (unit.tile.name, unit.number)
        self.failures[name] += 1
        return self.failures[name] == MAX_FAILURES

    # ------------------------------------------------------------ units

    def assign(self) -> None:
        """Give every idle worker a unit, then every worker a second one to prefetch."""
        for in_flight in range(IN_FLIGHT):
            for worker in self.workers:
                if worker.ready and len(worker.units) == in_flight and not worker.exclusive:
                    retry = self.take_retry() if in_flight == 0 else None
                    if (unit := retry or self.queue.take()) is None:
                        return
                    worker.exclusive = retry is not None
                    self.submit(worker, unit)

    def take_retry(self) -> Unit | None:
        """The next unit to retry, of a tile that has not failed meanwhile."""
        while self.retries:
            unit = self.retries.pop(0)
            if unit.tile.error is None:
                return unit
            self.queue.complete(unit, unit.tile.error)
        return None

    def submit(self, worker: Worker, unit: Unit) -> None:
        future = worker.actor.process.remote(self.tickets, unit.tile.task, unit.number)
        if not worker.units:
            worker.since = time.monotonic()
        worker.units[future] = self.tickets, unit
        self.callbacks[future] = partial(self.on_result, worker, unit)
        self.tickets += 1

    def on_result(self, worker: Worker, unit: Unit, future: Any) -> None:
        try:
            result = ray.get(future)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if not isinstance(cause, InputRefused | OSError):  # a lost actor, or one in an unknown state
                self.on_failure(worker, error)
                return
            result = cause  # in its own words, without the actor's traceback
        del worker.units[future]
        worker.exclusive = False
        if result is None:  # recalled; this future was done before the recall's
            self.retries.append(unit)
            return
        now = time.monotonic()
        self.done_rows, self.done_seconds = self.done_rows + unit.rows, self.done_seconds + now - worker.since
        worker.since = now
        self.queue.complete(unit, result)

    def rebalance(self) -> None:
        """Recall units queued behind others for workers that are idle, once no more units come."""
        if self.retries or not self.queue.ended:
            return
        idle = sum(worker.ready and not worker.units for worker in self.workers)
        idle -= sum(worker.recalling for worker in self.workers)
        loaded = [worker for worker in self.workers if len(worker.units) > 1 and not worker.recalling]
        for worker in sorted(loaded, key=lambda worker: -worker.since)[: max(0, idle)]:
            queued, (ticket, _) = list(worker.units.items())[-1]
            future = worker.actor.recall.options(concurrency_group=CONTROL).remote(ticket)
            worker.recalling = True
            self.callbacks[future] = partial(self.on_recall, worker, queued)

    def on_recall(self, worker: Worker, queued: Any, future: Any) -> None:
        """Retry the recalled unit elsewhere, unless it has begun or failed with its worker."""
        worker.recalling = False
        with contextlib.suppress(ray.exceptions.RayError):
            if ray.get(future) and queued in worker.units:
                _, unit = worker.units.pop(queued)
                del self.callbacks[queued]
                unit.tile.note(f"unit {unit.number} waited behind another and goes to an idle worker")
                self.retries.append(unit)

    # ------------------------------------------------------------ timeouts

    def poll(self) -> list[Any]:
        """Futures that are done by now; waits a while if none is."""
        if not self.callbacks:
            time.sleep(POLL_SECONDS)
            return []
        futures = list(self.callbacks)
        more = not self.queue.ended and any(len(worker.units) < IN_FLIGHT for worker in self.workers)
        first, _ = ray.wait(futures, timeout=POLL_SECONDS if more else IDLE_POLL_SECONDS)
        return ray.wait(futures, num_returns=len(futures), timeout=0)[0] if first else []

    def check_timeouts(self) -> None:
        """Replace workers that take too long over their unit."""
        for worker in list(self.workers):
            if worker.units:
                _, unit = next(iter(worker.units.values()))
                seconds = time.monotonic() - worker.since
                if seconds > self.timeout(unit.rows):
                    self.on_failure(worker, f"it gave no answer for {seconds:.0f} s")

    def timeout(self, rows: int) -> float:
        """Seconds that a worker may take for a unit of so many rows."""
        if not self.done_rows:
            return TIMEOUT_SECONDS + rows / SLOWEST_RATE
        return TIMEOUT_SECONDS + TIMEOUT_FACTOR * rows * self.done_seconds / self.done_rows

    def check_workers(self) -> None:
        """Raise OSError where units have waited too long for any worker."""
        if any(worker.ready for worker in self.workers) or not (self.retries or self.queue.waiting):
            self.last_worker = time.monotonic()
        elif time.monotonic() - self.last_worker > NO_WORKER_SECONDS:
            raise OSError(
                f"there was no worker for {NO_WORKER_SECONDS:.0f} s; the same command goes on from here"
            )
