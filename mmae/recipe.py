"""The training recipe as flags, and one pass of it: hide, rebuild, compare (paper, section 4)."""

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tyro.conf import Positional

from catalogs.errors import UsageError
from mmae.data import Batch
from mmae.losses import Losses, losses
from mmae.masking import random_mask, without_spectrum
from mmae.model import Himes2025, ModelConfig, Output

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
    """

    # What to read and where to write
    data: Positional[Path]
    """Training store (`mmae ingest`)."""
    out: Path = Path("runs/mmae")
    """Run directory."""

    # How long, in what portions
    epochs: int = 100
    """Times every training galaxy is seen."""
    batch: int = 256
    """Galaxies a step, over all ranks."""
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
        if self.epochs < 1 or self.batch < 1 or self.warm_restarts < 0:
            raise UsageError("epochs and batch must be at least 1, warm restarts at least 0")
        positive = (self.lr, self.clip, self.checkpoint_minutes)
        if not all(math.isfinite(x) and x > 0 for x in positive) or not 0 <= self.weight_decay < 1:
            raise UsageError("lr, clip and checkpoint minutes must be positive, weight decay from 0 to 1")


def make_optimizer(model: Himes2025, config: Train) -> torch.optim.Optimizer:
    """AdamW with two groups: positions and queries learn at a tenth of the rate, without decay."""
    slow = model.positions_and_queries()
    ids = {id(parameter) for parameter in slow}
    rest = [parameter for parameter in model.parameters() if id(parameter) not in ids]
    groups: list[dict] = [{"params": rest}, {"params": slow, "lr": config.lr / 10, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=config.lr, weight_decay=config.weight_decay)


def make_scheduler(
    optimizer: torch.optim.Optimizer, config: Train
) -> torch.optim.lr_scheduler.CosineAnnealingWarmRestarts | None:
    if not config.warm_restarts:
        return None
    return torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, config.warm_restarts, T_mult=2)


def masked_losses(
    model: nn.Module, batch: Batch, present: Tensor, config: Train, generator: torch.Generator | None = None
) -> Losses:
    """Hide tokens at random, rebuild, compare. present (B,): True = the galaxy's spectrum is given."""
    size, device = len(batch.image), batch.image.device
    image_mask = random_mask(size, config.model.image_tokens, config.image_mask, device, generator)
    spectrum_mask = random_mask(size, config.model.spectrum_tokens, config.spectrum_mask, device, generator)
    spectrum_mask = without_spectrum(spectrum_mask, present)
    attention = sdpa_kernel(CPU_ATTENTION) if device.type == "cpu" else contextlib.nullcontext()
    with attention, torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        output = model(batch.image, batch.spectrum, image_mask, spectrum_mask)
    output = Output(*(tensor.float() for tensor in output))
    return losses(output, batch, image_mask, spectrum_mask, present)
