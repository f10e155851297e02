"""The driver of an inference run, without the inference: how much memory, how many units a second?

    python tests/benchmarks/bench_driver.py [--most 100000] [--folder FOLDER]

The scheduler, the production loop and Ray are the real ones; the store is a plan without pixels, and the
actors answer at once with a manifest. Every case is a process of its own. The merge is timed on parts of a
million rows in units of 65536. From these follow the sizes of whole surveys. Prints the tables and writes
results/driver.md.
"""

import argparse
import contextlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import methodcaller
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import report

from catalogs import atomic
from catalogs.cpus import cpus
from catalogs.products import photoz
from catalogs.products.photoz import Part, Provenance
from catalogs.store.format import SHARD
from mmae import __version__
from mmae.production import ray_session
from mmae.production.plan import BATCH, MAX_UNIT, Plan, RunFiles, unit_rows
from mmae.production.production import MERGERS, Production
from mmae.production.scheduler import Scheduler
from mmae.production.tiles import Tile
from mmae.production.units import Rows

ACTORS = 2
SURVEYS = {"10^9 objects": (10**9, 1000), "2 x 10^10 objects": (2 * 10**10, 20_000)}
"""Objects, and the tiles they are in."""
PROVENANCE = Provenance("a" * 64, "none", __version__, "b" * 64, (0.0, 4.0))
MERGED_ROWS = 2**20


class Idle:
    """An actor that says a unit is done."""

    def begin(self) -> None:
        pass

    def process(self, ticket: int, task: None, rows: Rows) -> dict:
        files = {f"unit-{rows.unit}.fits": {"size": 0, "sha256": "0" * 64}}
        files |= {f"unit-{rows.unit}.rejects.fits": {}}
        return {"plan": "0" * 64, "rows": rows.size, "rejects": 0, "reasons": {}, "files": files}

    def recall(self, ticket: int) -> bool:
        return False


class PlannedTile(Tile):
    """A tile of which there is only the plan."""

    begun = 0.0

    def count_objects(self) -> int:
        return self.plan.rows

    def open(self, *_: object) -> None:
        self.task = None

    def count(self, manifest: dict) -> None:
        self.begun = self.begun or time.monotonic()
        super().count(manifest)

    def finish(self) -> None:
        assert self.rows == self.plan.rows


def plan_of(units: int) -> Plan:
    return Plan(units * MAX_UNIT, MAX_UNIT, BATCH, *["x"] * 11)


def peak() -> float:
    """Of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def schedule(units: int, folder: Path) -> dict[str, float]:
    """Do one tile of so many units: units/s after the first, peak memory before and after."""
    tile = PlannedTile(folder, RunFiles(folder, "tile"))
    tile.plan = plan_of(units)
    tile.files.parts.mkdir(parents=True)
    with ray_session.started(ACTORS), Production([tile], SimpleNamespace(), None) as made, made.progress():
        before = peak()
        Scheduler(ray_session.actor_type(Idle).remote, ray_session.Capacity(ACTORS, alone=True)).run(made)
        made.finish()
    assert tile.error is None
    return {"rate": units / (time.monotonic() - tile.begun), "before": before, "after": peak()}


def finished_units(folder: Path) -> Tile:
    """A tile of MERGED_ROWS whose units are done."""
    folder.mkdir()
    tile = Tile(folder, RunFiles(folder, "tile"))
    tile.plan = plan_of(MERGED_ROWS // MAX_UNIT)
    tile.files.parts.mkdir(parents=True)
    ids, rng = np.arange(MERGED_ROWS), np.random.default_rng(0)
    for unit in tile.plan.units:
        start, stop = tile.plan.span(unit)
        number = stop - start
        ra, dec, redshift = rng.uniform(0, 2, (3, number))
        flags, reason = np.zeros(number, np.int64), np.where(np.arange(number) % 100, "", "DAMAGED")
        columns, observed = {"PHOTOZ_POINT": redshift}, np.ones((number, 5), bool)
        rows = photoz.rows(ids[start:stop], ra, dec, columns, flags, reason, observed)
        tile.count(Part(tile.files.parts, unit).write(tile.plan.sha256, PROVENANCE, *rows))
    tile.task = SimpleNamespace(provenance=PROVENANCE)
    tile.store = SimpleNamespace(
        column=lambda name, start, stop: ids[start:stop], is_unchanged=lambda fingerprint: True
    )
    return tile


def merge(threads: int, folder: Path) -> dict[str, float]:
    """Check and merge a tile a thread: rows/s of all, growth of the peak memory, bytes of a manifest."""
    tiles = [finished_units(folder / str(k)) for k in range(threads)]
    with contextlib.ExitStack() as locks:
        for tile in tiles:
            locks.enter_context(atomic.owned(tile.files.run))
        before, started = peak(), time.monotonic()
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(methodcaller("finish"), tiles))
        rate = threads * MERGED_ROWS / (time.monotonic() - started)
    manifest = (tiles[0].files.parts / "unit-000000.json").stat().st_size
    return {"rate": rate, "growth": peak() - before, "manifest": manifest}


def measure(case: str, folder: Path) -> dict[str, float]:
    """Run a case in a process of its own, in an empty folder."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, __file__, "--case", case, "--folder", place]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def tables(most: int, folder: Path | None) -> Iterator[str]:
    yield "| units | objects they stand for | units/s | driver's peak memory, MB | at its start, MB |"
    yield "|---|---|---|---|---|"
    for units in (most // 100, most // 10, most):
        m = measure(str(units), folder)
        objects = f"{units * MAX_UNIT:.1e}"
        yield f"| {units:,} | {objects} | {m['rate']:,.0f} | {m['after']:.0f} | {m['before']:.0f} |"
    yield ""
    yield f"| check and merge of tiles of {MERGED_ROWS:,} rows, at once | rows/s | more memory, MB |"
    yield "|---|---|---|"
    here = min(MERGERS, cpus())
    of_threads = {threads: measure(f"merge {threads}", folder) for threads in sorted({1, 2, 4, here})}
    for threads, merged in of_threads.items():
        yield f"| {threads} | {merged['rate']:,.0f} | {merged['growth']:.0f} |"
    merged = of_threads[here]
    rate = merged["rate"]
    yield ""
    yield f"| survey | tiles | units | manifests, GB | scheduling, min | merging {here} at once, min |"
    yield "|---|---|---|---|---|---|"
    for name, (objects, tiles) in SURVEYS.items():
        each = objects // tiles
        units = tiles * len(Plan(each, unit_rows(each, SHARD), BATCH, *["x"] * 11).units)
        size, minutes = units * merged["manifest"] / 1e9, (units / m["rate"] / 60, objects / rate / 60)
        yield f"| {name} | {tiles:,} | {units:,} | {size:.2f} | {minutes[0]:,.0f} | {minutes[1]:,.0f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=100_000, help="units in the largest case")
    parser.add_argument(
        "--folder", type=Path, help="where to write; by default the system's temporary folder"
    )
    parser.add_argument("--case", help="one case only: a number of units, or `merge THREADS`")
    options = parser.parse_args()
    if options.case:
        what, _, threads = options.case.partition(" ")
        whole = merge(int(threads), options.folder) if threads else schedule(int(what), options.folder)
        print(json.dumps(whole))
        return
    body = [
        f"{ACTORS} Ray actors that answer at once, units of {MAX_UNIT:,} rows; one run each.",
        "",
        *tables(options.most, options.folder),
    ]
    report.write("driver", "The driver of inference at scale", f"bench_driver.py --most {options.most}", body)


if __name__ == "__main__":
    main()
