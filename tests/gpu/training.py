"""Measurements of training: rates, how often a step waits for the GPU, and what is learned in two minutes."""

import statistics
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
import torch
import toy
from bench import Bench
from torch import nn

from mmae.hardware import BF16, FP32
from mmae.models.batch import Batch
from mmae.models.masking import Known
from mmae.models.mmae import Model
from mmae.training.batches import batches, epoch_order
from mmae.training.data import TRAIN, VALIDATION, TrainingSet
from mmae.training.drawn_masks import step_masks
from mmae.training.optimizer import make_optimizer
from mmae.training.recipe import Train
from mmae.training.step import backward, compile_layers
from mmae.training.validate import predict


def recipe(bench: Bench, precision: str) -> Train:
    path = bench.folder / "train.zarr"
    if not path.exists():
        toy.write_store(path, bench.size["galaxies"], shard_rows=1024)
    size = bench.size["training_batch"]
    return Train((path,), precision=precision, model=bench.config, batch=size)  # type: ignore[arg-type]


def trainer(bench: Bench, config: Train, compiled: bool) -> tuple[Model, Callable[[Batch], torch.Tensor]]:
    """A model, and a step of `mmae train` on it; returns the loss, on the device."""
    torch.manual_seed(0)
    model = Model(config.model).to(bench.device)
    model.noise.fill_(toy.NOISE)
    optimizer, number = make_optimizer(model, config), count()
    if compiled:
        compile_layers(model)

    def step(batch: Batch) -> torch.Tensor:
        size = len(batch.image)
        absent, there = torch.zeros(size, dtype=torch.bool), torch.ones(size, dtype=torch.bool)
        bands = there[:, None].expand(-1, len(config.model.bands))
        known = Known(absent, there, spectype=absent, columns=bands[:, :0], bands=bands)
        masks = step_masks(size, config, next(number)).of(known)
        counts = masks.counts(model.loss_weights).clamp(min=1)
        optimizer.zero_grad(set_to_none=True)
        losses = backward(model, batch.to(bench.device), masks, config, counts)
        finite = nn.utils.clip_grad_norm_(model.parameters(), config.clip).isfinite()
        optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
        optimizer.step()
        return losses.total

    return model, step


def epochs(data: TrainingSet, batch: int, pin: bool) -> Iterator[Batch]:
    rows = data.rows(TRAIN)
    for epoch in count():
        yield from batches(data, epoch_order(rows, data.block[rows], batch, 0, epoch), batch, 0, 1, pin=pin)


def rates(bench: Bench) -> dict[str, Any]:
    """Galaxies/s of steps on a batch that is on the device, and how often a step waits for it."""
    found: dict[str, Any] = {}
    size = bench.size["training_batch"]
    ways = {"fp32": (FP32, False), "bf16": (BF16, False), "bf16, compiled": (BF16, True)}
    for name, (precision, compiled) in ways.items():
        config = recipe(bench, precision)
        data = TrainingSet(config.data, config.model)
        batch = data.read(np.resize(data.rows(TRAIN), size)).to(bench.device)
        _, step = trainer(bench, config, compiled)
        try:
            for _ in range(8):  # shapes differ by how much is hidden
                step(batch)
            bench.wait()
            began = time.perf_counter()
            for _ in range(bench.size["steps"]):
                step(batch)
            bench.wait()
        except Exception:  # noqa: BLE001 - a compiler may be missing
            found[name] = traceback.format_exc(limit=3)
            continue
        found[name] = size * bench.size["steps"] / (time.perf_counter() - began)
        if bench.device.type == "cuda" and not compiled:
            found[f"{name}, waits in a step"] = waits(step, batch)
    return found


def waits(step: Callable[[Batch], torch.Tensor], batch: Batch) -> int:
    """How often the host waits for the GPU in a step."""
    torch.cuda.set_sync_debug_mode("warn")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        step(batch)
    torch.cuda.set_sync_debug_mode("default")
    return len(told)


def learning(bench: Bench) -> dict[str, Any]:
    """The losses of a training from the store, in bf16, and the scatter of redshifts at its end."""
    config = recipe(bench, BF16)
    data = TrainingSet(config.data, config.model)
    model, step = trainer(bench, config, compiled=False)
    model.train()
    losses, began, galaxies = [], time.perf_counter(), 0
    for batch in epochs(data, config.batch, pin=bench.device.type == "cuda"):
        losses.append(step(batch))
        galaxies += len(batch.image)
        if time.perf_counter() - began > bench.size["learning_seconds"]:
            break
    bench.wait()
    seconds = time.perf_counter() - began
    curve = torch.stack(losses).tolist()
    model.eval()
    rows = data.rows(VALIDATION)[: config.batch]
    with torch.inference_mode():
        batch = data.read(rows).to(bench.device)
        z, truth = (each.double().cpu().numpy() for each in (predict(model, batch, config), batch.redshift))
    dz = (z - truth) / (1 + truth)
    tenth = max(1, len(curve) // 40)
    means = [statistics.fmean(curve[start : start + tenth]) for start in range(0, len(curve), tenth)]
    scatter = float(1.4826 * np.median(np.abs(dz - np.median(dz))))
    return {"samples_per_s": galaxies / seconds, "steps": len(curve), "loss": means, "sigma_nmad": scatter}
