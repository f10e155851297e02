"""The training loop: steps, what is looked at every few of them, and the end of an epoch."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from catalogs.errors import InputRefused, Interrupted
from mmae.models.batch import Batch
from mmae.models.losses import Losses
from mmae.training import panels
from mmae.training.batches import Epochs, batch_order, batches, rank_slice, steps_per_epoch
from mmae.training.data import TrainingSet
from mmae.training.distributed import World
from mmae.training.drawn_masks import step_masks
from mmae.training.optimizer import rate_factor
from mmae.training.recipe import Train
from mmae.training.runlog import RunLog, summary
from mmae.training.state import State, save, update_average
from mmae.training.step import backward
from mmae.training.validate import validate

REPORT_STEPS = 10
"""Steps between reports, which are of means over them."""
WAITING_STEPS = {"cuda": REPORT_STEPS}
"""Steps after which a GPU is waited for, to see losses and to agree on what is asked for; 1 on a CPU."""
MAX_SKIPPED = 50
"""Number of consecutive steps skipped for a gradient that is not finite, at which training gives up."""


class Stop:
    """Stop request, set by a signal and read at the end of a step."""

    requested = False


class Loop:
    """A run, from where its state is to its last epoch; description: of the training set."""

    def __init__(
        self,
        config: Train,
        world: World,
        data: TrainingSet,
        epochs: Epochs,
        description: dict[str, Any],
        state: State,
        log: RunLog,
        stop: Stop,
    ):
        self.config, self.world, self.data, self.epochs = config, world, data, epochs
        self.description, self.state, self.log, self.stop = description, state, log, stop
        self.model, self.parts = data_parallel(state.model, world), state.model.loss_weights
        if state.average:  # ranks have the buffers of the main one in the model alone
            for average, own in zip(state.average.buffers(), state.model.buffers(), strict=True):
                average.copy_(own)
        self.steps = steps_per_epoch(epochs.galaxies, config.batch, world.size)
        self.skipped = torch.zeros((), device=world.device)
        self.unseen: list[Losses] = []
        self.saved = time.monotonic()

    def run(self) -> None:
        """Raises Interrupted once it is stopped and saved, InputRefused where it diverges."""
        with self.log.progress(self.config.epochs * self.steps, self.state.step) as advance:
            while not finished(self.state, self.config):
                self.epoch(advance)
                self.end_epoch()
                if any(agree(self.world, self.stop.requested)) and not finished(self.state, self.config):
                    raise stopped(self.state)

    def epoch(self, advance: Callable[[float], None]) -> None:
        """Take the steps of an epoch that are left."""
        state, world, batch_size = self.state, self.world, self.config.batch
        order = self.epochs.order(state.epoch)
        on_gpu, every = world.device.type == "cuda", WAITING_STEPS.get(world.device.type, 1)
        started, first = time.monotonic(), state.step
        self.model.train()
        for batch in batches(
            self.data, order, batch_size, world.rank, world.size, state.step_in_epoch, on_gpu
        ):
            self.step(batch, batch_order(order, batch_size, state.step_in_epoch))
            if state.step % every == 0 or state.step_in_epoch == self.steps:
                rate = (state.step - first) * batch_size / (time.monotonic() - started)
                self.look(advance, rate)

    def step(self, batch: Batch, together: np.ndarray) -> None:
        """Take a step with this rank's share of the galaxies that all ranks take it with."""
        config, state, world = self.config, self.state, self.world
        size = len(together)
        masks = step_masks(size, config, state.step).of(self.data.known(together))
        own_masks = masks.rows(rank_slice(size, world.rank, world.size))
        counts = masks.counts(self.parts).clamp(min=1) / world.size
        state.optimizer.zero_grad(set_to_none=True)
        self.unseen.append(backward(self.model, batch.to(world.device), own_masks, config, counts))
        finite = optimise(state, config, self.epochs.galaxies)
        self.skipped = torch.where(finite, 0, self.skipped + 1)

    def look(self, advance: Callable[[float], None], rate: float) -> None:
        """See the losses of the last steps, report them, save and stop where it is due.

        rate : galaxies/s
        """
        state, world = self.state, self.world
        seen, self.unseen = reduced(self.unseen, self.parts, world), []
        state.unreported += seen
        if state.step % REPORT_STEPS == 0:
            self.log.report("train", state.step, state.report() | {"samples_per_s": rate})
        totals, in_a_row = [losses["total"] for losses in seen], int(self.skipped)
        for total in totals:
            advance(total)
        due = time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes
        failed = not all(map(math.isfinite, totals)) or in_a_row >= MAX_SKIPPED
        stopping, saving, diverged = agree(world, self.stop.requested, due and world.is_main, failed)
        if diverged:
            quantity = "gradient" if in_a_row >= MAX_SKIPPED else "loss"
            raise InputRefused(
                f"no finite {quantity} at step {state.step}: lower --lr, or --spectrum-dropout"
            )
        if stopping or saving:
            save(self.config, world, self.description, state)
            self.saved = time.monotonic()
        if stopping:
            raise stopped(state)

    def end_epoch(self) -> None:
        """Validate, report, draw the figures and save a checkpoint, also as the best one if it is."""
        state, config, world, log = self.state, self.config, self.world, self.log
        state.epoch, state.step_in_epoch = state.epoch + 1, 0
        state.metrics, *redshifts = validate(state.evaluated, self.data, config, world)
        log.report("validation", state.step, state.metrics)
        log.print(f"epoch {state.epoch}/{config.epochs}  validation: {summary(state.metrics)}")
        if world.is_main:
            log.figure("zphot_zspec", state.step, panels.redshifts(*redshifts))
            rebuilt = panels.rebuilt(state.evaluated, self.data, config, world.device)
            log.figure("reconstruction", state.step, rebuilt)
        improved = state.metrics["loss"] < state.best
        if improved:
            state.best, state.best_epoch = state.metrics["loss"], state.epoch
        save(config, world, self.description, state, best=improved)
        self.saved = time.monotonic()


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The model, wrapped so that ranks average its gradients if there are several."""
    if world.size == 1:
        return model
    # without device_ids masks stay on the host; find_unused_parameters keeps the order in which ranks sum
    # gradients the same from the first step on
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


def optimise(state: State, config: Train, galaxies: int) -> torch.Tensor:
    """Take an optimiser step, in epochs of so many galaxies; returns whether the gradient is finite, ().

    Where it is not, the optimiser does nothing, as it does for a scaler of gradients: nobody waits to see it.
    """
    factor = rate_factor(config, -(-galaxies // config.batch), state.epoch, state.step_in_epoch)
    for group, rate in zip(state.optimizer.param_groups, state.rates, strict=True):
        group["lr"] = rate * factor
    finite = nn.utils.clip_grad_norm_(state.model.parameters(), config.clip).isfinite()
    state.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
    state.optimizer.step()
    state.step, state.step_in_epoch = state.step + 1, state.step_in_epoch + 1
    if state.average:
        update_average(state.average, state.model, config.average, state.step)
    return finite


def finished(state: State, config: Train) -> bool:
    """Whether all epochs are done, or the last `patience` of them brought no improvement."""
    return state.epoch >= config.epochs or 0 < config.patience <= state.epoch - state.best_epoch


def stopped(state: State) -> Interrupted:
    return Interrupted(f"stopped and saved at step {state.step}; the same command goes on from there")


def reduced(losses: Sequence[Losses], parts: Iterable[str], world: World) -> list[dict[str, float]]:
    """Means of the losses of steps over ranks, by name."""
    means = world.mean(torch.stack([torch.cat([each.total[None], each.parts]) for each in losses]).detach())
    return [dict(zip(("total", *parts), row, strict=True)) for row in means.tolist()]


def agree(world: World, *flags: bool) -> list[bool]:
    """Whether each flag is set on any rank, so that all ranks act alike."""
    return [count > 0 for count in world.sum(torch.tensor(flags, dtype=torch.float32, device=world.device))]
