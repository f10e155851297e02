"""How fast cutouts come from the shards of a store into memory, screened, beside a copy of the same bytes.

    python tests/benchmarks/bench_data_path.py [--before CHECKOUT] [--objects 8192] [--rounds 9]
                                               [--redshifts BUNDLE TILE]

CHECKOUT is a folder with an earlier version of this repository. --redshifts measures what float16 does to the
redshifts of a tile, by a bundle. Other readers (`pip install zarrs tensorstore`) are measured where they are
installed. Every measurement is in a process of its own, with the environment of a worker; a round makes all
of them in turn, so that a slow minute of the machine hits them alike. Times are CPU time of one core, files
are in the page cache.
"""

import argparse
import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import report
import torch
import zarr
from bench_storage import pixels

from catalogs.bands import HSC
from catalogs.products.model_input import ModelInput
from catalogs.products.sky import is_unlike_training
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from catalogs.store.format import OPTIONAL
from mmae import environment
from mmae.bundles.bundle import open_bundle
from mmae.bundles.columns import named
from mmae.bundles.engine import Engine
from mmae.bundles.image_mask import WHOLE
from mmae.hardware import BF16, FP32
from mmae.production.plan import BATCH

ROOT = Path(__file__).parents[2]
BEFORE_BLOCK = 512
"""Rows that were read at a time before a store said how many there should be."""
NOISE = np.full(len(HSC), 0.1)
ZERO_POINT = 27.0
"""AB magnitude of flux 1, of HSC."""
PASSES = 3
"""Of which the fastest counts; the first fills the page cache."""
STEPS = {
    "copied": "plain copy of the bytes of the shards, into memory that is used again",
    "read": "images with all checks of damage",
    "screened": "and screened: no data, sentinels, trails, faults",
    "compared": "and their sky compared with that of the training set: what a worker does",
}


OTHERS = {
    "zarr": "images by zarr-python as it is",
    "zarr, one at a time": "images by zarr-python, one chunk and one thread at a time",
    "zarrs": "images by zarr-python with the codecs of zarrs, one thread",
    "tensorstore": "images by tensorstore, one thread",
}
"""Readers that other packages offer; all of them check the crc32c."""


def copied(path: Path) -> int:
    """Rows whose bytes were copied out of the page cache, in blocks as large as those read."""
    array, rows = open_store(path).array("image"), 0
    buffer = np.empty(array.dtype.itemsize * BEFORE_BLOCK * int(np.prod(array.shape[1:])), np.uint8)
    for shard in sorted((path / "image/c").glob("*/0/0/0")):
        with shard.open("rb", buffering=0) as file:
            while got := file.readinto(buffer):
                rows += got
    return rows // int(array.dtype.itemsize * np.prod(array.shape[1:]))


def blocks(path: Path, step: str) -> int:
    """Rows that were read, and screened, and compared."""
    store = open_store(path)
    wanted = ModelInput(store.bands, store.zero_point, store.pixel_scale, 2)
    size = getattr(store, "block_rows", BEFORE_BLOCK)
    for start in range(0, store.n, size):
        stop = min(store.n, start + size)
        if step == "read":
            store.images(start, stop)
            continue
        image = wanted.read(store, start, stop).image
        if step == "compared":
            is_unlike_training(image, NOISE)
    return store.n


def by_other(path: Path, reader: str) -> int:
    """Rows that one of OTHERS read."""
    array = zarr.open_array(path / "image", mode="r")
    if reader == "tensorstore":
        import tensorstore

        one = {"limit": 1}
        context = tensorstore.Context({"data_copy_concurrency": one, "file_io_concurrency": one})
        place = {"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{path}/image/"}}
        opened = tensorstore.open(place, context=context).result()
    rows = array.shape[0]
    for start in range(0, rows, BEFORE_BLOCK):
        span = slice(start, start + BEFORE_BLOCK)
        opened[span].read().result() if reader == "tensorstore" else array[span]
    return rows


def measure(step: str, path: Path) -> float:
    """Objects/s of CPU time."""
    if step in ("zarrs", "zarr, one at a time"):
        zarr.config.set({"async.concurrency": 1, "threading.max_workers": 1})
    if step == "zarrs":
        import zarrs  # noqa: F401

        zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"})
    work: Callable[[], int]
    if step == "copied":
        work = partial(copied, path)
    else:
        work = partial(by_other if step in OTHERS else blocks, path, step)
    rates = []
    for _ in range(PASSES):
        began = time.process_time()
        rows = work()
        rates.append(rows / (time.process_time() - began))
    return max(rates)


def write_stores(folder: Path, objects: int) -> str:
    """A store of float32 and one of float16; says of what."""
    image, what = pixels(objects)
    ids = np.arange(objects)
    columns = {"image": image, "object_id": ids, "ra": ids / objects, "dec": ids / objects}
    for name in ("float32", "float16"):
        cutouts.write(
            folder / f"{name}.zarr",
            lambda start, stop: {key: column[start:stop] for key, column in columns.items()},
            n=objects,
            survey="hsc",
            bands=HSC,
            float16=name == "float16",
        )
    return what


def rate(tree: Path, step: str, path: Path) -> float:
    """That of `measure` in a process with the code of a tree."""
    variables = os.environ | environment.WORKER | {"PYTHONPATH": str(tree)}
    command = [sys.executable, __file__, "--measure", step, str(path)]
    return float(subprocess.run(command, env=variables, check=True, capture_output=True, text=True).stdout)


def table(rates: dict[tuple[str, str, str], list[float]]) -> Iterator[str]:
    """Medians, and medians of ratios within a round."""
    yield "| store | | version | objects/s of a core | of the copy |"
    yield "|---|---|---|---|---|"
    for (name, step, version), measured in rates.items():
        copy = rates[name, "copied", "this"]
        ratio = statistics.median(a / b for a, b in zip(measured, copy, strict=True))
        yield (
            f"| {name} | {(STEPS | OTHERS)[step]} | {version} | {statistics.median(measured):,.0f} "
            f"({min(measured):,.0f} to {max(measured):,.0f}) | {ratio:.2f} |"
        )


def moved(bundle: Path, tile: Path, folder: Path) -> Iterator[str]:
    """How far the redshifts of a tile move when its pixels are kept in float16, beside what bf16 does.

    At the zero point of HSC: in nJy a pixel of the mock tile of Rubin is beyond what float16 can hold.
    """
    store, found = open_store(tile), {}
    columns = {name: store.column(name) for name in ("object_id", "ra", "dec")}
    known = [name for name in OPTIONAL if store.has(name) and name != "mask"]
    columns |= {name: store.column(name) for name in known} | {"image": store.images(0, store.n)[0]}
    for name in {"image", "noise"} & columns.keys():
        columns[name] = (columns[name] * store.flux_scale(ZERO_POINT)).astype(np.float32)
    cutouts.write(
        folder / "half.zarr",
        lambda start, stop: {name: column[start:stop] for name, column in columns.items()},
        n=store.n,
        survey=store.survey,
        bands=store.bands,
        pixel_scale=store.pixel_scale,
        zero_point=ZERO_POINT,
        known=known,
        float16=True,
    )
    for name, path, precision in (
        ("float32", tile, FP32),
        ("float16", folder / "half.zarr", FP32),
        ("float32, program in bf16", tile, BF16),
    ):
        opened = open_bundle(bundle, precision, WHOLE)
        read = opened.input.read(open_store(path), 0, store.n)
        engine = Engine(opened, torch.device("cpu"), BATCH)
        values = named(engine.table(read.image, columns["object_id"], read.conditions))
        found[name] = values["PHOTOZ_BEST"], read.flags, read.reason
        width = (values["PHOTOZ_ERR68_MAX"] - values["PHOTOZ_ERR68_MIN"]) / 2
    z, flags, reason = found.pop("float32")
    used = reason == ""
    yield f"Redshifts of {used.sum()} objects of a mock tile ({store.survey}), from those of float32 pixels:"
    yield ""
    yield "| | median of abs(dz)/(1+z) | 99 % | greatest | 99 % of abs(dz) / sigma | other flags or reasons |"
    yield "|---|---|---|---|---|---|"
    for name, (other, its_flags, its_reason) in found.items():
        dz = np.abs(other - z)[used]
        scaled = dz / (1 + z[used])
        changed = int(((its_flags != flags) | (its_reason != reason)).sum())
        levels = " | ".join(f"{np.quantile(scaled, level):.1e}" for level in (0.5, 0.99, 1))
        yield f"| {name} | {levels} | {np.quantile(dz / width[used], 0.99):.3f} | {changed} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path)
    parser.add_argument("--objects", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--redshifts", nargs=2, type=Path, default=())
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(measure(options.measure[0], Path(options.measure[1])))
        return
    trees = {"this": ROOT} | ({"before": options.before.absolute()} if options.before else {})
    cases = [
        (name, step, version)
        for name in ("float32", "float16")
        for step in STEPS
        for version in trees
        if (step, version) != ("copied", "before")
    ]
    there = [name for name in OTHERS if importlib.util.find_spec(name.partition(",")[0])]
    cases += [("float32", name, "this") for name in there]
    rates: dict[tuple[str, str, str], list[float]] = {case: [] for case in cases}
    with tempfile.TemporaryDirectory() as folder:
        what = write_stores(Path(folder), options.objects)
        for turn in range(options.rounds):
            for name, step, version in cases:
                found = rate(trees[version], step, Path(folder, f"{name}.zarr"))
                rates[name, step, version].append(found)
                print(f"{turn + 1}/{options.rounds} {name} {step} {version}: {found:,.0f}", file=sys.stderr)
        change = list(moved(*options.redshifts, Path(folder))) if options.redshifts else []
    body = [
        f"{options.objects} objects of 5 x 64 x 64 pixels: {what}. Medians of {options.rounds} rounds, in "
        "brackets least and greatest; CPU time, one core, page cache; load of the two cores while measured: "
        f"{os.getloadavg()[1]:.0f}. A copy of float16 is of half of the bytes.",
        "",
        *table(rates),
        "",
        *change,
    ]
    flags = " --before CHECKOUT" if options.before else ""
    flags += " --redshifts BUNDLE TILE" if options.redshifts else ""
    command = f"bench_data_path.py{flags} --objects {options.objects} --rounds {options.rounds}"
    report.write("data_path", "From shards to screened pixels", command, body)


if __name__ == "__main__":
    main()
