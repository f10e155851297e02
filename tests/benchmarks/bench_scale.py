"""What 2 x 10^10 objects take, by what was measured: bytes, files, hours, and what breaks first.

python tests/benchmarks/bench_scale.py

Nothing is measured here: the rates stand in the results named, and the driver's cost is what `mmae infer
--dry-run` reckons with.
"""

from collections.abc import Iterator

import report

from catalogs.products import schema
from catalogs.products.schema import CATALOGUE
from catalogs.store.writer import SHARD
from mmae.production.dry_run import COPIES, PART_BYTES, costs_in_seconds
from mmae.production.plan import BATCH, number_of_units, unit_rows

OBJECTS, TILE = 20_000_000_000, 1_000_000
PIXELS = 5 * 64 * 64 * 4
SCREENED, COMPUTED, HATS = 27_000, 340, 110_000
"""Objects/s of a core: from shards to screened pixels (data_path.md), `mmae` in bf16 (engine.md); rows/s of
two cores to HATS (hats.md)."""
CORES = 128 * 100
"""Of 100 nodes."""
FILES = 3
"""Of a unit: rows, rejects, manifest."""


def rows() -> Iterator[str]:
    tiles = OBJECTS // TILE
    units = tiles * number_of_units(TILE, unit_rows(TILE, SHARD), BATCH)
    row = schema.dtype(CATALOGUE).itemsize
    computing, scheduling, merging = costs_in_seconds(OBJECTS, units, COMPUTED * CORES)
    written = OBJECTS * row / 1e12
    yield "| | takes |"
    yield "|---|---|"
    yield f"| tiles of {TILE:,} objects; units | {tiles:,}; {units:,} |"
    yield f"| pixels, float32; float16 | {OBJECTS * PIXELS / 1e15:.2f} PB; {OBJECTS * PIXELS / 2e15:.2f} PB |"
    yield f"| reading, checking, screening | {OBJECTS / SCREENED / 3600:,.0f} core-hours |"
    yield f"| p(z), `mmae` in bf16, on cores | {OBJECTS / COMPUTED / 3600:,.0f} core-hours |"
    yield f"| that on {CORES:,} cores | {computing / 3600:.1f} h |"
    yield f"| the network or disk that feeds these | {OBJECTS * PIXELS / computing / 1e9:,.0f} GB/s |"
    yield f"| handing out units, one process | {scheduling / 3600:.2f} h, while cores compute |"
    yield f"| checking and merging parts, the same process | {merging / 3600:.2f} h, while cores compute |"
    yield f"| catalogues, {row} bytes a row; with the parts | {written:.1f}; {COPIES * written:.1f} TB |"
    yield f"| headers of parts | {units * PART_BYTES / 1e12:.2f} TB |"
    yield f"| files: of tiles; of units | {4 * tiles:,}; {FILES * units:,} |"
    yield f"| HATS, on two cores | {OBJECTS / HATS / 3600:.0f} h |"


def main() -> None:
    report.write("scale", f"{OBJECTS:.0e} objects".replace("e+", " x 10^"), "bench_scale.py", rows())


if __name__ == "__main__":
    main()
