"""Speed of training against the released method: galaxies/s, medians of interleaved rounds.

python tests/benchmarks/bench_training.py

The baseline reads and normalises one galaxy at a time from HDF5 between the steps, and computes in fp32 with
torch's default attention and AdamW. Either side has a process of its own with one thread, ours set up as
`mmae train` does; they take turns.
"""

import contextlib
import dataclasses
import itertools
import json
import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import report
import torch
import torch.distributed as dist
from torch import nn

from catalogs import ingest
from catalogs.mock import survey as mock
from catalogs.store.spectra import normalise, pool
from mmae import environment, train
from mmae.layers.patches import IMAGE_TOKENS
from mmae.models.batch import Batch
from mmae.models.families import AnyModel, build
from mmae.models.himes2025 import Himes2025
from mmae.models.losses import combined
from mmae.models.masking import Masks, random_mask, without_spectrum
from mmae.training import distributed, loop, panels
from mmae.training.batches import batches, epoch_order
from mmae.training.data import TRAIN, TrainingSet
from mmae.training.drawn_masks import step_masks
from mmae.training.loop import data_parallel
from mmae.training.optimizer import make_optimizer
from mmae.training.recipe import Train
from mmae.training.runlog import RunLog
from mmae.training.step import backward

GALAXIES, BATCH, STEPS, ROUNDS = 256, 64, 2, 5
OWN_STEPS = 16
"""Steps of our own model, which differ in their masks."""
LOADED = 20
"""Epochs of the loaders per round, over a few galaxies in the page cache."""


def read_singly(path: Path, rows: np.ndarray) -> Iterator[Batch]:
    """Batches of galaxies that are read and normalised one by one."""
    with h5py.File(path) as file:
        for start in itertools.count(0, BATCH):
            items = []
            for row in (rows[k % len(rows)] for k in range(start, start + BATCH)):
                spectrum = pool(normalise(file["spectrum/flux"][row], file["spectrum/ivar"][row]))
                redshift = file["DESI_fibermap/DESI_redshift"][row]
                items.append((file["image"][row], np.float32(spectrum), np.float32(redshift)))
            image, *others = (torch.from_numpy(np.stack(column)) for column in zip(*items, strict=True))
            yield Batch.of_pairs(image, *others)


def read_together(data: TrainingSet, rows: np.ndarray) -> Iterator[Batch]:
    """Batches as `mmae train` reads them, epoch after epoch."""
    for epoch in itertools.count():
        yield from batches(data, epoch_order(rows, data.block[rows], BATCH, 0, epoch), BATCH, 0, 1)


def released_step(model: Himes2025, config: Train) -> Callable[[Batch], None]:
    """A step as released: fp32, torch's default attention and optimiser."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=config.lr)

    def step(batch: Batch) -> None:
        size = len(batch.image)
        present = torch.rand(size) >= config.spectrum_dropout
        image_mask = random_mask(size, IMAGE_TOKENS, config.image_mask[0])
        drawn = random_mask(size, config.model.spectrum_tokens, config.spectrum_mask)
        spectrum_mask = without_spectrum(drawn, present)
        output = model(batch.image, batch.spectrum, image_mask, spectrum_mask)
        optimizer.zero_grad()
        masks = Masks.of_tokens(image_mask, spectrum_mask, spectrum_mask & present[:, None], 5)
        combined(model.losses(output, batch, masks), model.loss_weights).total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()

    return step


def own_step(model: nn.Module, inner: AnyModel, config: Train) -> Callable[[Batch], None]:
    """A step of `mmae train`."""
    optimizer, number = make_optimizer(inner, config), itertools.count()

    def step(batch: Batch) -> None:
        masks = step_masks(len(batch.image), config, next(number))
        optimizer.zero_grad(set_to_none=True)
        backward(model, batch, masks, config, masks.counts(inner.loss_weights).clamp(min=1))
        nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        optimizer.step()

    return step


def rate(step: Callable[[Batch], object], source: Iterator[Batch], steps: int) -> float:
    """Galaxies/s over a number of steps of BATCH galaxies."""
    began = time.perf_counter()
    for batch in itertools.islice(source, steps):
        step(batch)
    return steps * BATCH / (time.perf_counter() - began)


RELEASED = "released way"
Side = tuple[dict[str, Callable[[Batch], None]], dict[str, Iterator[Batch]]]
"""What a process can be asked for: steps, and where their batches come from, by name."""


def released_side(hdf5: Path, store: Path) -> Side:
    config = dataclasses.replace(Train.preset("himes2025"), precision="fp32")
    rows = TrainingSet(store, config.model).rows(TRAIN)
    return {RELEASED: released_step(Himes2025(), config)}, {RELEASED: read_singly(hdf5, rows)}


def own_side(hdf5: Path, store: Path) -> Side:
    environment.keep_freed()
    presets = {
        "fp32": ("himes2025", "fp32"),
        "bf16": ("himes2025", "bf16"),
        "`mmae` in bf16": ("mmae", "bf16"),
    }
    steps, sources = {}, {}
    for name, (preset, precision) in presets.items():
        config = dataclasses.replace(Train.preset(preset), precision=precision)
        data, model = TrainingSet(store, config.model), build(config.model)
        steps[name], sources[name] = own_step(model, model, config), read_together(data, data.rows(TRAIN))
    return steps, sources


def answer(side: Callable[[Path, Path], Side], hdf5: Path, store: Path, questions: Connection) -> None:
    """Process of a side: its names, then the rates that it is asked for."""
    torch.set_num_threads(1)
    steps, sources = side(hdf5, store)
    in_memory = {name: itertools.repeat(next(source)) for name, source in sources.items()}
    for name, step in steps.items():  # first steps allocate
        rate(step, sources[name], 1)
    questions.send(list(steps))
    epoch = GALAXIES // BATCH
    for what, name in iter(questions.recv, None):
        count = OWN_STEPS if "mmae" in name else STEPS
        asked = {
            "loader": (lambda batch: None, sources[name], LOADED * epoch),
            "model": (steps[name], in_memory[name], count),
            "both": (steps[name], sources[name], count),
        }
        questions.send(rate(*asked[what]))


def measure_processes(hdf5: Path, store: Path) -> dict[str, float]:
    """Median rates of loader, model and both, of the released method and of ours."""
    start, asked = torch.multiprocessing.get_context("spawn"), {}
    for side in (released_side, own_side):
        here, there = start.Pipe()
        start.Process(target=answer, args=(side, hdf5, store, there), daemon=True).start()
        asked |= dict.fromkeys(here.recv(), here)
    rates: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, side in asked.items():
            for what in ("loader", "model", "both") if name in (RELEASED, "bf16") else ("model", "both"):
                side.send((what, name))
                rates.setdefault(f"{what}, {name}", []).append(side.recv())
    for side in asked.values():
        side.send(None)
    return {name: statistics.median(values) for name, values in rates.items()}


WAYS: dict[str, dict[str, bool]] = {
    "unused parameters not looked for": {},
    "gradients as views of what is sent": {"find_unused_parameters": True, "gradient_as_bucket_view": True},
    "both": {"gradient_as_bucket_view": True},
}
"""Other ways of DistributedDataParallel."""
APART = "two that do not sum their gradients"


def rank(number: int, port: int, results: Path) -> None:
    """Process of one of two ranks; rank 0 trains by itself and with rank 1, alternately."""
    variables = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
    variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in variables.items()})
    environment.keep_freed()
    with distributed.world() as world:
        torch.set_num_threads(1)
        steps = {}
        for family in ("himes2025", "mmae"):
            config = dataclasses.replace(Train.preset(family), precision="bf16")
            alone, shared = build(config.model), build(config.model)
            steps[family] = (
                own_step(alone, alone, config),
                own_step(data_parallel(shared, world), shared, config),
            )
            for name, flags in WAYS.items():
                shared = build(config.model)
                other = nn.parallel.DistributedDataParallel(shared, **flags)
                steps[f"{family}, {name}"] = steps[family][0], own_step(other, shared, config)
            # no wrapper at all: two ranks that each train a model of their own
            steps[f"{family}, {APART}"] = steps[family][0], steps[family][0]
        image = torch.randn(BATCH, 5, 64, 64)
        rates: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for _ in range(ROUNDS + 1):
            for name, (single, parallel) in steps.items():
                length = 1296 if name.startswith("mmae") else 259
                batch = Batch.of_pairs(image, torch.randn(BATCH, length), torch.rand(BATCH))
                alone_rate = rate(single, itertools.repeat(batch), STEPS) if world.is_main else 0.0
                dist.barrier()
                rates[name].append((alone_rate, 2 * rate(parallel, itertools.repeat(batch), STEPS)))
                dist.barrier()
        if world.is_main:
            medians = {name: np.median(values[1:], 0).tolist() for name, values in rates.items()}
            results.write_text(json.dumps(medians))


def measure_ranks(folder: Path) -> dict[str, tuple[float, float]]:
    """Median rates of one rank and of two, each with its own batch, by model."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(rank, (port, folder / "ranks.json"), nprocs=2)
    return dict(json.loads((folder / "ranks.json").read_text()))


def measure_main_rank(store: Path, out: Path) -> dict[str, float]:
    """Seconds of what the main rank does alone while the others wait: medians of a short run."""
    took: dict[str, list[float]] = {}

    def timed(name: str, of: object, function: str) -> None:
        original = getattr(of, function)

        def call(*arguments: Any, **more: Any) -> Any:
            began = time.perf_counter()
            result = original(*arguments, **more)
            took.setdefault(name, []).append(time.perf_counter() - began)
            return result

        setattr(of, function, call)

    timed("a report of ten steps, or of a validation", RunLog, "report")
    timed("figure of redshifts, drawn", panels, "redshifts")
    timed("figure of rebuilt galaxies, computed and drawn", panels, "rebuilt")
    timed("a figure, written", RunLog, "figure")
    timed("a checkpoint, or two where it is the best", loop, "save")
    recipe = dataclasses.replace(Train.preset("mmae"), data=(store,), out=out, batch=BATCH, epochs=ROUNDS)
    with contextlib.redirect_stdout(None):
        train.main(recipe)
    return {name: statistics.median(values) for name, values in took.items()}


def table(
    rates: dict[str, float], ranks: dict[str, tuple[float, float]], alone: dict[str, float]
) -> Iterator[str]:
    yield "| | galaxies/s | against the released way |"
    yield "|---|---|---|"
    for name, value in sorted(rates.items()):
        base = rates[f"{name.partition(',')[0]}, {RELEASED}"]
        yield f"| {name} | {value:,.1f} | {value / base:.2f} x |"
    yield ""
    yield "| bf16, batch in memory | 1 rank, galaxies/s | 2 ranks | |"
    yield "|---|---|---|---|"
    for name, (one, two) in ranks.items():
        yield f"| {name} | {one:.1f} | {two:.1f} | {two / one:.2f} x |"
    yield ""
    yield "| what the main rank does alone, `mmae` | seconds |"
    yield "|---|---|"
    for name, seconds in alone.items():
        yield f"| {name} | {seconds:.3f} |"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        mock.main(mock.Mock(folder / "mock", galaxies=GALAXIES, tile=8, shard_rows=128))
        hdf5, store = folder / "mock" / "galaxies.hdf5", folder / "train.zarr"
        ingest.main(ingest.Ingest(hdf5, store, shard_rows=128))
        busy = os.getloadavg()[0]
        rates, ranks = measure_processes(hdf5, store), measure_ranks(folder)
        alone = measure_main_rank(store, folder / "run")
    body = [
        f"`himes2025`, and where it says so `mmae`, {BATCH} galaxies a step and rank, "
        f"one thread a process, torch {torch.__version__}; "
        f"medians of {ROUNDS} rounds in turn. The released way: fp32, torch's own attention and AdamW, "
        "galaxies read and normalised one at a time from HDF5 between the steps. The loaders go over the "
        f"training split of {GALAXIES} mock galaxies again and again, from the page cache. "
        f"Load average before and after: {busy:.1f}, {os.getloadavg()[0]:.1f}; other work spoils the ratios.",
        "",
        *table(rates, ranks, alone),
    ]
    report.write("training", "Speed of training", "bench_training.py", body)


if __name__ == "__main__":
    main()
