"""How fast redshifts are computed on one core, step by step from the released way to a bundle's bf16 program.

python tests/benchmarks/bench_engine.py

Each step is a function that gives what to run; they run in turn, round after round, in one process with one
thread. Weights are random: the rate does not depend on them.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import report
import torch

from catalogs.bands import HSC
from mmae import environment
from mmae.bundles import compiler
from mmae.bundles.bundle import open_bundle
from mmae.bundles.engine import Engine
from mmae.bundles.image_mask import WHOLE, Masking
from mmae.bundles.image_redshift import ImageRedshift
from mmae.bundles.sample import Sample
from mmae.hardware import BF16, FP32, Precision
from mmae.layers.patches import IMAGE_TOKENS, PATCH
from mmae.models.families import AnyModel
from mmae.models.himes2025 import Himes2025, Himes2025Config
from mmae.models.mmae import Model
from mmae.models.mmae_config import ModelConfig

OBJECTS, BATCH, ROUNDS = 128, 64, 9
RELEASED_WORK = 1294.6e6
"""FLOP a galaxy of the full model, for redshifts from images."""
PIXELS, NOISE = len(HSC) * PATCH**2, 0.05
"""Pixels of a patch, and their noise."""
CALIBRATED = 256
"""Galaxies to which p(z) is calibrated, so that it costs what that of a real bundle does."""
MASKING = Masking(0.25)
SIZE = 2048
"""Of the square matrices whose product is the peak."""
Step = Callable[[], object]


class Row(NamedTuple):
    step: Step
    peak: Precision
    """Whose matrix product is the limit."""
    flop: float
    """An object."""


def released_way(model: Himes2025, hdf5: Path) -> Step:
    """Every output of the full model in fp32, images read one by one from HDF5."""
    seen, hidden = torch.zeros(BATCH, 64, dtype=torch.bool), torch.ones(BATCH, 32, dtype=torch.bool)

    @torch.no_grad()
    def run() -> None:
        with h5py.File(hdf5) as file:
            for start in range(0, OBJECTS, BATCH):
                items = [torch.from_numpy(file["image"][row]) for row in range(start, start + BATCH)]
                model(torch.stack(items), torch.zeros(BATCH, Himes2025Config.spectrum_length), seen, hidden)

    return run


def specialised(model: Himes2025, image: np.ndarray) -> Step:
    """The specialised graph as Python runs it."""
    program, batches = ImageRedshift(model), torch.from_numpy(image).split(BATCH)

    @torch.inference_mode()
    def run() -> None:
        for batch in batches:
            program(batch)

    return run


def engine(bundle: Path, image: np.ndarray, precision: Precision, masking: Masking = WHOLE) -> Step:
    """A bundle's program as an inference actor runs it."""
    runner = Engine(open_bundle(bundle, precision, masking), torch.device("cpu"), BATCH)
    return lambda: runner.table(image, np.arange(OBJECTS))


def product(dtype: torch.dtype) -> Step:
    """A large matrix product, the most that this core computes."""
    a, b = torch.randn(2, SIZE, SIZE).to(dtype)
    return lambda: a @ b


def work(tokens: int) -> float:
    """FLOP a galaxy of the specialised graph with so many image tokens, but for pools and head (0.2 %)."""
    config, width = Himes2025Config(), Himes2025Config().embed_dim
    encoder = config.depth * (24 * width**2 * tokens + 4 * width * tokens**2)
    fusion = config.fusion_depth * 16 * width**2 * tokens
    embedding = 2 * PIXELS * width * IMAGE_TOKENS
    spectrum = config.fusion_depth * (26 * width**2 + 32 * width * tokens)  # its side of fusion
    return encoder + fusion + embedding + spectrum


def own_work(tokens: int) -> float:
    """FLOP a galaxy of our own model with so many image tokens, but for the head (0.2 %)."""
    config, width = ModelConfig(), ModelConfig().embed_dim
    layers = config.depth * (24 * width**2 * tokens + 4 * width * tokens**2)
    return layers + 2 * IMAGE_TOKENS * 2 * width * (PIXELS + width)


def galaxies(number: int) -> np.ndarray:
    """Images (number, bands, 64, 64) of round profiles from faint to bright, with noise."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :64] - 31.5
    shape = np.exp(-np.hypot(x, y) / 3) / 57
    flux = 10 ** rng.uniform(0.5, 3, (number, 1, 1, 1)) * rng.uniform(0.5, 2, (number, len(HSC), 1, 1))
    return (flux * shape + NOISE * rng.standard_normal((number, len(HSC), 64, 64))).astype(np.float32)


def make_bundle(out: Path, model: AnyModel) -> Path:
    """A bundle of random weights, whose p(z) is calibrated on redshifts of nothing."""
    data = {"survey": "none", "bands": HSC, "pixel_scale": 0.168, "zero_point": 27.0, "flux_percentiles": {}}
    data |= {"noise": [NOISE] * len(HSC), "z_range": [0.0, 1.5]}
    state = {"config": {"model": asdict(model.config)}, "data": data, "metrics": {}, "step": 0}
    compiler.BOUND = dict.fromkeys(compiler.BOUND, float("inf"))  # of a trained model
    image = torch.from_numpy(galaxies(CALIBRATED))
    redshift = 1.5 * torch.rand(CALIBRATED)
    sample = Sample("galaxies", image, image, redshift, trained_redshift=redshift)
    compiler.write_bundle(out, model, state, sample)
    return out


def measure(steps: dict[str, Step]) -> dict[str, list[float]]:
    """Seconds a run of each step, of every round."""
    for step in steps.values():
        step()  # the first run allocates
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def table(rows: dict[str, Row], seconds: dict[str, list[float]]) -> Iterator[str]:
    """Medians of rates; of ratios within a round, as the machine's speed changes between rounds."""
    first = next(iter(rows))
    yield "| | objects/s | against (a) | share of the matrix product's rate |"
    yield "|---|---|---|---|"
    for name, (_, peak, flop) in rows.items():
        rate = statistics.median(OBJECTS / s for s in seconds[name])
        gain = statistics.median(a / s for a, s in zip(seconds[first], seconds[name], strict=True))
        pairs = zip(seconds[name], seconds[peak], strict=True)
        share = statistics.median(OBJECTS * flop / s / (2 * SIZE**3 / p) for s, p in pairs)
        yield f"| {name} | {rate:.0f} | {gain:.2f} x | {share:.0%} of {peak} |"
    for peak in (FP32, BF16):
        yield ""
        yield f"Matrix product, {peak}: {2 * SIZE**3 / statistics.median(seconds[peak]) / 1e9:.0f} GFLOP/s."


def main() -> None:
    environment.keep_freed()  # as an inference actor does; for every row of the table, the released way too
    torch.set_num_threads(1)
    torch.manual_seed(0)
    busy, model = os.getloadavg()[0], Himes2025().eval()
    image = galaxies(OBJECTS)
    with tempfile.TemporaryDirectory() as name:
        hdf5 = Path(name, "galaxies.hdf5")
        with h5py.File(hdf5, "w") as file:
            file["image"] = image
        bundle = make_bundle(Path(name, "bundle"), model)
        own_model = Model().eval()
        own_model.noise.fill_(NOISE)
        own = make_bundle(Path(name, "own"), own_model)
        masked = f"{MASKING.ratio:.0%} of the image hidden, a draw"
        whole, part = work(64), work(49)
        rows = {
            "(a) released way, fp32": Row(released_way(model, hdf5), FP32, RELEASED_WORK),
            "(b) specialised, eager fp32": Row(specialised(model, image), FP32, whole),
            "(c) TorchScript, fp32": Row(engine(bundle, image, FP32), FP32, whole),
            "(d) TorchScript, bf16": Row(engine(bundle, image, BF16), BF16, whole),
            f"(c) {masked}": Row(engine(bundle, image, FP32, MASKING), FP32, part),
            f"(d) {masked}": Row(engine(bundle, image, BF16, MASKING), BF16, part),
            "`mmae`, with its p(z), fp32": Row(engine(own, image, FP32), FP32, own_work(64)),
            "`mmae`, with its p(z), bf16": Row(engine(own, image, BF16), BF16, own_work(64)),
        }
        products = {FP32: product(torch.float32), BF16: product(torch.bfloat16)}
        seconds = measure({name: row.step for name, row in rows.items()} | products)
    body = [
        f"(a) to (d) are of `himes2025`. One thread, batches of {BATCH}, torch {torch.__version__}; "
        "from (b) on images are in memory. "
        f"Medians of {ROUNDS} rounds in turn, ratios and shares within a round. "
        f"{whole / 1e6:.0f} MFLOP an object from (b) on, {RELEASED_WORK / 1e6:.0f} in (a), "
        f"{own_work(64) / 1e6:.0f} in `mmae`. "
        f"Load average before and after: {busy:.1f}, {os.getloadavg()[0]:.1f}; other work spoils the rates.",
        "",
        *table(rows, seconds),
    ]
    report.write("engine", "Speed of the engine", "bench_engine.py", body)


if __name__ == "__main__":
    main()
