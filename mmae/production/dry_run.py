"""`--dry-run`: what a run would do and cost; an actor's own code is timed on one block of one tile."""

import multiprocessing
import os
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict

import numpy as np

from catalogs.errors import InputRefused, UsageError
from catalogs.products import photoz, schema
from catalogs.products.schema import CATALOGUE
from catalogs.store.cutouts import BLOCK
from catalogs.store.format import ImageMetadata
from mmae import environment
from mmae.bundles.bundle import Bundle
from mmae.production.predictor import Predictor, Setup, TileTask
from mmae.production.tiles import Tile

COPIES = 2
"""A row is written twice: in its part, and in the catalogue."""
PART_BYTES = 2 * 5 * 2880
"""Headers and padding of a unit's two files."""
UNITS_A_SECOND, MERGED_A_SECOND = 1400, 2e6
"""Units that the driver hands out, rows that it merges (tests/benchmarks/results/driver.md);
it does both while actors compute."""


def show(tiles: Sequence[Tile], bundle: Bundle, described: ImageMetadata, workers: int) -> None:
    """Print the plan: tiles, objects, units, workers, memory, disk, time. Writes nothing."""
    rows = units = done = 0
    sample: TileTask | None = None
    for tile in tiles:
        try:
            tile.check(bundle, described)
            # all but the fingerprint, for which a store of others is read
            known = {name: value for name, value in asdict(tile.plan).items() if name != "store_fingerprint"}
            tile.files.refuse_other_plan(known)
        except (UsageError, InputRefused) as error:
            print(f"{tile.name}: would be refused: {error}")
            continue
        if tile.files.finished.exists():
            done += 1
            print(f"{tile.name}: {tile.plan.rows} objects, finished before")
            continue
        print(f"{tile.name}: {tile.plan.rows} objects in {len(tile.plan.units)} units")
        rows, units = rows + tile.plan.rows, units + len(tile.plan.units)
        if tile.plan.rows:
            sample = sample or tile.make_task(bundle, described)
        tile.close()
    print(f"tiles        {len(tiles)}, {done} of them finished before")
    print(f"objects      {rows} in {units} units")
    print(f"workers      {workers}")
    if sample:
        print("\n".join(costs(sample, bundle, rows, units, workers)))


def costs(task: TileTask, bundle: Bundle, rows: int, units: int, workers: int) -> Iterator[str]:
    os.environ |= environment.WORKER
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        rate, memory = process.submit(measure, Setup.of(bundle, 0o077), task).result()
    row = schema.dtype(CATALOGUE).itemsize + photoz.pdf_dtype(task.provenance.pdf_bins).itemsize
    disk = COPIES * rows * row + units * PART_BYTES
    computing, scheduling, merging = costs_in_seconds(rows, units, rate * min(workers, units))
    yield f"memory       {memory / 1e9:.1f} GB an actor"
    yield f"disk         {disk / 1e9:.3f} GB"
    yield f"time         {max(computing, scheduling, merging) / 3600:.2f} hours"
    yield f"             {computing / 3600:.2f} of computing, at {rate:.0f} objects/s an actor"
    yield f"             (measured here and now, on {task.store.name});"
    yield f"             {scheduling / 3600:.2f} of scheduling and {merging / 3600:.2f} of merging meanwhile"


def costs_in_seconds(rows: int, units: int, rate: float) -> tuple[float, float, float]:
    """Of computing at `rate` objects/s of all actors, of handing out units, and of merging."""
    return rows / rate, units / UNITS_A_SECOND, rows / MERGED_A_SECOND


def measure(setup: Setup, task: TileTask) -> tuple[float, float]:
    """Objects/s of an actor on this machine after its first block, and its peak memory in bytes."""
    actor = Predictor(setup)
    actor.begin()
    store, span = actor.open(task), (0, min(task.plan.rows, BLOCK))
    object_id = store.column("object_id", *span).astype(np.int64)
    actor.compute(task, store, span, actor.read(store, *span), object_id)
    started = time.monotonic()
    actor.compute(task, store, span, actor.read(store, *span), object_id)
    rate = span[1] / (time.monotonic() - started)
    return rate, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
