"""`mmae train`: the command and its loop. It knows ranks, not Slurm.

    mmae train store.zarr --out runs/first              one process
    torchrun --nproc-per-node 4 -m mmae.train ...       one process a GPU (or `srun python -m mmae.train ...`)

The run directory holds config.json, metrics.jsonl (a line a report), tensorboard/, checkpoints, and
the figures of the last validation.
"""

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator

import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from catalogs import atomic
from catalogs.errors import InputRefused, Interrupted, UsageError
from mmae import cli, environment
from mmae.models import checkpoint
from mmae.models.losses import Losses
from mmae.training import distributed, panels
from mmae.training.data import (
    TRAIN,
    VALIDATION,
    TrainingSet,
    batch_rows,
    batches,
    epoch_order,
    share,
    steps_per_epoch,
)
from mmae.training.distributed import World
from mmae.training.recipe import (
    Train,
    backward,
    step_masks,
)
from mmae.training.runlog import METRICS, RunLog, summary
from mmae.training.state import STATISTICS_ROWS, State, begin_or_resume, describe, plain, save, update_average
from mmae.training.validate import validate

REPORT_STEPS = 10
MOST_LOST = 50
"""Steps one after another whose gradient is not finite, and which therefore change nothing."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""USR2 is what Slurm jobs are warned with, before their time is up or their nodes are taken."""


def main(config: Train) -> None:
    environment.keep_freed()
    with stop_on_signal() as stop, distributed.world() as world:
        data = TrainingSet(config.data, config.model)
        if config.batch < world.size:
            raise UsageError(f"a batch of {config.batch} is too small for {world.size} ranks")
        if min(len(data.rows(TRAIN)), len(data.rows(VALIDATION))) < world.size:
            raise InputRefused(f"{config.data} has too few galaxies with redshifts to split 70/15/15")
        with only_writer(config, world):
            train(config, world, data, stop)


@contextlib.contextmanager
def only_writer(config: Train, world: World) -> Iterator[None]:
    """Hold the run directory; UsageError on every rank where another training holds it."""
    with contextlib.ExitStack() as stack:
        taken = False
        if world.first:
            config.out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(atomic.owned(config.out))
            except BlockingIOError:
                taken = True
        if any(agree(world, taken)):
            raise UsageError(f"{config.out} is being written by another training: give another --out")
        yield


class Stop:
    """Set by a signal, read at the end of a step: nothing is ever cut off in the middle."""

    requested = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    stop = Stop()

    def request(*_: object) -> None:
        stop.requested = True

    previous = {number: signal.signal(number, request) for number in STOP_SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(config: Train, world: World, data: TrainingSet, stop: Stop) -> None:
    """Begin or take up the run in `config.out`, and carry it to its last epoch."""
    rows = data.rows(TRAIN)
    sample = data.read(rows[:STATISTICS_ROWS]).image
    described = describe(data, sample)
    steps = steps_per_epoch(len(rows), config.batch, world.size)
    state = begin_or_resume(config, world, described, sample, steps)
    del sample
    if finished(state, config):
        if world.first:
            print(f"{config.out}: done after {state.epoch} of {config.epochs} epochs; nothing to do")
        return
    log = RunLog(config.out, plain(config), state.step, state.step_in_epoch == 0, world.first)
    log.say(f"{config.out}: epoch {state.epoch} of {config.epochs}, step {state.step}")
    log.say(
        f"{len(rows)} galaxies, {steps} steps an epoch, ranks: {world.size} "
        f"({world.device.type}, {config.arithmetic})"
    )
    model: nn.Module = state.model
    cuda = world.device.type == "cuda"
    if world.size > 1:
        device_ids = [world.device] if cuda else None
        # find_unused_parameters keeps the order in which ranks sum gradients as it is from the first step on
        model = nn.parallel.DistributedDataParallel(model, device_ids=device_ids, find_unused_parameters=True)
    saved, lost = time.monotonic(), 0

    with log.progress(config.epochs * steps, state.step) as advance:
        while not finished(state, config):
            order = epoch_order(rows, data.block_rows, config.batch, config.seed, state.epoch)
            started, first = time.monotonic(), state.step
            model.train()
            for batch in batches(
                data, order, config.batch, world.rank, world.size, state.step_in_epoch, cuda
            ):
                size = batch_rows(len(rows), config.batch, state.step_in_epoch)
                masks = step_masks(size, config, state.step)
                mine = masks.rows(share(size, world.rank, world.size)).to(world.device)
                whole = masks.counts().clamp(min=1).to(world.device) / world.size
                state.optimizer.zero_grad(set_to_none=True)
                losses = backward(model, batch.to(world.device), mine, config, whole)
                lost = 0 if step(state, config, steps) else lost + 1

                if state.step % REPORT_STEPS == 0:
                    rate = (state.step - first) * config.batch / (time.monotonic() - started)
                    log.report("train", state.step, reduced(losses, world) | {"samples_per_s": rate})
                loss = losses.total.item()
                advance(loss)
                late = time.monotonic() - saved > 60 * config.checkpoint_minutes
                stopping, saving, diverged = agree(
                    world, stop.requested, late and world.first, not math.isfinite(loss) or lost == MOST_LOST
                )
                if diverged:
                    what = "gradient" if lost == MOST_LOST else "loss"
                    raise InputRefused(
                        f"no finite {what} at step {state.step}: lower --lr, or --spectrum-dropout"
                    )
                if stopping or saving:
                    save(config, world, described, state)
                    saved = time.monotonic()
                if stopping:
                    raise stopped(state)

            state.epoch, state.step_in_epoch = state.epoch + 1, 0
            state.metrics, *redshifts = validate(state.judged, data, config, world)
            log.report("validation", state.step, state.metrics)
            log.say(f"epoch {state.epoch}/{config.epochs}  validation: {summary(state.metrics)}")
            if world.first:
                log.figure("zphot_zspec", state.step, panels.redshifts(*redshifts))
                log.figure(
                    "reconstruction", state.step, panels.rebuilt(state.judged, data, config, world.device)
                )
            improved = state.metrics["loss"] < state.best
            if improved:
                state.best, state.best_epoch = state.metrics["loss"], state.epoch
            save(config, world, described, state, best=improved)
            saved = time.monotonic()
            if any(agree(world, stop.requested)) and not finished(state, config):
                raise stopped(state)

    log.say(f"wrote {config.out}: {checkpoint.BEST} (loss {state.best:.4f}), {METRICS}, tensorboard/")


def step(state: State, config: Train, steps: int) -> bool:
    """One step along the gradients, of `steps` an epoch; none, and False, where their norm is not finite."""
    finite = bool(nn.utils.clip_grad_norm_(state.model.parameters(), config.clip).isfinite())
    if finite:
        state.optimizer.step()
    state.step, state.step_in_epoch = state.step + 1, state.step_in_epoch + 1
    if isinstance(state.scheduler, CosineAnnealingWarmRestarts):
        state.scheduler.step(state.epoch + state.step_in_epoch / steps)
    elif state.scheduler:
        state.scheduler.step()
    if state.average:
        update_average(state.average, state.model, config.average, state.step)
    return finite


def finished(state: State, config: Train) -> bool:
    """Whether all epochs are done, or the last `patience` of them brought nothing better."""
    return state.epoch >= config.epochs or 0 < config.patience <= state.epoch - state.best_epoch


def stopped(state: State) -> Interrupted:
    return Interrupted(f"stopped and saved at step {state.step}; the same command goes on from there")


def reduced(losses: Losses, world: World) -> dict[str, float]:
    """Losses as their means over ranks."""
    means = world.mean(torch.stack(losses).detach())
    return dict(zip(Losses._fields, means.tolist(), strict=True))


def agree(world: World, *flags: bool) -> list[bool]:
    """Which of the flags are set on any rank, so that all ranks do the same."""
    return [count > 0 for count in world.sum(torch.tensor(flags, dtype=torch.float32, device=world.device))]


if __name__ == "__main__":
    sys.exit(cli.run(main, Train, sys.argv[1:], "python -m mmae.train"))
