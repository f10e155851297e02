"""Training: the loop and its state. Knows ranks, not Slurm.

    mmae train store.zarr --out runs/first              one process
    torchrun --nproc-per-node 4 -m mmae.train ...       one process a GPU (or `srun python -m mmae.train ...`)

The run directory holds config.json, metrics.jsonl (a line a report), tensorboard/, checkpoints, and
the figures of the last validation.
"""

import contextlib
import copy
import dataclasses
import json
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts

from catalogs import atomic
from catalogs.cutout_format import BANDS
from catalogs.errors import InputRefused, Interrupted, UsageError
from mmae import __version__, allocator, checkpoint, cli, distributed, panels
from mmae.data import (
    TRAIN,
    VALIDATION,
    TrainingSet,
    batch_rows,
    batches,
    epoch_order,
    share,
    sky_noise,
    steps_per_epoch,
)
from mmae.distributed import World
from mmae.families import AnyModel, build
from mmae.losses import Losses
from mmae.recipe import (
    DROPOUT,
    Scheduler,
    Train,
    backward,
    make_optimizer,
    make_scheduler,
    step_masks,
    stream,
)
from mmae.runlog import METRICS, RunLog, summary
from mmae.validate import validate

REPORT_STEPS = 10
STATISTICS_ROWS = 2048
MOST_LOST = 50
"""Steps one after another whose gradient is not finite, and which therefore change nothing."""
PLACE = ("step", "epoch", "step_in_epoch", "best", "best_epoch", "metrics")
"""What of the state is plain numbers: how far the run has come."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""USR2 is what Slurm jobs are warned with, before their time is up or their nodes are taken."""


def main(config: Train) -> None:
    allocator.keep_freed()
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


@dataclass
class State:
    """All that decides what comes next, but for the random generators."""

    model: AnyModel
    average: AnyModel | None
    """The mean of the weights over the last steps."""
    optimizer: torch.optim.Optimizer
    scheduler: Scheduler | None
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def judged(self) -> AnyModel:
        """What validation and users get."""
        return self.average or self.model


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


# ---------------------------------------------------------------- state on disk


def update_average(average: nn.Module, model: nn.Module, memory: float, step: int) -> None:
    """Take the weights of a step into the average, whose memory is shorter at the beginning."""
    share = max(1 - memory, 10 / (10 + step))
    with torch.no_grad():
        for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, share)


def begin_or_resume(
    config: Train, world: World, described: dict[str, Any], sample: torch.Tensor, steps: int
) -> State:
    """The state in the newest whole checkpoint of the run directory, or that of a new run.

    A run goes on to the very bits of one that was never stopped, if on as many ranks and the same kind of
    device; else every galaxy of the epoch is still seen once, under the same masks, but dropout differs.

    Raises UsageError where the run was begun with other flags or on other data.
    """
    torch.manual_seed(config.seed)
    model = build(config.model)
    model.fit(sample, described["noise"])
    model.to(world.device)
    average = copy.deepcopy(model).requires_grad_(False) if config.average else None
    optimizer = make_optimizer(model, config)
    state = State(model, average, optimizer, make_scheduler(optimizer, config, steps))
    path = checkpoint.newest(config.out)
    if world.first:
        checkpoint.sweep(config.out)
    if path is None:
        seed_dropout(config, world, 0)
        if world.first:
            resolved = {"config": plain(config), "data": described, "code_version": __version__}
            atomic.write_json(config.out / "config.json", resolved)
        return state

    saved = checkpoint.load(path)
    if (preset := saved.get("family", "of an older version")) != config.model.family:
        raise UsageError(f"{config.out} was begun with --preset {preset}: give it, or another --out")
    if changed := differences(plain(config), saved["config"]):
        raise UsageError(f"{config.out} was begun with {changed}: give it the same flags, or another --out")
    if saved["data"] != described:
        raise UsageError(f"{config.out} was begun on other data than {config.data}: give another --out")
    model.load_state_dict(saved["model"])
    if average:
        average.load_state_dict(saved["average"])
    optimizer.load_state_dict(saved["optimizer"])
    if state.scheduler:
        state.scheduler.load_state_dict(saved["scheduler"])
    for name in PLACE:
        setattr(state, name, saved[name])
    if (saved["device"], len(saved["generators"])) == (world.device.type, world.size):
        set_generator(world.device, saved["generators"][world.rank])
    else:
        seed_dropout(config, world, state.step)
        if world.first:
            before = f"{len(saved['generators'])} ranks ({saved['device']})"
            print(f"{config.out}: begun on {before}; dropout goes on otherwise than there")
    return state


def seed_dropout(config: Train, world: World, step: int) -> None:
    """Random numbers of this rank's own, unlike those of any other step that a run was taken up at."""
    torch.manual_seed(stream(config.seed, DROPOUT, world.rank, step))


def get_generator(device: torch.device) -> torch.Tensor:
    """State of the generator that dropout draws from."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_generator(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def save(config: Train, world: World, described: dict[str, Any], state: State, best: bool = False) -> None:
    """Write a checkpoint; every rank hands in its random generator, rank 0 writes."""
    generators = world.gather(get_generator(world.device).to(world.device))
    if not world.first:
        return
    content = {
        "family": config.model.family,
        "model": state.model.state_dict(),
        "average": state.average.state_dict() if state.average else None,
        "optimizer": state.optimizer.state_dict(),
        "scheduler": state.scheduler.state_dict() if state.scheduler else None,
        "generators": [generator.cpu() for generator in generators],
        "device": world.device.type,
        **{name: getattr(state, name) for name in PLACE},
        "config": plain(config),
        "data": described,
        "code_version": __version__,
    }
    if best:  # before the step: a run killed in between does the epoch again, and this too
        checkpoint.save(config.out / checkpoint.BEST, content)
    checkpoint.save_step(config.out, content)


def plain(config: Train) -> dict[str, Any]:
    """The configuration as JSON has it."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config), default=str)))


def differences(new: dict[str, Any], old: dict[str, Any]) -> str:
    """Flags that differ and must not when a run goes on; how long it lasts, and where things lie, may.

    But for the one cycle of the rate, whose length is that of the run.
    """
    free = {"out", "data", "epochs", "patience", "checkpoint_minutes"}
    free -= {"epochs"} if old["schedule"] == "one-cycle" else set()
    return ", ".join(f"{key} {old.get(key)}" for key in new if key not in free and new[key] != old.get(key))


def describe(data: TrainingSet, sample: torch.Tensor) -> dict[str, Any]:
    """What a model card must say of the data: what the images are, their fluxes, the redshifts seen.

    sample : (N, 5, 64, 64), some images of the training split
    """
    rows, image = data.rows(TRAIN), sample.numpy()
    levels = (1, 50, 99)
    percentiles = np.percentile(image, levels, axis=(0, 2, 3)).tolist()  # (3, bands)
    redshift = data.redshift[rows]
    return {
        "survey": data.store.survey,
        "fingerprint": data.store.fingerprint,
        "galaxies": len(rows),
        "bands": list(BANDS),
        "pixel_scale": data.store.pixel_scale,
        "zero_point": data.store.zero_point,
        "noise": sky_noise(image).tolist(),
        "flux_percentiles": {str(level): row for level, row in zip(levels, percentiles, strict=True)},
        "z_range": [float(redshift.min()), float(redshift.max())],
    }


if __name__ == "__main__":
    sys.exit(cli.run(main, Train, sys.argv[1:], "python -m mmae.train"))
