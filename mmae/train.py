"""`mmae train`: the command and its training loop, on one rank or several.

    mmae train store.zarr --out runs/first              one process, one store or several
    torchrun --nproc-per-node 4 -m mmae.train ...       a process per GPU (or `srun python -m mmae.train ...`)

The run directory holds config.json, metrics.jsonl (one line per report), tensorboard/, checkpoints, and
the figures of the last validation.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.train", "Train")

import contextlib
import dataclasses
import math
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import nn

from catalogs import atomic
from catalogs.bands import united
from catalogs.errors import InputRefused, Interrupted, UsageError
from catalogs.store.cutouts import CutoutStore, open_store
from mmae import cli, environment
from mmae.models import checkpoint
from mmae.models.losses import Losses
from mmae.training import distributed, panels
from mmae.training.batches import (
    batch_order,
    batch_rows,
    batches,
    epoch_order,
    epoch_rows,
    rank_slice,
    steps_per_epoch,
)
from mmae.training.data import TRAIN, TrainingSet, has_stars
from mmae.training.distributed import World
from mmae.training.recipe import (
    Train,
    backward,
    compile_layers,
    rate_factor,
    step_masks,
)
from mmae.training.runlog import METRICS, RunLog, summary
from mmae.training.state import (
    STATISTICS_ROWS,
    Beginning,
    State,
    as_json,
    begin_or_resume,
    describe,
    load_beginning,
    save,
    update_average,
)
from mmae.training.validate import validate

REPORT_STEPS = 10
"""Steps between reports, which are of means over them."""
WAITING_STEPS = {"cuda": REPORT_STEPS}
"""Steps after which a GPU is waited for, to see losses and to agree on what is asked for; 1 on a CPU."""
MAX_SKIPPED = 50
"""Number of consecutive steps skipped for a gradient that is not finite, at which training gives up."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""Signals that stop training; Slurm jobs are warned by USR2 before their time limit or preemption."""


def main(config: Train) -> None:
    config.check_data()
    environment.keep_freed()
    with stop_on_signal() as stop, distributed.world() as world:
        stores = [open_store(path) for path in config.data]
        start, bands, trained_on = beginning(config), bands_of(config, stores), None
        if start is None:
            config = config.on_bands(bands, [store.bands for store in stores])
        else:
            start = start.on_bands(bands)
            config, trained_on = dataclasses.replace(config, model=start.config), start.trained_on
        check_columns(config, stores)
        if has_stars(stores):
            config = config.with_classes()
        data = TrainingSet(config.data, config.model, trained_on, complete=config.complete)
        if config.batch < world.size:
            raise UsageError(f"a batch of {config.batch} is too small for {world.size} ranks")
        data.require_splits(world.size)
        with run_directory_lock(config, world):
            train(config, world, data, stop, start)


def bands_of(config: Train, stores: Iterable[CutoutStore]) -> tuple[str, ...]:
    """The bands of all stores; InputRefused where those of a filter are too unlike to be one."""
    try:
        return united([store.bands for store in stores])
    except ValueError as error:
        raise InputRefused(f"{config.names}: {error}") from None


def check_columns(config: Train, stores: Sequence[CutoutStore]) -> None:
    """Raise UsageError for columns that no store has, or that a model to begin with does not know."""
    there = sorted({path.partition("/")[2] for store in stores for path in store.extra})
    if missing := [name for name in config.columns if name not in there]:
        has = f"they have {', '.join(there)}" if there else "they have none"
        raise UsageError(f"no store has the column {', '.join(missing)}: {has}")
    if config.start is not None and config.columns not in ((), config.model.columns):
        known = " ".join(config.model.columns) or "none"
        raise UsageError(f"--columns {' '.join(config.columns)}: {config.start} knows {known}, leave it out")


def beginning(config: Train) -> Beginning | None:
    """The model that a run begins with, where it is another's; UsageError where it is of another preset."""
    if config.start is None:
        return None
    start = load_beginning(checkpoint.find(config.start))
    if start.config.family != config.model.family:
        raise UsageError(f"{config.start} is of --preset {start.config.family}: give it, too")
    return start


@contextlib.contextmanager
def run_directory_lock(config: Train, world: World) -> Iterator[None]:
    """Lock the run directory; UsageError on every rank if another training has locked it."""
    with contextlib.ExitStack() as stack:
        locked = False
        if world.is_main:
            config.out.mkdir(parents=True, exist_ok=True)
            try:
                stack.enter_context(atomic.owned(config.out))
            except BlockingIOError:
                locked = True
        if any(agree(world, locked)):
            raise UsageError(f"{config.out} is being written by another training: give another --out")
        yield


class Stop:
    """Stop request, set by a signal and read at the end of a step."""

    requested = False


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    stop = Stop()

    def request(*_: object) -> None:
        stop.requested = True

    numbers = list(STOP_SIGNALS)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)
    previous = {number: signal.signal(number, request) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def train(config: Train, world: World, data: TrainingSet, stop: Stop, start: Beginning | None = None) -> None:
    """Begin or resume the run in `config.out`, and train to its last epoch."""
    rows = data.rows(TRAIN)
    sample = data.read(data.sample(TRAIN, STATISTICS_ROWS))
    description = describe(data, sample.image, start)
    if config.like is not None:
        standing = data.stand_for(open_store(config.like), description["noise"])
        description["like"] = dataclasses.asdict(standing)
    kind, times = data.kind(rows), data.times(rows, config.shares, config.unlabelled)
    galaxies = len(epoch_rows(rows, times, kind, config.seed, 0))
    steps = steps_per_epoch(galaxies, config.batch, world.size)
    state = begin_or_resume(config, world, description, sample, start)
    del sample
    if finished(state, config):
        if world.is_main:
            print(f"{config.out}: done after {state.epoch} of {config.epochs} epochs; nothing to do")
        return
    log = RunLog(config.out, as_json(config), state.step, state.step_in_epoch == 0, world.is_main)
    log.print(f"{config.out}: epoch {state.epoch} of {config.epochs}, step {state.step}")
    log.print(
        f"{galaxies} galaxies, {steps} steps an epoch, ranks: {world.size} "
        f"({world.device.type}, {config.arithmetic})"
    )
    for remark in data.remarks:
        log.print(remark)
    if config.compile:
        compile_layers(state.model)
    model, parts = data_parallel(state.model, world), state.model.loss_weights
    pin, every = world.device.type == "cuda", WAITING_STEPS.get(world.device.type, 1)
    saved, skipped = time.monotonic(), torch.zeros((), device=world.device)

    with log.progress(config.epochs * steps, state.step) as advance:
        while not finished(state, config):
            seen = epoch_rows(rows, times, kind, config.seed, state.epoch)
            order = epoch_order(seen, data.block[seen], config.batch, config.seed, state.epoch)
            started, first = time.monotonic(), state.step
            unseen: list[Losses] = []
            model.train()
            for batch in batches(data, order, config.batch, world.rank, world.size, state.step_in_epoch, pin):
                size = batch_rows(galaxies, config.batch, state.step_in_epoch)
                together = batch_order(order, config.batch, state.step_in_epoch)
                masks = step_masks(size, config, state.step).of(*data.known(together))
                own_masks = masks.rows(rank_slice(size, world.rank, world.size))
                counts = masks.counts(parts).clamp(min=1) / world.size
                state.optimizer.zero_grad(set_to_none=True)
                unseen.append(backward(model, batch.to(world.device), own_masks, config, counts))
                skipped = torch.where(step(state, config, galaxies), 0, skipped + 1)
                if state.step % every and state.step_in_epoch < steps:
                    continue

                seen_now, unseen = reduced(unseen, parts, world), []
                state.unreported += seen_now
                if state.step % REPORT_STEPS == 0:
                    rate = (state.step - first) * config.batch / (time.monotonic() - started)
                    log.report("train", state.step, state.report() | {"samples_per_s": rate})
                totals, in_a_row = [losses["total"] for losses in seen_now], int(skipped)
                for total in totals:
                    advance(total)
                due = time.monotonic() - saved > 60 * config.checkpoint_minutes
                failed = not all(map(math.isfinite, totals)) or in_a_row >= MAX_SKIPPED
                stopping, saving, diverged = agree(world, stop.requested, due and world.is_main, failed)
                if diverged:
                    quantity = "gradient" if in_a_row >= MAX_SKIPPED else "loss"
                    raise InputRefused(
                        f"no finite {quantity} at step {state.step}: lower --lr, or --spectrum-dropout"
                    )
                if stopping or saving:
                    save(config, world, description, state)
                    saved = time.monotonic()
                if stopping:
                    raise stopped(state)

            end_epoch(state, config, world, data, description, log)
            saved = time.monotonic()
            if any(agree(world, stop.requested)) and not finished(state, config):
                raise stopped(state)

    log.print(f"wrote {config.out}: {checkpoint.BEST} (loss {state.best:.4f}), {METRICS}, tensorboard/")


def data_parallel(model: nn.Module, world: World) -> nn.Module:
    """The model, wrapped so that ranks average its gradients if there are several."""
    if world.size == 1:
        return model
    # without device_ids masks stay on the host; find_unused_parameters keeps the order in which ranks sum
    # gradients the same from the first step on
    return nn.parallel.DistributedDataParallel(model, find_unused_parameters=True)


def end_epoch(
    state: State,
    config: Train,
    world: World,
    data: TrainingSet,
    description: dict[str, Any],
    log: RunLog,
) -> None:
    """Validate, report, draw the figures and save a checkpoint, also as the best one if it is."""
    state.epoch, state.step_in_epoch = state.epoch + 1, 0
    state.metrics, *redshifts = validate(state.evaluated, data, config, world)
    log.report("validation", state.step, state.metrics)
    log.print(f"epoch {state.epoch}/{config.epochs}  validation: {summary(state.metrics)}")
    if world.is_main:
        log.figure("zphot_zspec", state.step, panels.redshifts(*redshifts))
        rebuilt = panels.rebuilt(state.evaluated, data, config, world.device)
        log.figure("reconstruction", state.step, rebuilt)
    improved = state.metrics["loss"] < state.best
    if improved:
        state.best, state.best_epoch = state.metrics["loss"], state.epoch
    save(config, world, description, state, best=improved)


def step(state: State, config: Train, galaxies: int) -> torch.Tensor:
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
