"""The scheduler over real Ray actors that do nothing but what a test needs: sleep, hang, die."""

import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import pytest

from mmae.production import bisection, scheduler
from mmae.production.ray_session import Capacity, actor_type, ray, started
from mmae.production.scheduler import Scheduler
from mmae.production.units import Rows, Unit

pytestmark = pytest.mark.slow


class Toy:
    """Sleeps as long as its task says of the unit; or dies, stops or raises an error if it says so.

    A task may say it of single rows.
    """

    def __init__(self):
        self.begun, self.recalled, self.lock, self.busy = -1, set(), threading.Lock(), threading.Lock()

    def begin(self):
        pass

    def process(self, ticket, task, rows):
        with self.busy:
            with self.lock:
                if ticket in self.recalled:
                    return None
                self.begun = ticket
            does = task[rows.unit]
            if isinstance(does, dict):
                here = set(range(rows.start, rows.stop)) - set(rows.crashing)
                does = next((does[row] for row in does if row in here), 0.0)
            if does == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
                os._exit(1)  # Ray may continue it before it kills it
            if does == "raise":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            if does == "die":
                os._exit(1)
            time.sleep(does)
        return {} if rows.is_trial else rows._asdict()

    def recall(self, ticket):
        with self.lock:
            self.recalled.add(ticket)
            return ticket > self.begun


class ToyTile(SimpleNamespace):
    def __init__(self, name, task):
        super().__init__(name=name, task=task, log="the log", error=None, notes=[], done=[])

    def note(self, text):
        self.notes.append(text)


class ToyQueue:
    def __init__(self, *tiles):
        self.units = [
            Unit(tile, Rows(number, 100 * number, 100 * number + 100))
            for tile in tiles
            for number in range(len(tile.task))
        ]

    @property
    def waiting(self):
        return len(self.units)

    @property
    def ended(self):
        return not self.units

    def take(self, seconds=0.0):
        return self.units.pop(0) if self.units else None

    def complete(self, unit, result):
        if isinstance(result, Exception):
            unit.source.error = result
        else:
            unit.source.done.append(result["unit"])
            unit.source.crashing = result["crashing"]


@pytest.fixture(scope="module")
def session():
    with started(2):
        yield


def run(*tiles, then=()):
    """Have two actors do all units, then those of other tiles."""
    pool = Scheduler(actor_type(Toy).remote, Capacity(2, alone=True))
    pool.run(ToyQueue(*tiles))
    pool.run(ToyQueue(*then))
    for worker in pool.workers:
        ray.kill(worker.actor)


def test_a_unit_that_waits_behind_a_long_one_goes_to_an_idle_actor(session):
    tile = ToyTile("tile", [8.0, 0.1, 0.1, 0.1, 0.1, 0.1])
    run(tile)
    assert sorted(tile.done) == list(range(6))
    assert tile.done[-1] == 0
    assert sum("goes to an idle worker" in note for note in tile.notes) == 1


@pytest.mark.parametrize("fault", ["die", "raise"])
def test_a_unit_that_kills_costs_its_own_tile_only(session, monkeypatch, fault):
    """A worker whose task raised what nobody foresaw is as good as dead: a GPU may not work again.

    Where all rows kill, the search for them ends soon, and none is begun for another unit.
    """
    monkeypatch.setattr(bisection, "MAX_DEATHS", 4)
    deadly, other = ToyTile("deadly", [0.0, fault, 0.0]), ToyTile("other", [0.0] * 5)
    second = ToyTile("second", [fault])
    run(deadly, other, then=[second])
    assert "7 workers died over unit 1" in str(deadly.error)
    assert "3 workers died over unit 0" in str(second.error)
    assert "the log says how" in str(deadly.error)
    assert sum("over unit 1:" in note for note in deadly.notes) >= scheduler.MAX_FAILURES
    assert sorted(other.done) == list(range(5))


@pytest.mark.parametrize("fault", ["die", "raise"])
def test_rows_that_kill_are_found_and_the_rest_is_done(session, fault):
    tile = ToyTile("tile", [{17: fault, 80: fault}])
    run(tile, ToyTile("other", [0.0] * 5))
    assert tile.error is None
    assert tile.done == [0]
    assert tile.crashing == (17, 80)
    assert tile.notes[-1] == "rows of unit 0 that kill workers: 17, 80"


def test_an_actor_that_hangs_is_replaced(session, monkeypatch):
    monkeypatch.setattr(scheduler, "TIMEOUT_SECONDS", 3.0)
    monkeypatch.setattr(scheduler, "SLOWEST_RATE", 1000.0)
    tile = ToyTile("tile", ["stop", 0.0, 0.0])
    other = ToyTile("other", [0.0] * 3)
    run(tile, other)
    assert re.match(r"\d+ workers died over unit 0", str(tile.error))
    assert any(re.search(r"unit 0(, rows .*)?: it gave no answer for \d+ s", note) for note in tile.notes)
    assert sorted(other.done) == list(range(3))


def test_without_any_worker_the_run_ends(session, monkeypatch):
    monkeypatch.setattr(scheduler, "NO_WORKER_SECONDS", 0.5)
    with pytest.raises(OSError, match="there was no worker for"):
        Scheduler(actor_type(Toy).remote, lambda: 0).run(ToyQueue(ToyTile("tile", [0.0])))


def fail():
    raise OSError("no such bundle")


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize(
    ("begin", "reason"),
    [(fail, "OSError: no such bundle"), (die, "The actor is dead because its worker process has died.")],
)
def test_actors_that_cannot_begin_end_the_run_with_one_line(session, begin, reason):
    class Broken:
        def begin(self):
            begin()

    with pytest.raises(OSError) as error:  # noqa: PT011
        Scheduler(actor_type(Broken).remote, Capacity(1, alone=True)).run(ToyQueue(ToyTile("tile", [0.0])))
    (sentence,) = str(error.value).splitlines()
    assert sentence.startswith(f"3 workers died before they could begin ({reason}")
