"""How much of the model's rate is left from Zarr to FITS, and how Ray Data does at the same job.

python tests/benchmarks/bench_inference.py      (needs `ray[data]`)

Rates are of the steady state: from the time that every worker has done its first rows until the catalogue is
there. Starting Ray and loading the model take seconds, whatever the size of the survey; they are given apart.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import report
import torch
from astropy.table import Table

from catalogs.bands import HSC
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from mmae import environment
from mmae.bundles import compiler
from mmae.bundles.bundle import open_bundle
from mmae.bundles.engine import Engine
from mmae.bundles.sample import noise_sample
from mmae.models.himes2025 import Himes2025, Himes2025Config
from mmae.production.plan import BATCH, MIN_UNIT

OBJECTS, HELD, ROUNDS = 8192, 1024, 3
"""In the tile; in memory for the model alone."""
BLOCK = 512
"""Rows that a task of Ray Data reads."""


def make_inputs(folder: Path) -> tuple[Path, Path]:
    """A tile of noise, and a bundle of random weights: the rate depends on neither."""
    rng = np.random.default_rng(0)

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        ids = np.arange(start, stop)
        image = rng.normal(size=(stop - start, 5, 64, 64)).astype(np.float32)
        return {"image": image, "object_id": ids, "ra": ids / OBJECTS, "dec": ids / OBJECTS}

    cutouts.write(folder / "tile.zarr", rows, n=OBJECTS, survey="noise", shard_rows=4 * MIN_UNIT)
    trained = {"survey": "none", "bands": HSC, "pixel_scale": 0.168, "zero_point": 27.0, "noise": [1.0] * 5}
    trained |= {"flux_percentiles": {}, "z_range": [0.0, 4.0]}
    state = {"config": {"model": asdict(Himes2025Config())}, "data": trained, "metrics": {}, "step": 0}
    compiler.BOUND = dict.fromkeys(compiler.BOUND, float("inf"))
    torch.manual_seed(0)
    sample = noise_sample(5, BATCH, BATCH)
    compiler.write_bundle(folder / "bundle", Himes2025().eval(), state, sample)
    return folder / "tile.zarr", folder / "bundle"


# ---------------------------------------------------------------- each gives start-up and rate


def program(tile: Path, bundle: Path, workers: int) -> tuple[float, float]:
    """`python -m mmae.infer`."""
    with tempfile.TemporaryDirectory() as out:
        began = time.time()
        flags = ["--catalog", tile, "--model", bundle, "--out", out, "--workers", workers]
        run(sys.executable, "-m", "mmae.infer", *flags)
        manifests = sorted(Path(out).glob("*/parts/*.json"), key=lambda path: path.stat().st_mtime)
        first, last_of_first = manifests[0].stat().st_mtime, manifests[workers - 1].stat().st_mtime
        units = map(json.loads, (path.read_bytes() for path in manifests[workers:]))
        rest = sum(unit["rows"] + unit["rejects"] for unit in units)
        end = Path(out, "tile.photoz.fits").stat().st_mtime
        return first - began, rest / (end - last_of_first)


def model_alone(tile: Path, bundle: Path, workers: int) -> tuple[float, float]:
    """The engine on images in memory, in as many processes at once."""
    command = [sys.executable, __file__, "model", tile, bundle]
    processes = [start(*command) for _ in range(workers)]
    texts = [process.communicate()[0] for process in processes]
    return 0.0, sum(float(text.split()[-1]) for text in texts)


def ray_data(tile: Path, bundle: Path, workers: int) -> tuple[float, float]:
    """Ray Data: tasks that read, a pool of actors that predict, a table at the end."""
    startup, rate = run(sys.executable, __file__, "ray-data", tile, bundle, workers).split()[-2:]
    return float(startup), float(rate)


def start(*command: object) -> subprocess.Popen[str]:
    variables = os.environ | environment.WORKER
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    return subprocess.Popen(list(map(str, command)), env=variables, **pipes)


def run(*command: object) -> str:
    process = start(*command)
    printed, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return printed


def run_model(tile: Path, bundle: Path) -> None:
    torch.set_num_threads(1)
    engine, (image, _) = (
        Engine(open_bundle(bundle), torch.device("cpu"), BATCH),
        open_store(tile).images(0, HELD),
    )
    engine.table(image[: 2 * BATCH], np.arange(2 * BATCH))
    began = time.perf_counter()
    engine.table(image, np.arange(HELD))
    print(HELD / (time.perf_counter() - began))


class Predict:
    """The UDF of Ray Data."""

    def __init__(self, bundle: Path):
        torch.set_num_threads(1)
        self.engine = Engine(open_bundle(bundle), torch.device("cpu"), BATCH)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        redshift = self.engine.table(batch["image"], batch["object_id"])[:, 0]
        return {"object_id": batch["object_id"], "z": redshift, "time": np.full(len(redshift), time.time())}


def run_ray_data(tile: Path, bundle: Path, workers: int) -> None:
    import ray

    def read(blocks: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        first = int(blocks["id"][0]) * BLOCK
        span = first, min(OBJECTS, first + BLOCK)
        store = open_store(tile)
        return {"image": store.images(*span)[0], "object_id": store.column("object_id", *span)}

    began = time.time()
    variables = {"env_vars": environment.WORKER}
    ray.init(num_cpus=workers + 1, include_dashboard=False, runtime_env=variables)
    blocks = ray.data.range(-(-OBJECTS // BLOCK)).map_batches(read, batch_size=1)
    predicted = blocks.map_batches(
        Predict, fn_constructor_args=(bundle,), batch_size=BATCH, concurrency=workers, num_cpus=1
    )
    parts = list(predicted.iter_batches(batch_size=None))
    table = Table({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    assert len(np.unique(table["object_id"])) == OBJECTS
    with tempfile.TemporaryDirectory() as out:
        table.write(Path(out, "catalogue.fits"))
    times = np.unique(table["time"])
    first = times[workers - 1]
    print(times[0] - began, (OBJECTS - workers * BATCH) / (time.time() - first))


# ---------------------------------------------------------------- the table


def table(results: dict[str, list[tuple[float, float]]]) -> Iterator[str]:
    """Medians; ratios within a round."""
    rates = {name: [rate for _, rate in values] for name, values in results.items()}

    def ratio(name: str, other: str) -> str:
        return f"{statistics.median(a / b for a, b in zip(rates[name], rates[other], strict=True)):.2f}"

    yield "| | objects/s | of the model alone | against Ray Data | seconds to the first rows |"
    yield "|---|---|---|---|---|"
    for name, values in results.items():
        what, _, workers = name.rpartition(", ")
        alone, other = (
            ratio(name, f"{base}, {workers}") if base != what else ""
            for base in ("(f) model alone", "(g) Ray Data")
        )
        first = statistics.median(startup for startup, _ in values)
        shown = f"{first:.1f}" if first else ""
        yield f"| {name} | {statistics.median(rates[name]):.0f} | {alone} | {other} | {shown} |"
    yield ""
    for what in ("(e) mmae infer", "(f) model alone"):
        yield f"{what}: 2 workers against 1: {ratio(f'{what}, 2 workers', f'{what}, 1 worker')} x."


def main() -> None:
    if sys.argv[1:2] == ["model"]:
        return run_model(Path(sys.argv[2]), Path(sys.argv[3]))
    if sys.argv[1:2] == ["ray-data"]:
        return run_ray_data(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
    ways: dict[str, Callable[[Path, Path, int], tuple[float, float]]] = {
        "(e) mmae infer": program,
        "(f) model alone": model_alone,
        "(g) Ray Data": ray_data,
    }
    busy = os.getloadavg()[0]
    results: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        tile, bundle = make_inputs(Path(name))
        for _ in range(ROUNDS):
            for workers in (1, 2):
                for what, way in ways.items():
                    named = f"{what}, {workers} worker{'s' * (workers > 1)}"
                    results.setdefault(named, []).append(way(tile, bundle, workers))
        precision = open_bundle(bundle).precision
    body = [
        f"`himes2025` in {precision}, a tile of {OBJECTS} objects in a sharded Zarr store, read from the "
        "page cache; one thread a worker. Ray Data has a core more, to read with. Medians of "
        f"{ROUNDS} rounds in turn, ratios within a round. Load average before: {busy:.1f}; other work spoils "
        "the rates.",
        "",
        *table(results),
    ]
    report.write("inference", "The whole program against the model alone", "bench_inference.py", body)
    return None


if __name__ == "__main__":
    main()
