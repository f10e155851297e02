"""The training recipe as flags, and one pass of it: hide, rebuild, compare (paper, section 4)."""

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tyro.conf import Positional

from catalogs.errors import UsageError
from mmae.data import Batch
from mmae.losses import Losses, combined, losses
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

    --config FILE.toml reads flags from a file: `lr = 2e-4`, and under [model] `depth = 2`. The command line
    overrules the file.
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


class Hidden(NamedTuple):
    """Galaxies, and what of them the model may not see."""

    batch: Batch
    present: Tensor
    """(B,) bool, True = the galaxy's spectrum is given"""
    image_mask: Tensor
    """(B, 64) bool, tokens, True = hidden"""
    spectrum_mask: Tensor
    """(B, 32) bool, tokens, True = hidden; all of them where there is no spectrum"""

    def parts(self, number: int) -> Iterator["Hidden"]:
        """The same galaxies in at most `number` portions."""
        fields = (*self.batch, *self[1:])
        for part in zip(*(tensor.chunk(number) for tensor in fields), strict=True):
            yield Hidden(Batch(*part[:3]), *part[3:])

    def counts(self) -> Tensor:
        """(3,) float32: hidden image tokens, hidden tokens of given spectra, galaxies."""
        spectrum = self.spectrum_mask & self.present[:, None]
        galaxies = torch.ones_like(self.present)
        return torch.stack([what.sum() for what in (self.image_mask, spectrum, galaxies)]).float()


def hide(batch: Batch, present: Tensor, config: Train, generator: torch.Generator | None = None) -> Hidden:
    """Draw what is hidden of galaxies. present (B,): True = the galaxy's spectrum is given."""
    size, device = len(batch.image), batch.image.device
    image_mask = random_mask(size, config.model.image_tokens, config.image_mask, device, generator)
    spectrum_mask = random_mask(size, config.model.spectrum_tokens, config.spectrum_mask, device, generator)
    return Hidden(batch, present, image_mask, without_spectrum(spectrum_mask, present))


def rebuild(model: nn.Module, hidden: Hidden, config: Train) -> Losses:
    """Let the model rebuild what is hidden, and compare."""
    batch, present, image_mask, spectrum_mask = hidden
    device = batch.image.device.type
    attention = sdpa_kernel(CPU_ATTENTION) if device == "cpu" else contextlib.nullcontext()
    with attention, torch.autocast(device, torch.bfloat16, enabled=config.precision == "bf16"):
        output = model(batch.image, batch.spectrum, image_mask, spectrum_mask)
    output = Output(*(tensor.float() for tensor in output))
    return losses(output, batch, image_mask, spectrum_mask, present)


def held_back(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """A context in which ranks do not exchange gradients yet."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return contextlib.nullcontext()


def backward(model: nn.Module, hidden: Hidden, config: Train) -> Losses:
    """Add a batch's gradients to the parameters', a portion of it at a time; gives the batch's losses.

    Every loss is a mean, so a portion counts by its share of what the mean is taken over: the gradients are
    those of the whole batch, whatever `accumulate` is. Ranks exchange them once, with the last portion.
    """
    whole, portions = hidden.counts().clamp(min=1), list(hidden.parts(config.accumulate))
    sums = torch.zeros(len(Losses._fields), device=whole.device)
    for number, portion in enumerate(portions, 1):
        with held_back(model) if number < len(portions) else contextlib.nullcontext():
            part = torch.stack(rebuild(model, portion, config)[1:]) * (portion.counts() / whole)
            shares = combined(*part)
            shares.total.backward()
        sums += torch.stack(shares).detach()
    return Losses(*sums)
