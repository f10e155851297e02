"""Peak memory of inference: does it depend on the number of objects?

    python tests/benchmarks/bench_inference_memory.py [--most 10000000] [--folder FOLDER]

`python -m mmae.infer` with one worker, in full, on stores whose shards of images are one file of 336 MB under
many names: each is verified, read, screened and predicted as if it were another. Ids and positions are every
object's own. The model is about the smallest there can be, so that reading takes the time. Prints the table
and writes results/inference_memory.md.
"""

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import report
import torch
import zarr

from catalogs import atomic
from catalogs.bands import HSC
from catalogs.store import cutouts
from catalogs.store.format import SHARD, get_array, manifest_path, shard_key
from mmae.bundles import compiler
from mmae.bundles.sample import noise_sample
from mmae.models.mmae import Model
from mmae.models.mmae_config import ModelConfig
from mmae.production.plan import IDS_PER_PASS

MODEL = ModelConfig(embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1)
SAMPLE_SECONDS = 0.5
KINDS = {"ray::Predictor": "actor", "raylet": "raylet", "gcs_server": "GCS"}
"""How the names of processes begin -> what they are; the driver is the one that was started."""


class Memory(NamedTuple):
    """Of a process, MB."""

    peak: float = 0.0
    """Resident, as the kernel counted it: with shared libraries and what is mapped of Ray's object store."""
    own: float = 0.0
    """Shared with nobody, the most of all samples."""


def make_bundle(out: Path) -> Path:
    trained = {"survey": "none", "bands": HSC, "pixel_scale": 0.168, "zero_point": 27.0, "noise": [1.0] * 5}
    trained |= {"flux_percentiles": {}, "z_range": [0.0, 4.0]}
    state = {"config": {"model": asdict(MODEL)}, "data": trained, "metrics": {}, "step": 0}
    torch.manual_seed(0)
    compiler.write_bundle(out, Model(MODEL).eval(), state, noise_sample(5, 64, 64))
    return out


def make_store(path: Path, n: int) -> Path:
    """What our writer makes of one shard, lengthened to n objects: more names for its file of images."""

    def columns(start: int, stop: int) -> dict[str, np.ndarray]:
        ids = np.arange(start, stop)
        return {"object_id": ids + 2**53, "ra": 360 * ids / n, "dec": 180 * ids / n - 90}

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        image = np.random.default_rng(0).standard_normal((stop - start, 5, 64, 64), np.float32)
        return columns(start, stop) | {"image": image}

    cutouts.write(path, rows, n=SHARD, survey="noise")
    manifest = json.loads(manifest_path(path).read_text())
    group = zarr.open_group(path, mode="r+")
    arrays = {name: get_array(group, name) for name in ("image", "object_id", "ra", "dec")}
    for array in arrays.values():
        array.resize((n, *array.shape[1:]))
    shards = [shard_key(arrays["image"], shard) for shard in range(-(-n // SHARD))]
    for name in shards[1:]:
        (path / name).parent.mkdir(parents=True)
        (path / name).hardlink_to(path / shards[0])
    for start in range(0, n, SHARD):
        for name, values in columns(start, min(n, start + SHARD)).items():
            arrays[name][start : start + SHARD] = values
    files = {str(file.relative_to(path)): file for file in path.rglob("*") if file.is_file()}
    known = dict.fromkeys(shards, manifest["files"][shards[0]])
    manifest["files"] = {name: known.get(name) or atomic.entry(file) for name, file in sorted(files.items())}
    atomic.write_json(manifest_path(path), manifest)
    return path


def watch(process: subprocess.Popen) -> dict[str, Memory]:
    """Look at a command, and at what it has started, until it ends; of each kind the largest counts."""
    found: dict[str, Memory] = {}
    while process.poll() is None:
        for kind, now in look(process.pid):
            before = found.get(kind, Memory())
            found[kind] = Memory(*map(max, before, now))
        time.sleep(SAMPLE_SECONDS)
    return found


def look(driver: int) -> Iterator[tuple[str, Memory]]:
    with contextlib.suppress(psutil.Error, OSError):
        started = psutil.Process(driver)
        for one in (started, *started.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):  # gone by now
                kinds = [kind for name, kind in KINDS.items() if one.name().startswith(name)]
                if one == started or kinds:
                    status = Path(f"/proc/{one.pid}/status").read_text()
                    peak = sum(map(int, re.findall(r"VmHWM:\s+(\d+)", status))) / 1024
                    yield "".join(kinds) or "driver", Memory(peak, one.memory_full_info().uss / 2**20)


def measure(folder: Path, bundle: Path, n: int) -> str:
    """A row of the table: infer on a new store of n objects."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        store = make_store(Path(name, "tile.zarr"), n)
        command = [
            sys.executable,
            "-m",
            "mmae.infer",
            "--catalog",
            store,
            "--model",
            bundle,
            "--workers",
            "1",
        ]
        started = time.perf_counter()
        with subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL) as process:
            found = watch(process)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise SystemExit(f"infer ended with {process.returncode}")
        units = len(list(Path(name).glob("tile.photoz/parts/*.json")))
        size = Path(name, "tile.photoz.fits").stat().st_size / 1e6
    memory = " | ".join(
        f"{found[kind].peak:.0f} ({found[kind].own:.0f})" for kind in ("driver", *KINDS.values())
    )
    return f"| {n:,} | {units} | {memory} | {seconds:.0f} | {n / seconds:,.0f} | {size:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=10_000_000, help="objects in the largest case")
    parser.add_argument(
        "--folder", type=Path, help="where to write; by default the system's temporary folder"
    )
    options = parser.parse_args()
    kinds = " | ".join(("driver", *KINDS.values()))
    table = [f"| objects | units | {kinds} | s | objects/s | catalogue, MB |", "|" + "---|" * 9]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        bundle = make_bundle(Path(name, "bundle"))
        for n in (options.most // 100, options.most // 10, options.most):
            table.append(measure(Path(name), bundle, n))
            print(table[-1], flush=True)
    body = [
        "One worker, one run each. Peak resident memory, MB, as the kernel counted it, libraries that "
        "several processes share included; in brackets, the most that was the process's own. The driver "
        f"holds {IDS_PER_PASS:,} ids at most, and merges a unit at a time. The time includes "
        "the start of Ray.",
        "",
        *table,
    ]
    report.write(
        "inference_memory", "Memory of inference", f"bench_inference_memory.py --most {options.most}", body
    )


if __name__ == "__main__":
    main()
