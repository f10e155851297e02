"""`mmae train`: the command, on one rank or several.

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
import signal
from collections.abc import Iterable, Iterator, Sequence

from catalogs import atomic
from catalogs.bands import united
from catalogs.errors import InputRefused, UsageError
from catalogs.store.cutouts import CutoutStore, open_store
from mmae import cli, environment
from mmae.models import checkpoint
from mmae.training import distributed
from mmae.training.batches import Epochs, steps_per_epoch
from mmae.training.data import TRAIN, TrainingSet, has_stars
from mmae.training.distributed import World
from mmae.training.loop import Loop, Stop, agree, finished
from mmae.training.recipe import Train
from mmae.training.runlog import METRICS, RunLog
from mmae.training.state import STATISTICS_ROWS, Beginning, as_json, begin_or_resume, describe, load_beginning
from mmae.training.step import compile_layers

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
    """The model that a run begins with, where it is another's; a run that goes on is its own.

    So the other may be gone by then. UsageError where it is of another preset, or other sizes are asked for.
    """
    if config.start is None:
        return None
    own = checkpoint.newest(config.out)
    start = load_beginning(own or checkpoint.find(config.start))
    if own is not None and "start" in start.trained_on:
        start = start._replace(trained_on=start.trained_on["start"])
    if start.config.family != config.model.family:
        raise UsageError(f"{config.start} is of --preset {start.config.family}: give it, too")
    for size in dataclasses.fields(config.model):
        asked, has = getattr(config.model, size.name), getattr(start.config, size.name)
        if asked not in (size.default, has):
            flag = f"--model.{size.name.replace('_', '-')}"
            raise UsageError(f"{flag} {asked}: {config.start} has {has}, leave it out")
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
    times = data.times(rows, config.shares, config.unlabelled)
    epochs = Epochs(rows, times, data.kind(rows), data.block, config.batch, config.seed)
    if not steps_per_epoch(epochs.galaxies, config.batch, world.size):
        raise UsageError(
            f"an epoch would see {epochs.galaxies} galaxies, too few for a step of {world.size} ranks: give "
            "larger --shares"
        )
    state = begin_or_resume(config, world, description, sample, start)
    del sample
    if finished(state, config):
        if world.is_main:
            print(f"{config.out}: done after {state.epoch} of {config.epochs} epochs; nothing to do")
        return
    log = RunLog(config.out, as_json(config), state.step, state.step_in_epoch == 0, world.is_main)
    if config.compile:
        compile_layers(state.model)
    loop = Loop(config, world, data, epochs, description, state, log, stop)
    log.print(f"{config.out}: epoch {state.epoch} of {config.epochs}, step {state.step}")
    log.print(
        f"{epochs.galaxies} galaxies, {loop.steps} steps an epoch, ranks: {world.size} "
        f"({world.device.type}, {config.arithmetic})"
    )
    for remark in data.remarks:
        log.print(remark)
    loop.run()
    log.print(f"wrote {config.out}: {checkpoint.BEST} (loss {state.best:.4f}), {METRICS}, tensorboard/")
