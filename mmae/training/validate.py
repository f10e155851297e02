"""Validation at the end of an epoch, distributed over the ranks."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmae.layers.gpu import sent
from mmae.layers.patches import IMAGE_TOKENS
from mmae.models.batch import Batch
from mmae.models.families import AnyModel
from mmae.models.losses import combined
from mmae.scores.metrics import point_metrics
from mmae.training.batches import batches, rank_slice
from mmae.training.data import VALIDATION, TrainingSet
from mmae.training.distributed import World
from mmae.training.drawn_masks import validation_masks
from mmae.training.recipe import Train
from mmae.training.step import forward


class Validation(NamedTuple):
    metrics: dict[str, float]
    z_phot: np.ndarray
    """(N,) of the whole validation split, as often as each stands for another"""
    z_spec: np.ndarray
    """(N,)"""


@torch.inference_mode()
def validate(model: AnyModel, data: TrainingSet, config: Train, world: World) -> Validation:
    """Losses and redshift metrics without spectra; the metrics are of images without hidden tokens."""
    model.eval()
    rows = data.standing(data.rows(VALIDATION, stars=config.model.classes))
    own = np.arange(len(rows))[rank_slice(len(rows), world.rank, world.size)]
    masks = validation_masks(len(rows), config).of(data.known(rows))
    parts = model.loss_weights
    sums, counts = torch.zeros(2, len(parts), dtype=torch.float64, device=world.device)
    redshifts = torch.full((2, len(rows)), math.nan, dtype=torch.float64)
    start = 0
    pin = world.device.type == "cuda"
    for batch in batches(data, rows[own], config.batch, 0, 1, pin=pin):
        batch = batch.to(world.device)
        size = len(batch.image)
        indices = own[start : start + size]
        own_masks = masks.rows(indices)
        number = sent(own_masks.counts(parts).double(), world.device)
        sums += forward(model, batch, own_masks, config) * number
        counts += number
        redshifts[0, indices] = predict(model, batch, config).double().cpu()
        redshifts[1, indices] = batch.redshift.double().cpu()
        start += size
    sums, counts = world.sum(torch.stack([sums, counts]))
    losses = combined(sums / counts.clamp(min=1), parts)
    z_phot, z_spec = collect(redshifts, world)[:, np.isfinite(data.redshift[rows])]
    metrics = {"loss": float(losses.total)} | dict(zip(parts, losses.parts.tolist(), strict=True))
    return Validation(metrics | point_metrics(z_phot, z_spec), z_phot, z_spec)


def predict(model: AnyModel, batch: Batch, config: Train) -> Tensor:
    """Redshifts (B,) of images without hidden tokens, spectra hidden, as from the exported model."""
    size = len(batch.image)
    image_mask = torch.zeros(size, IMAGE_TOKENS, dtype=torch.bool)
    spectrum_mask = torch.ones(size, config.model.spectrum_tokens, dtype=torch.bool)
    return model.redshift(
        model(batch.image, batch.spectrum, image_mask, spectrum_mask, conditions=batch.conditions)
    )


def collect(values: Tensor, world: World) -> np.ndarray:
    """Merge values that each rank has for its own galaxies, with NaN elsewhere, into those of all."""
    parts = torch.stack(world.gather(values.to(world.device)))  # (ranks, 2, N)
    return parts.nan_to_num(0.0).sum(0).cpu().numpy()
