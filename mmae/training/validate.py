"""Validation at the end of an epoch, shared out over the ranks."""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mmae.models.batch import Batch
from mmae.models.families import AnyModel
from mmae.models.losses import combined
from mmae.models.patches import IMAGE_TOKENS
from mmae.scores.metrics import point_metrics
from mmae.training.data import VALIDATION, TrainingSet, batches, share
from mmae.training.distributed import World
from mmae.training.recipe import Train, rebuild, validation_masks


class Validation(NamedTuple):
    metrics: dict[str, float]
    z_phot: np.ndarray
    """(N,) of the whole validation split"""
    z_spec: np.ndarray
    """(N,)"""


@torch.inference_mode()
def validate(model: AnyModel, data: TrainingSet, config: Train, world: World) -> Validation:
    """Losses and redshift metrics without spectra; the metrics are those of whole images."""
    model.eval()
    rows = data.rows(VALIDATION)
    mine = np.arange(len(rows))[share(len(rows), world.rank, world.size)]
    masks = validation_masks(len(rows), config)
    sums = torch.zeros(5, dtype=torch.float64, device=world.device)
    redshifts = torch.full((2, len(rows)), math.nan, dtype=torch.float64)
    start = 0
    pin = world.device.type == "cuda"
    for batch in batches(data, rows[mine], config.batch, 0, 1, pin=pin):
        batch = batch.to(world.device)
        size = len(batch.image)
        here = mine[start : start + size]
        part = combined(rebuild(model, batch, masks.rows(here).to(world.device), config), model.loss_weights)
        sums += size * torch.stack([torch.ones_like(part.total), *part]).double()
        redshifts[0, here] = predict(model, batch, config).double().cpu()
        redshifts[1, here] = batch.redshift.double().cpu()
        start += size
    count, *means = world.sum(sums).tolist()
    z_phot, z_spec = collect(redshifts, world)
    losses = dict(
        zip(("loss", "image", "spectrum", "redshift"), (mean / count for mean in means), strict=True)
    )
    return Validation(losses | point_metrics(z_phot, z_spec), z_phot, z_spec)


def predict(model: AnyModel, batch: Batch, config: Train) -> Tensor:
    """Redshifts (B,) of whole images, spectra hidden: what the exported model will do."""
    size, device = len(batch.image), batch.image.device
    seen = torch.zeros(size, IMAGE_TOKENS, dtype=torch.bool, device=device)
    hidden = torch.ones(size, config.model.spectrum_tokens, dtype=torch.bool, device=device)
    return model.redshift(model(batch.image, batch.spectrum, seen, hidden))


def collect(values: Tensor, world: World) -> np.ndarray:
    """Values that each rank has for its own galaxies, NaN elsewhere -> those of all galaxies."""
    parts = torch.stack(world.gather(values.to(world.device)))  # (ranks, 2, N)
    return parts.nan_to_num(0.0).sum(0).cpu().numpy()
