"""The training recipe as flags, and one pass of it: hide, rebuild, compare (paper, section 4)."""

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tyro.conf import Positional

from catalogs.errors import UsageError
from mmae.data import Batch
from mmae.losses import Losses, combined, losses
from mmae.masking import random_mask, without_spectrum
from mmae.model import Himes2025, ModelConfig, Output

MASKS, DROPOUT = range(2)
"""Streams of random numbers."""
CPU_ATTENTION = SDPBackend.MATH
"""The fused kernel takes 60 % of a bf16 training step on a CPU (backward, torch 2.13), this one 10 %."""


@dataclass(frozen=True)
class Train:
    """Train the masked autoencoder on a store with spectra and redshifts.

    The defaults are the paper's recipe: 75 % of either modality hidden, half of the galaxies without a
    spectrum, AdamW, loss = 0.1 image + 0.01 spectrum + 1.0 redshift, a 70/15/15 split by object id. The best
    epoch is chosen on validation without spectra.

    Started again with the same flags, a run goes on from its newest checkpoint; a finished one is left alone.
    SIGTERM or Ctrl-C saves a checkpoint before the process ends (exit code 4).

    --config FILE.toml reads flags from a file: `lr = 2e-4`, and under [model] `depth = 2`. The command line
    overrules the file.

    Several GPUs: torchrun --nproc-per-node 4 -m mmae.train ...; on Slurm: python -m jobs.train ... The number
    of ranks changes the speed, not the result: order, masks and means are those of the whole batch (dropout
    alone is drawn by each rank). Curves: OUT/metrics.jsonl, tensorboard --logdir OUT, and MLflow where
    MLFLOW_TRACKING_URI is set and mlflow-skinny installed.
    """

    # What to read and where to write
    data: Positional[Path]
    """Training store (`mmae ingest`)."""
    out: Path = Path("runs/mmae")
    """Run directory."""

    # How long, in what portions
    epochs: int = 100
    """Times every training galaxy is seen."""
    patience: int = 0
    """Epochs without a better validation loss after which the run ends early; 0: never."""
    batch: int = 256
    """Galaxies a step, over all ranks."""
    accumulate: int = 1
    """Portions a rank cuts its share of a batch into, where memory is short; the gradients stay the same."""
    warm_restarts: int = 0
    """Epochs of the first cosine cycle, each next one twice as long; 0 keeps the rate constant."""

    # The optimiser
    lr: float = 1e-4
    """Learning rate; positions and pooling queries learn at a tenth of it."""
    weight_decay: float = 0.01
    """AdamW's; positions and pooling queries have none."""
    clip: float = 1.0
    """Largest gradient norm."""

    # What is hidden
    image_mask: float = 0.75
    """Share of image tokens hidden."""
    spectrum_mask: float = 0.75
    """Share of spectrum tokens hidden."""
    spectrum_dropout: float = 0.5
    """Probability that a galaxy comes without its spectrum."""

    # The machine
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: autocast; weights, optimiser and losses stay in fp32."""
    checkpoint_minutes: float = 15.0
    """A checkpoint at least this often, and at the end of every epoch."""
    seed: int = 0
    """Of the weights, the order of galaxies and the masks."""

    model: ModelConfig = field(default_factory=ModelConfig)

    def __post_init__(self) -> None:
        shares = (self.image_mask, self.spectrum_mask, self.spectrum_dropout)
        if not all(0 <= share <= 1 for share in shares):
            raise UsageError("masks and spectrum dropout are shares from 0 to 1")
        if min(self.epochs, self.batch, self.accumulate) < 1:
            raise UsageError("epochs, batch and accumulate must be at least 1")
        if min(self.patience, self.warm_restarts) < 0:
            raise UsageError("patience and warm restarts must be at least 0")
        positive = (self.lr, self.clip, self.checkpoint_minutes)
        if not all(math.isfinite(x) and x > 0 for x in positive) or not 0 <= self.weight_decay < 1:
            raise UsageError("lr, clip and checkpoint minutes must be positive, weight decay from 0 to 1")


def make_optimizer(model: Himes2025, config: Train) -> torch.optim.Optimizer:
    """AdamW with two groups: positions and queries learn at a tenth of the rate, without decay.

    Fused: a quarter of the time on a CPU, one kernel on a GPU.
    """
    slow = model.positions_and_queries()
    ids = {id(parameter) for parameter in slow}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    groups: list[dict] = [{"params": rest}, {"params": slow, "lr": config.lr / 10, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay, fused=True)


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: Train
) -> torch.optim.lr_scheduler.CosineAnnealingWarmRestarts | None:
    if not config.warm_restarts:
        return None
    return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, config.warm_restarts, T_mult=2)


class Masks(NamedTuple):
    """What of galaxies the model may not see."""

    present: Tensor
    """(B,) bool, True = the galaxy's spectrum is given"""
    image: Tensor
    """(B, 64) bool, tokens, True = hidden"""
    spectrum: Tensor
    """(B, 32) bool, tokens, True = hidden; all of them where there is no spectrum"""

    def rows(self, which: slice | np.ndarray) -> "Masks":
        return Masks(*(tensor[which] for tensor in self))

    def to(self, device: torch.device) -> "Masks":
        return Masks(*(tensor.to(device) for tensor in self))

    def counts(self) -> Tensor:
        """(3,) float32: hidden image tokens, hidden tokens of given spectra, galaxies."""
        spectrum = self.spectrum & self.present[:, None]
        galaxies = torch.ones_like(self.present)
        return torch.stack([what.sum() for what in (self.image, spectrum, galaxies)]).float()


def stream(seed: int, *which: int) -> int:
    """The seed of one of the streams of random numbers of a run."""
    return int(np.random.SeedSequence(seed, spawn_key=which).generate_state(1, np.uint64)[0])


def draw_masks(present: Tensor, config: Train, generator: torch.Generator) -> Masks:
    """Draw what is hidden of galaxies. present (B,): True = the galaxy's spectrum is given."""
    size, model = len(present), config.model
    image = random_mask(size, model.image_tokens, config.image_mask, generator)
    spectrum = random_mask(size, model.spectrum_tokens, config.spectrum_mask, generator)
    return Masks(present, image, without_spectrum(spectrum, present))


def step_masks(size: int, config: Train, step: int) -> Masks:
    """The masks of a whole batch: every rank draws the same ones, and takes its part of them."""
    generator = torch.Generator().manual_seed(stream(config.seed, MASKS, step))
    return draw_masks(torch.rand(size, generator=generator) >= config.spectrum_dropout, config, generator)


def rebuild(model: nn.Module, batch: Batch, masks: Masks, config: Train) -> Losses:
    """Let the model rebuild what is hidden, and compare."""
    device = batch.image.device.type
    attention = sdpa_kernel(CPU_ATTENTION) if device == "cpu" else contextlib.nullcontext()
    with attention, torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
        output = model(batch.image, batch.spectrum, masks.image, masks.spectrum)
    output = Output(*(tensor.float() for tensor in output))
    return losses(output, batch, masks.image, masks.spectrum, masks.present)


def held_back(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A context in which ranks do not exchange gradients yet."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


def backward(model: nn.Module, batch: Batch, masks: Masks, config: Train, whole: Tensor) -> Losses:
    """Add a batch's gradients to the parameters', a portion of it at a time; gives the batch's losses.

    Every loss is a mean, so a portion counts by its share of what the mean is taken over: `whole`, (3,), the
    counts of all masks of the step, divided by the number of ranks, for ranks exchange the means of their
    gradients. So the sum is that of the whole batch, however it is cut up. Ranks exchange once, at the end.
    """
    portions = torch.arange(len(batch.image)).chunk(config.accumulate)
    sums = torch.zeros(len(Losses._fields), device=batch.image.device)
    for portion in portions:
        rows = slice(int(portion[0]), int(portion[-1]) + 1)
        hidden = masks.rows(rows)
        with held_back(model) if portion is not portions[-1] else contextlib.nullcontext():
            means = torch.stack(rebuild(model, batch.rows(rows), hidden, config)[1:])
            part = means * (hidden.counts() / whole)
            shares = combined(*part)
            shares.total.backward()
        sums += torch.stack(shares).detach()
    return Losses(*sums)
