"""Where the time goes from the command of `mmae infer` to its first rows on disk.

python tests/benchmarks/bench_start.py [--rounds 7]

Every step is measured in a process of its own, in which what comes before it was done; a round makes all of
them, and the whole command, in turn.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import report
from bench_inference import make_inputs

from mmae import environment
from mmae.production.plan import BATCH

READY = "import time, sys; bundle, tile = sys.argv[1:]; now = time.perf_counter"
RAY = "import ray; quiet = dict(log_to_driver=False, logging_level='error', include_dashboard=False)"
ACTOR = "import ray, mmae.production.predictor"
ENGINE = (
    "from pathlib import Path; from mmae.bundles.bundle import open_bundle; "
    "from mmae.bundles.engine import engine_of_this_process"
)
LOAD = f"engine = engine_of_this_process(open_bundle(Path(bundle)), {BATCH})"
UNIT = (
    "from catalogs.store.cutouts import open_store; "
    "opened = open_bundle(Path(bundle)).input.read(open_store(Path(tile)), 0, {rows}); "
    "engine.table(opened.image, __import__('numpy').arange({rows}), opened.conditions)"
)
STEPS = {
    "what the command imports, and Ray": (READY, "import mmae.infer"),
    "ray.init: its control store and its node": (f"{READY}; {RAY}", "ray.init(num_cpus=1, **quiet)"),
    "a process for the actor": (
        f"{READY}; {RAY}; ray.init(num_cpus=1, **quiet)",
        "actor = ray.remote(type('Actor', (), {'begin': lambda self: 0})); "
        "ray.get(actor.remote().begin.remote())",
    ),
    "what the actor imports": (f"{READY}; import ray", "import mmae.production.predictor"),
    "torch, and the engine": (f"{READY}; {ACTOR}", ENGINE),
    "the program of the bundle": (f"{READY}; {ACTOR}; {ENGINE}", LOAD),
    "its first batch, which is its first unit": (
        f"{READY}; {ACTOR}; {ENGINE}; {LOAD}",
        UNIT.format(rows=BATCH),
    ),
}
COMMAND = "the command, to its first rows"


def seconds(step: str, bundle: Path, tile: Path) -> float:
    before, timed = STEPS[step]
    code = f"{before}; began = now(); {timed}; print(now() - began)"
    variables = os.environ | environment.WORKER
    command = [sys.executable, "-c", code, str(bundle), str(tile)]
    done = subprocess.run(command, env=variables, check=True, capture_output=True, text=True)
    return float(done.stdout.splitlines()[-1])


def command(bundle: Path, tile: Path) -> float:
    """Until the first part of the catalogue is on disk; then it is stopped."""
    with tempfile.TemporaryDirectory() as out:
        began = time.time()
        flags = ["--catalog", tile, "--model", bundle, "--out", out, "--workers", 1]
        arguments = [sys.executable, "-m", "mmae.infer", *map(str, flags)]
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
            while not (parts := list(Path(out).glob("*/parts/*.json"))) and run.poll() is None:
                time.sleep(0.05)
            run.terminate()
        return min(path.stat().st_mtime for path in parts) - began


def table(measured: dict[str, list[float]]) -> Iterator[str]:
    yield "| | seconds | least | greatest |"
    yield "|---|---|---|---|"
    medians = {name: statistics.median(values) for name, values in measured.items()}
    whole = measured.pop(COMMAND)
    for name, values in measured.items():
        yield f"| {name} | {medians[name]:.2f} | {min(values):.2f} | {max(values):.2f} |"
    yield f"| sum of the above | {sum(medians.values()) - medians[COMMAND]:.2f} | | |"
    yield f"| {COMMAND} | {medians[COMMAND]:.2f} | {min(whole):.2f} | {max(whole):.2f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    measured: dict[str, list[float]] = {name: [] for name in (*STEPS, COMMAND)}
    with tempfile.TemporaryDirectory() as name:
        tile, bundle = make_inputs(Path(name))
        for _ in range(rounds):
            for step in STEPS:
                measured[step].append(seconds(step, bundle, tile))
            measured[COMMAND].append(command(bundle, tile))
    load = f"load of the two cores at the end: {os.getloadavg()[0]:.1f}"
    body = [f"One worker. Medians of {rounds} rounds; {load}.", "", *table(measured)]
    report.write("start", "From the command to the first rows", f"bench_start.py --rounds {rounds}", body)


if __name__ == "__main__":
    main()
