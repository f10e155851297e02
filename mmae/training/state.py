"""The state of a training run, in memory and on disk."""

import copy
import dataclasses
import json
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from catalogs import atomic
from catalogs.errors import UsageError
from catalogs.store.format import BANDS
from mmae import __version__
from mmae.models import checkpoint
from mmae.models.families import AnyModel, build
from mmae.training.data import TRAIN, TrainingSet, sky_noise
from mmae.training.distributed import World
from mmae.training.recipe import DROPOUT, Scheduler, Train, make_optimizer, make_scheduler, stream

STATISTICS_ROWS = 2048
PLACE = ("step", "epoch", "step_in_epoch", "best", "best_epoch", "metrics")
"""What of the state is plain numbers: how far the run has come."""


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
