"""All tiles of a run: units ready ahead of the actors, catalogues merged behind them, and what a person sees.

The actors never wait for this process: a thread opens the next tiles while they work, another merges those
that are done. Few tiles are open at a time, and of units only counts are kept.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from operator import methodcaller
from typing import Any, NamedTuple

from catalogs.cutout_format import Described
from catalogs.errors import InputRefused, UsageError
from mmae.ahead import Ahead
from mmae.bundle import Bundle
from mmae.progress import bar
from mmae.schedule import Unit
from mmae.tiles import Tile

UNITS_AHEAD = 256
"""Units made ready before an actor asks for one; a tile of one unit keeps one file open meanwhile."""
MERGES_BEHIND = 64
"""Tiles that may wait for their merge before no more units are handed out."""
GLANCES = 16
"""Stores whose size is looked up at once: a shared file system takes its time for each."""
LOOK_SECONDS = 1.0
LINE_SECONDS = 60.0
FAILURES = (UsageError, InputRefused, OSError)
"""What ends a tile and not the run."""


class Found(NamedTuple):
    """A unit of a tile, with its manifest if it was done before; after the last of them, one without unit."""

    tile: Tile
    unit: int | None
    manifest: dict | None = None


class Production:
    """Hands out units and takes their manifests, on the scheduler's thread; see `schedule.Work`."""

    def __init__(self, tiles: Sequence[Tile], bundle: Bundle, described: Described):
        self.tiles, self.bundle, self.described = tiles, bundle, described
        with ThreadPoolExecutor(GLANCES) as glances:
            for tile, objects in zip(tiles, glances.map(methodcaller("glance"), tiles), strict=True):
                tile.objects = objects
        self.objects = sum(tile.objects for tile in tiles)
        self.objects_done = self.objects_before = self.rejects = 0
        self.units = self.units_before = 0
        self.tiles_done = self.tiles_failed = 0
        self.show: Callable[[], None] = lambda: None
        self.first: Unit | None = None
        self.found = Ahead(self.look(), UNITS_AHEAD)
        self.merger = ThreadPoolExecutor(1, "merge")
        self.merging: deque[tuple[Tile, Future[None]]] = deque()

    def look(self) -> Iterator[Found]:
        """Open tile after tile, as far ahead as is allowed; on a thread of its own."""
        for tile in self.tiles:
            try:
                tile.open(self.bundle, self.described)
                for unit, manifest in tile.units():
                    if tile.error:
                        break
                    yield Found(tile, unit, manifest)
            except FAILURES as error:
                tile.error = error
            yield Found(tile, None)

    # ------------------------------------------------------------ units out, manifests in

    def begin(self) -> bool:
        """Wait until there is a unit to do; whether there is one at all."""
        while self.first is None and not self.ended:
            self.first = self.take(LOOK_SECONDS)
        return self.first is not None

    @property
    def waiting(self) -> int:
        return self.found.waiting + (self.first is not None)

    @property
    def ended(self) -> bool:
        return self.found.ended and self.first is None

    def take(self, seconds: float = 0.0) -> Unit | None:
        """The next unit to do; None if none came within the time."""
        self.reap()
        unit, self.first = self.first, None
        while unit is None and len(self.merging) <= MERGES_BEHIND and (found := self.found.take(seconds)):
            tile = found.tile
            if found.unit is None:
                tile.listed = True
                self.look_after(tile)
            elif tile.error is None:
                self.units += 1
                if found.manifest is None:
                    tile.pending += 1
                    unit = Unit(tile, found.unit)
                else:
                    self.units_before += 1
                    self.count(tile, found.manifest)
                    self.found_done(tile, found.manifest["rows"] + found.manifest["rejects"])
        return unit

    def settle(self, unit: Unit, answer: dict | Exception) -> None:
        """A unit's manifest, or why its tile cannot be finished."""
        tile = unit.tile
        tile.pending -= 1
        if isinstance(answer, Exception):
            tile.error = tile.error or answer
        elif tile.error is None:
            tile.note(f"unit {unit.number}: {answer['rows']} rows, {answer['rejects']} rejects")
            self.count(tile, answer)
        self.look_after(tile)

    def count(self, tile: Tile, manifest: dict) -> None:
        tile.count(manifest)
        self.objects_done += manifest["rows"] + manifest["rejects"]
        self.rejects += manifest["rejects"]
        self.show()

    def found_done(self, tile: Tile, objects: int) -> None:
        """What an earlier run did is no credit to this one."""
        tile.before += objects
        self.objects_before += objects

    # ------------------------------------------------------------ the ends of tiles

    def look_after(self, tile: Tile) -> None:
        """See whether the tile has come to its end."""
        if not tile.listed or tile.pending:
            return
        if tile.error or tile.was_finished:
            self.close(tile)
        else:
            self.merging.append((tile, self.merger.submit(tile.finish)))

    def reap(self) -> None:
        """Take leave of the tiles that were merged by now."""
        while self.merging and self.merging[0][1].done():
            tile, merged = self.merging.popleft()
            error = merged.exception()
            if isinstance(error, FAILURES):
                tile.error = error
            elif error:
                raise error
            self.close(tile)

    def close(self, tile: Tile) -> None:
        counted = tile.rows + tile.rejects
        if tile.was_finished:
            self.objects_done += counted
            self.rejects += tile.rejects
            self.found_done(tile, counted)
        if tile.error:
            self.objects -= tile.objects - counted
        self.tiles_failed += tile.error is not None
        self.tiles_done += tile.error is None
        tile.close()
        self.show()

    def finish(self) -> None:
        """Wait until the last tiles are merged."""
        while self.merging:
            wait([self.merging[0][1]])
            self.reap()

    def __enter__(self) -> "Production":
        return self

    def __exit__(self, *_: object) -> None:
        self.found.stop()
        self.merger.shutdown(cancel_futures=True)
        for tile in self.tiles:
            tile.close()

    # ------------------------------------------------------------ what a person sees

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """A bar over the objects of all tiles; in a log, a line a minute."""
        texts = ["{task.fields[rate]:.0f} objects/s", "{task.fields[rejects]} rejects"]
        if len(self.tiles) > 1:
            texts.append(f"{{task.fields[tiles]}}/{len(self.tiles)} tiles, {{task.fields[failed]}} failed")
        started = said = time.monotonic()
        with bar("infer", *texts) as shown:
            task = shown.add_task("infer", total=self.objects, rate=0.0, rejects=0, tiles=0, failed=0)

            def show() -> None:
                nonlocal said
                now = time.monotonic()
                rate = (self.objects_done - self.objects_before) / (now - started)
                counts: dict[str, Any] = {
                    "rejects": self.rejects,
                    "tiles": self.tiles_done,
                    "failed": self.tiles_failed,
                }
                shown.update(task, total=self.objects, completed=self.objects_done, rate=rate, **counts)
                if not shown.console.is_terminal and now - said > LINE_SECONDS:
                    said = now
                    left = (self.objects - self.objects_done) / max(rate, 1e-9) / 3600
                    done = f"{self.objects_done}/{self.objects} objects, {rate:.0f}/s, {left:.1f} hours left"
                    print(done, *(f"{count} {name}" for name, count in counts.items()), sep=", ", flush=True)

            self.show = show
            show()
            yield
            show()
