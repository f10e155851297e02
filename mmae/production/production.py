"""All tiles of a run: units prefetched ahead of the workers, catalogues merged behind them, progress shown.

The workers never wait for this process: one thread opens the next tiles while they compute, others merge
those that are done. Few tiles are open at a time, and of units only counts are kept.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from operator import methodcaller
from typing import Any, NamedTuple

from catalogs.cpus import cpus
from catalogs.errors import InputRefused, UsageError
from catalogs.store.format import ImageMetadata
from mmae.bundles.bundle import Bundle
from mmae.prefetch import Prefetch
from mmae.production.tiles import Tile
from mmae.production.units import Rows, Unit
from mmae.progress import bar

PREFETCHED_UNITS = 256
"""Units prefetched before a worker takes one; a tile of one unit keeps one file open meanwhile."""
MAX_MERGES_WAITING = 64
"""Tiles that may wait for their merge before no more units are handed out (back-pressure)."""
MERGERS, MERGERS_OF_PDF = 8, 3
"""Tiles that are merged at once, at most, and no more than there are cores: a tenth of a merge holds the lock
of the interpreter, the rest is hashing, writing and sorting. Each has a part in memory: 14 MB, but 90 where
the whole p(z) is kept, so that the driver would pass its 300 MB."""
SIZE_THREADS = 16
"""Stores whose size is read at once: a shared file system takes its time for each."""
BEGIN_POLL_SECONDS = 1.0
LOG_SECONDS = 60.0
"""Between two lines of progress in a log, where there is no terminal for a bar."""
TILE_ERRORS = (UsageError, InputRefused, OSError)
"""Errors that end a tile and not the run."""


class ListedUnit(NamedTuple):
    """A unit of a tile, with its manifest if it was done before; after the last one, the end of the tile."""

    tile: Tile
    unit: int | None
    """None at the end of the tile."""
    manifest: dict | None = None


class Production:
    """The queue of a run's units, on the scheduler's thread; implements `scheduler.Queue`."""

    def __init__(self, tiles: Sequence[Tile], bundle: Bundle, described: ImageMetadata):
        self.tiles, self.bundle, self.described = tiles, bundle, described
        with ThreadPoolExecutor(SIZE_THREADS) as pool:
            for tile, objects in zip(tiles, pool.map(methodcaller("count_objects"), tiles), strict=True):
                tile.objects = objects
        self.objects = sum(tile.objects for tile in tiles)
        self.objects_done = self.objects_before = self.rejects = 0
        self.units = self.units_before = 0
        self.tiles_done = self.tiles_failed = 0
        self.show: Callable[[], None] = lambda: None
        self.first: Unit[Tile] | None = None
        self.listed = Prefetch(self.list_units(), PREFETCHED_UNITS)
        at_once = MERGERS_OF_PDF if bundle.keep_pdf else MERGERS
        self.merger = ThreadPoolExecutor(min(at_once, cpus()), "merge")
        self.merging: deque[tuple[Tile, Future[None]]] = deque()

    def list_units(self) -> Iterator[ListedUnit]:
        """Open tile after tile and list its units; runs on the prefetching thread."""
        for tile in self.tiles:
            try:
                tile.open(self.bundle, self.described)
                for unit, manifest in tile.units():
                    if tile.error:
                        break
                    yield ListedUnit(tile, unit, manifest)
            except TILE_ERRORS as error:
                tile.error = error
            yield ListedUnit(tile, None)

    # ------------------------------------------------------------ units

    def begin(self) -> bool:
        """Wait until there is a unit to do; returns whether there is one at all."""
        while self.first is None and not self.ended:
            self.first = self.take(BEGIN_POLL_SECONDS)
        return self.first is not None

    @property
    def waiting(self) -> int:
        return self.listed.waiting + (self.first is not None)

    @property
    def ended(self) -> bool:
        return self.listed.ended and self.first is None

    @property
    def is_behind(self) -> bool:
        """Whether so many tiles wait for their merge that no more units are handed out."""
        return len(self.merging) > MAX_MERGES_WAITING

    def take(self, seconds: float = 0.0) -> Unit[Tile] | None:
        """The next unit to do; None if none came within the time."""
        self.collect_merged()
        unit, self.first = self.first, None
        while unit is None and not self.is_behind and (listed := self.listed.take(seconds)):
            tile, number, manifest = listed
            if number is None:
                tile.listed = True
                self.finish_if_complete(tile)
            elif tile.error is None:
                self.units += 1
                if manifest is None:
                    tile.pending += 1
                    unit = Unit(tile, Rows(number, *tile.plan.span(number)))
                else:
                    self.units_before += 1
                    self.count(tile, manifest)
                    self.count_before(tile, manifest["rows"] + manifest["rejects"])
        return unit

    def complete(self, unit: Unit[Tile], result: dict | Exception) -> None:
        """Take a unit's manifest, or the reason why its tile cannot be finished."""
        tile = unit.source
        tile.pending -= 1
        if isinstance(result, Exception):
            tile.error = tile.error or result
        elif tile.error is None:
            tile.note(f"unit {unit.rows.unit}: {result['rows']} rows, {result['rejects']} rejects")
            self.count(tile, result)
        self.finish_if_complete(tile)

    def count(self, tile: Tile, manifest: dict) -> None:
        tile.count(manifest)
        self.objects_done += manifest["rows"] + manifest["rejects"]
        self.rejects += manifest["rejects"]
        self.show()

    def count_before(self, tile: Tile, objects: int) -> None:
        """Count objects that an earlier run did: they do not enter the rate of this one."""
        tile.before += objects
        self.objects_before += objects

    # ------------------------------------------------------------ tiles

    def finish_if_complete(self, tile: Tile) -> None:
        """Merge or close a tile whose units are all completed."""
        if not tile.listed or tile.pending:
            return
        if tile.error or tile.was_finished:
            self.close(tile)
        else:
            self.merging.append((tile, self.merger.submit(tile.finish)))

    def collect_merged(self) -> None:
        """Close the tiles that are merged by now."""
        while self.merging and self.merging[0][1].done():
            tile, merged = self.merging.popleft()
            error = merged.exception()
            if isinstance(error, TILE_ERRORS):
                tile.error = error
            elif error:
                raise error
            self.close(tile)

    def close(self, tile: Tile) -> None:
        counted = tile.rows + tile.rejects
        if tile.was_finished:
            self.objects_done += counted
            self.rejects += tile.rejects
            self.count_before(tile, counted)
        if tile.error:
            self.objects -= tile.objects - counted
        self.tiles_failed += tile.error is not None
        self.tiles_done += tile.error is None
        tile.close()
        self.show()

    def finish(self) -> None:
        """Wait until all tiles are merged."""
        while self.merging:
            wait([self.merging[0][1]])
            self.collect_merged()

    def __enter__(self) -> "Production":
        return self

    def __exit__(self, *_: object) -> None:
        self.listed.stop()
        self.merger.shutdown(cancel_futures=True)
        for tile in self.tiles:
            tile.close()

    # ------------------------------------------------------------ progress

    @contextlib.contextmanager
    def progress(self) -> Iterator[None]:
        """Show a bar over the objects of all tiles; in a log, a line a minute."""
        texts = ["{task.fields[rate]:.0f} objects/s", "{task.fields[rejects]} rejects"]
        if len(self.tiles) > 1:
            texts.append(f"{{task.fields[tiles]}}/{len(self.tiles)} tiles, {{task.fields[failed]}} failed")
        started = logged = time.monotonic()
        with bar("infer", *texts) as shown:
            task = shown.add_task("infer", total=self.objects, rate=0.0, rejects=0, tiles=0, failed=0)

            def show() -> None:
                nonlocal logged
                now = time.monotonic()
                rate = (self.objects_done - self.objects_before) / (now - started)
                counts: dict[str, Any] = {
                    "rejects": self.rejects,
                    "tiles": self.tiles_done,
                    "failed": self.tiles_failed,
                }
                shown.update(task, total=self.objects, completed=self.objects_done, rate=rate, **counts)
                if not shown.console.is_terminal and now - logged > LOG_SECONDS:
                    logged = now
                    left = (self.objects - self.objects_done) / max(rate, 1e-9) / 3600
                    done = f"{self.objects_done}/{self.objects} objects, {rate:.0f}/s, {left:.1f} hours left"
                    print(done, *(f"{count} {name}" for name, count in counts.items()), sep=", ", flush=True)

            self.show = show
            show()
            yield
            show()
