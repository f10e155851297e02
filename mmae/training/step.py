"""The forward and backward pass of a training step."""

import contextlib
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from mmae.hardware import BF16
from mmae.layers.gpu import sent
from mmae.layers.transformer import Block
from mmae.models.batch import Batch
from mmae.models.families import AnyModel
from mmae.models.losses import Losses, combined
from mmae.models.masking import Masks, shallower, turned
from mmae.models.output import Output
from mmae.training.recipe import Train

CPU_ATTENTION = SDPBackend.MATH
"""Attention kernel on CPUs: the fused one takes 60 % of a bf16 training step (backward, torch 2.13), this
one 10 %."""


def compile_layers(model: AnyModel) -> None:
    """Compile the layers of transformers in place, each kind once, for any number of tokens.

    What is around them depends on what is hidden; they have most of the products.
    """
    for layer in model.modules():
        if isinstance(layer, Block | nn.TransformerEncoderLayer):
            layer.compile(dynamic=True)


def unwrapped(model: nn.Module) -> AnyModel:
    """The model inside DistributedDataParallel, or the model itself."""
    inner = model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model
    return cast(AnyModel, inner)


def forward(model: nn.Module, batch: Batch, masks: Masks, config: Train) -> Tensor:
    """Forward pass; the parts of the loss, (P,).

    masks : on the host, which they tell what a GPU would have to be asked
    """
    device = batch.image.device
    batch = batch._replace(image=turned(batch.image, masks.turn), right=batch.right * (1 - config.wrong))
    attention = sdpa_kernel(CPU_ATTENTION) if device.type == "cpu" else contextlib.nullcontext()
    with attention, torch.autocast(device.type, torch.bfloat16, enabled=config.arithmetic == BF16):
        there = masks.to(device)
        image = batch.image.masked_fill(there.bands[:, :, None, None], math.nan)
        image, conditions = shallower(image, batch.conditions, masks)
        of_image = conditions.shape[1] - masks.columns.shape[1]
        hidden = torch.cat([there.untold.unsqueeze(1).expand(-1, of_image), there.columns], 1)
        conditions = conditions.masked_fill(hidden, math.nan)
        output = model(image, batch.spectrum, masks.image, masks.spectrum, batch.redshift, conditions)
    output = Output(*(tensor.float() for tensor in output))
    return unwrapped(model).losses(output, batch, there)


def without_sync(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Context in which ranks do not exchange gradients."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


def backward(model: nn.Module, batch: Batch, masks: Masks, config: Train, counts: Tensor) -> Losses:
    """Accumulate the gradients of a batch, one micro-batch at a time; returns the batch's losses.

    Every loss is a mean, so a micro-batch is weighted by its fraction of `counts`, (P,): the counts of all
    masks of the step, divided by the number of ranks, as ranks average their gradients. So the sum is that of
    the whole batch, however it is divided. Ranks exchange gradients once, at the end. Masks and counts are on
    the host.
    """
    micro_batches = torch.arange(len(batch.image)).chunk(config.accumulate)
    weights = unwrapped(model).loss_weights
    sums = torch.zeros(len(weights), device=batch.image.device)
    for indices in micro_batches:
        rows = slice(int(indices[0]), int(indices[-1]) + 1)
        part = masks.rows(rows)
        share = sent(part.counts(weights) / counts, sums.device)
        with without_sync(model) if indices is not micro_batches[-1] else contextlib.nullcontext():
            losses = forward(model, batch.rows(rows), part, config) * share
            combined(losses, weights).total.backward()
        sums += losses.detach()
    return combined(sums, weights)
