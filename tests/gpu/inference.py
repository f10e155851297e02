"""Measurements of inference: the model alone, shards to catalogue, identity of bytes, errors."""

import platform
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import toy
from bench import Bench
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from catalogs import s3
from catalogs.products.photoz import Provenance
from catalogs.store.cutouts import open_store
from catalogs.store.format import NO_METADATA
from mmae import __version__
from mmae.bundles import columns
from mmae.bundles.bundle import open_bundle
from mmae.bundles.engine import Engine
from mmae.bundles.image_mask import WHOLE
from mmae.bundles.program import program_of
from mmae.hardware import BF16, FP32
from mmae.models.mmae import Model
from mmae.models.output import Estimate
from mmae.production import actor
from mmae.production.plan import Plan, unit_rows
from mmae.production.predictor import Predictor, Setup, TileTask
from mmae.production.units import Rows


def machine(bench: Bench) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if bench.device.type == "cuda" else "none"
    return {"gpu": gpu, "cpu": platform.processor(), "torch": torch.__version__, "code": __version__}


def products(bench: Bench) -> dict[str, float]:
    """TFLOP/s of products of large matrices, by type; tf32: float32 with ten bits of mantissa."""
    found, side = {}, bench.size["side"]
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        a, b = (torch.randn(side, side, device=bench.device, dtype=dtype) for _ in range(2))
        found[name] = bench.rate(lambda a=a, b=b: a @ b, 1) * 2 * side**3 / 1e12
    torch.backends.cuda.matmul.allow_tf32 = False
    return found


def flops(bench: Bench) -> float:
    """Of the products for an object; counted in float64, which no library of its own multiplies."""
    program = program_of(Model(bench.config).double().eval())
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        program(torch.randn(8, 5, 64, 64, dtype=torch.float64), None, None)
    return counter.get_total_flops() / 8


def launched(bench: Bench, precision: str, batch: int) -> Callable[[], Tensor]:
    """The program and its columns, of images that stay where they are on the device."""
    engine = bench.engine(precision, batch)
    image = torch.randn(batch, 5, 64, 64, device=bench.device)
    told = torch.full((batch, 11), torch.nan, device=bench.device)
    drawn = torch.rand(batch, device=bench.device)

    @torch.inference_mode()
    def work() -> Tensor:
        return engine.summary(Estimate(*engine.program(image, None, told)), drawn)

    return work


def model(bench: Bench) -> dict[str, Any]:
    """Objects/s of the program and its columns, images on the device; and its share of the matrix rate."""
    rates = products(bench)
    found: dict[str, Any] = {"product_tflops": rates, "flop_an_object": flops(bench)}
    found |= {"objects_per_s": {}, "share_of_product": {}}
    for precision in (FP32, BF16):
        for batch in bench.size["batches"]:
            rate = bench.rate(launched(bench, precision, batch), batch)
            found["objects_per_s"][f"{precision} {batch}"] = rate
            share = rate * found["flop_an_object"] / (rates[precision] * 1e12)
            found["share_of_product"][f"{precision} {batch}"] = share
    return found


def graphs(bench: Bench) -> dict[str, Any] | None:
    """Objects/s of the program in bf16, launched, and replayed as a CUDA graph; None where there is no GPU.

    And how far the columns of a replay are from those of a launch. Where a program cannot be captured, its
    error stands in the place of its numbers.
    """
    if bench.device.type != "cuda":
        return None
    found: dict[str, Any] = {}
    for batch in bench.size["batches"]:
        work = launched(bench, BF16, batch)
        rates = {"launched": bench.rate(work, batch)}
        try:
            graph, expected = torch.cuda.CUDAGraph(), work()
            with torch.cuda.graph(graph):
                columns_of_graph = work()
            rates["replayed"] = bench.rate(graph.replay, batch)
            rates["largest difference"] = float((columns_of_graph - expected).abs().nan_to_num().max())
            found[str(batch)] = rates
        except RuntimeError:
            found[str(batch)] = rates | {"error": traceback.format_exc()}
    return found


# ---------------------------------------------------------------- shards -> catalogue


def predictor(bench: Bench, readers: int) -> Predictor:
    """The worker of `mmae infer`; where there is no GPU, it reads as for one, too."""
    bundle = open_bundle(bench.bundle, BF16, WHOLE)
    setup = Setup(bundle.path, bundle.sha256, BF16, WHOLE, 0o022, bench.size["batch"], s3.Environment.here())
    actor.GPU_READERS = readers
    worker = Predictor(setup)
    worker.begin()
    if bench.device.type != "cuda":
        worker.feed_gpu(actor.usual_memory, setup.batch)
    return worker


def task_of(bench: Bench, kind: str, parts: Path) -> TileTask:
    """A tile, as the driver would plan it."""
    store, bundle = open_store(bench.stores[kind]), open_bundle(bench.bundle, BF16, WHOLE)
    batch = bench.size["batch"]
    unit, bands = unit_rows(store.n, store.shard_rows, batch), " ".join(store.bands)
    numbers = (
        store.n,
        unit,
        batch,
        "",
        bands,
        store.zero_point,
        store.pixel_scale,
        "",
        bundle.sha256,
        0.0,
        1,
    )
    plan = Plan(*numbers, False, __version__, torch.__version__)
    provenance = Provenance(bundle.sha256, "toy", __version__, "", bundle.z_range, bands=bundle.input.bands)
    parts.mkdir(parents=True)
    return TileTask(plan, store.path, store.stamp, NO_METADATA, parts, provenance)


def catalogue(bench: Bench) -> dict[str, Any]:
    """Objects/s from the shards to the parts of the catalogue, in the page cache, by threads that read."""
    found: dict[str, Any] = {}
    for kind in bench.stores:
        for readers in bench.size["readers"]:
            worker = predictor(bench, readers)
            task = task_of(bench, kind, bench.folder / f"parts-{kind}-{readers}")
            spans = [(unit, *task.plan.span(unit)) for unit in task.plan.units]
            worker.process(0, task, Rows(*spans[0]))  # warms up
            began = time.perf_counter()
            for ticket, span in enumerate(spans, 1):
                worker.process(ticket, task, Rows(*span))
            found[f"{kind}, {readers} threads"] = task.plan.rows / (time.perf_counter() - began)
    return found


def reading(bench: Bench) -> dict[str, float]:
    """Objects/s that threads read and screen, with nothing computed."""
    found = {}
    for kind, path in bench.stores.items():
        for readers in bench.size["readers"]:
            worker, store = predictor(bench, readers), open_store(path)
            size = min(store.n, worker.least_block)
            spans = [(start, min(store.n, start + size)) for start in range(0, store.n, size)]
            work = lambda w=worker, s=store, spans=spans: [w.read(s, *span) for span in spans]  # noqa: E731
            found[f"{kind}, {readers} threads"] = bench.rate(work, store.n)
    return found


# ---------------------------------------------------------------- right, and the same each time


def table(bench: Bench, precision: str, rows: int, device: torch.device | None = None) -> np.ndarray:
    drawn = toy.galaxies(0, rows)
    batch = bench.size["batch"]
    bundle = open_bundle(bench.bundle, precision, WHOLE)  # type: ignore[arg-type]
    engine = Engine(bundle, device or bench.device, batch)
    return engine.table(drawn["image"], drawn["object_id"])


def identity(bench: Bench) -> dict[str, bool]:
    """Whether rows have the same bytes again, and in a block that ends elsewhere."""
    whole = bench.size["batch"] + 37
    found = {}
    for precision in (FP32, BF16):
        first = table(bench, precision, whole)
        found[f"{precision}, again"] = first.tobytes() == table(bench, precision, whole).tobytes()
        for rows in (1, 37, whole - 36):
            fewer = table(bench, precision, rows)
            found[f"{precision}, of {rows} rows"] = first[:rows].tobytes() == fewer.tobytes()
    return found


def accuracy(bench: Bench) -> dict[str, dict[str, float]]:
    """abs(dz) / (1 + z) of PHOTOZ_BEST against float32 on the CPU."""
    rows, found = 256, {}
    truth = columns.named(table(bench, FP32, rows, torch.device("cpu")))["PHOTOZ_BEST"]
    for precision in (FP32, BF16):
        found_here = columns.named(table(bench, precision, rows))["PHOTOZ_BEST"]
        dz = np.abs(found_here - truth) / (1 + truth)
        levels = {"median": 0.5, "p99": 0.99, "max": 1.0}
        found[precision] = {name: float(np.quantile(dz, level)) for name, level in levels.items()}
    return found
