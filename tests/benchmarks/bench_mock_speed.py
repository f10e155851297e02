"""How fast the mock survey is drawn: objects a second with one process and with all cores, in turn.

python tests/benchmarks/bench_mock_speed.py
"""

import os
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import report

from catalogs.mock.objects import TRAINING
from catalogs.mock.survey import BLOCK, Mock, draw_blocks
from catalogs.mock.workers import workers

OBJECTS, ROUNDS = 480, 5


def rate(pool: ProcessPoolExecutor, processes: int, start: int) -> float:
    config = Mock(Path("unused"), processes=processes)
    began = time.perf_counter()
    blocks = draw_blocks(pool, config, TRAINING, start, start + OBJECTS, "draw")
    drawn = sum(len(block.redshift) for block in blocks)
    return drawn / (time.perf_counter() - began)


def main() -> None:
    counts = (1, len(os.sched_getaffinity(0)))
    with ExitStack() as stack:
        pools = {count: stack.enter_context(workers(count)) for count in counts}
        for count, pool in pools.items():  # start the processes, fill GalSim's tables
            rate(pool, count, 0)
        rates = {count: [] for count in counts}
        for turn in range(ROUNDS):
            for count, pool in pools.items():
                rates[count].append(rate(pool, count, turn * OBJECTS))
    one, all_cores = (statistics.median(rates[count]) for count in counts)
    body = [
        f"Training pairs (image and spectrum), blocks of {BLOCK}, medians of {ROUNDS} rounds in turn, "
        "processes warm.",
        "",
        "| processes | objects/s |",
        "|---|---|",
        f"| 1 | {one:.0f} |",
        f"| {counts[1]} | {all_cores:.0f} ({all_cores / one:.2f} x) |",
    ]
    report.write("mock_speed", "Drawing the mock survey", "bench_mock_speed.py", body)


if __name__ == "__main__":
    main()
