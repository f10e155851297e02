"""The scheduler: units go to a pool of Ray actors that grows, shrinks, and is never waited for in vain.

A worker has at most two units in flight, so that it need not wait for its next one. When no more units come,
one that is queued behind another is recalled and goes to an idle worker. The units of a worker are retried
when it fails, alone or with its node, or does not answer in time; a new worker takes its place. A retried
unit is the only one in flight on its worker, so that a unit that kills workers is known; then the rows that
do it are searched for, and the unit is done without them. Units are named by their rows and their results
are kept whole, so none of this shows in a catalogue.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from catalogs.errors import InputRefused
from mmae.production.bisection import MAX_FAILURES, Suspects
from mmae.production.ray_session import CONTROL, IN_FLIGHT, ray
from mmae.production.units import Unit

NO_WORKER_SECONDS = 300.0
"""How long a run waits for a worker; importing torch from a busy file system takes a minute."""
TIMEOUT_SECONDS = 600.0
TIMEOUT_FACTOR = 20.0
"""A unit times out after TIMEOUT_SECONDS, and TIMEOUT_FACTOR times what it takes at the mean rate."""
SLOWEST_RATE = 2.0
"""Objects/s a worker, assumed until the first unit is done; one old core does ten."""
POLL_SECONDS, IDLE_POLL_SECONDS = 0.05, 1.0
"""Between two polls for results, while a worker could take more units, and while none could."""


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
        """Take what came of a unit, or the reason why its source cannot be finished."""


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
    """Runs the units of queues on workers that `start` gives, as many at a time as `capacity` allows."""

    def __init__(self, start: Callable[[], Any], capacity: Callable[[], int]):
        self.start, self.capacity = start, capacity
        self.workers: list[Worker] = []
        self.retries: list[Unit] = []
        """Units that came back from a worker undone, and trials."""
        self.callbacks: dict[Any, Callable[[Any], None]] = {}
        """Future -> what to call with it once it is done."""
        self.tickets = 0
        self.suspects = Suspects()
        self.failed_starts = 0
        self.done_rows, self.done_seconds = 0, 0.0

    def run(self, queue: Queue) -> None:
        """Return when every unit is completed. Raises OSError where no worker can be had."""
        for _ in self.steps(queue):
            pass

    def steps(self, queue: Queue) -> Iterator[None]:
        """As `run`, yielding at every turn, so that the caller may take results as they come."""
        self.queue = queue
        self.last_worker = time.monotonic()
        while not (queue.ended and not self.retries and not self.in_flight):
            self.drop_failed()
            self.assign()
            self.start_workers()
            self.rebalance()
            for future in self.poll():
                if callback := self.callbacks.pop(future, None):
                    callback(future)
            self.check_timeouts()
            self.check_workers()
            yield

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
            self.callbacks[worker.actor.begin.remote()] = partial(self.on_start, worker)

    def on_start(self, worker: Worker, future: Any) -> None:
        """Take a worker that is up into service, or count a failed start."""
        try:
            ray.get(future)
        except ray.exceptions.RayError as error:
            cause = getattr(error, "cause", None)
            if isinstance(cause, InputRefused):
                raise cause from None
            self.workers.remove(worker)
            self.failed_starts += 1
            if self.failed_starts == MAX_FAILURES:
                # the rest is Ray's traceback, and that a killed actor never ran
                reason = str(error).partition("\nThe actor never ran")[0].strip().splitlines()[-1].strip()
                raise OSError(
                    f"{MAX_FAILURES} workers died before they could begin ({reason}); "
                    "the same command goes on from here"
                ) from error
        else:
            worker.ready, self.failed_starts = True, 0

    def on_failure(self, worker: Worker, reason: object, is_hung: bool = False) -> None:
        """Retry the units of a failed worker; the one it was at may have been the cause."""
        if worker not in self.workers:
            return
        self.workers.remove(worker)
        ray.kill(worker.actor)  # it may only hang, or its answer may have been lost
        units = [unit for _, unit in worker.units.values()]
        for future in worker.units:
            self.callbacks.pop(future, None)
        for unit in units:
            rows = f", rows {unit.rows.start} to {unit.rows.stop}" if unit.rows.is_trial else ""
            unit.source.note(
                f"a worker died over unit {unit.rows.unit}{rows}: {' '.join(str(reason).split())}"
            )
        self.retries += self.suspects.after_death(units[0], is_hung) if len(units) == 1 else units

    # ------------------------------------------------------------ units

    def assign(self) -> None:
        """Give every idle worker a unit, then every worker a second one to prefetch."""
        for in_flight in range(IN_FLIGHT):
            for worker in self.workers:
                if worker.ready and len(worker.units) == in_flight and not worker.exclusive:
                    # the last ones first: they are the smallest trials of a search
                    retry = self.retries.pop() if in_flight == 0 and self.retries else None
                    if (unit := retry or self.queue.take()) is None:
                        return
                    worker.exclusive = retry is not None
                    self.submit(worker, unit)

    def drop_failed(self) -> None:
        """Complete the units to retry whose source has failed."""
        failed = [unit for unit in self.retries if unit.source.error]
        self.retries = [unit for unit in self.retries if not unit.source.error]
        for unit in failed:
            if unit.rows.is_trial:
                self.retries += self.suspects.after_trial(unit, died=False)
            else:
                self.queue.complete(unit, unit.source.error)

    def submit(self, worker: Worker, unit: Unit) -> None:
        future = worker.actor.process.remote(self.tickets, unit.source.task, unit.rows)
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
        self.done_rows += unit.rows.size
        self.done_seconds += now - worker.since
        worker.since = now
        if not unit.rows.is_trial:
            self.queue.complete(unit, result)
            return
        if isinstance(result, Exception):
            unit.source.error = unit.source.error or result
        self.retries += self.suspects.after_trial(unit, died=False)

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
                unit.source.note(f"unit {unit.rows.unit} waited behind another and goes to an idle worker")
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
                if seconds > self.timeout(unit.rows.size):
                    self.on_failure(worker, f"it gave no answer for {seconds:.0f} s", is_hung=True)

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
