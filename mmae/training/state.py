"""The state of a training run, in memory and on disk."""

import copy
import dataclasses
import json
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from catalogs import atomic
from catalogs.bands import as_in, had_by, match
from catalogs.errors import InputRefused, UsageError
from catalogs.products.model_input import TOLD
from mmae import __version__
from mmae.layers.patches import observed_bands
from mmae.layers.photometry import MAX_BANDS
from mmae.models import checkpoint
from mmae.models.batch import Batch
from mmae.models.families import AnyConfig, AnyModel, build
from mmae.models.mmae import Model
from mmae.models.mmae_config import ModelConfig
from mmae.models.more_bands import adopt
from mmae.training.data import TRAIN, TrainingSet, sky_noise
from mmae.training.distributed import World
from mmae.training.optimizer import make_optimizer
from mmae.training.recipe import Train
from mmae.training.streams import DROPOUT, stream_seed

STATISTICS_ROWS = 2048
"""Galaxies from which noise and percentiles of fluxes are measured."""
PROGRESS = ("step", "epoch", "step_in_epoch", "best", "best_epoch", "metrics", "unreported")
"""Fields of the state that are numbers: the progress of the run."""


class Beginning(NamedTuple):
    """The model of another run, which a run begins with."""

    config: AnyConfig
    weights: dict[str, torch.Tensor]
    """With scales of pixels and photometry, which its weights are used to."""
    trained_on: dict[str, Any]
    """Description of its training data, and where they were: `paths`."""

    def on_bands(self, bands: tuple[str, ...]) -> "Beginning":
        """The same model of another survey's bands, which take the places of those of the same filters.

        Those that it does not know come before all others (more_bands.py). Raises InputRefused where they are
        too many.
        """
        if not isinstance(self.config, ModelConfig):
            return self
        known = as_in(self.config.bands, bands)
        planes = match(known, bands)
        more = tuple(band for plane, band in enumerate(bands) if plane not in planes)
        if len(more) + len(known) > MAX_BANDS:
            raise InputRefused(
                f"{' '.join(known)} and {' '.join(more)} are more than {MAX_BANDS} bands: leave some out"
            )
        together = (*more, *known)
        surveys = had_by(together, [bands])
        return self._replace(config=dataclasses.replace(self.config, bands=together, surveys=surveys))


def load_beginning(path: Path) -> Beginning:
    """The model of a checkpoint, averaged if it has an average; InputRefused where it is none."""
    model, saved = checkpoint.load_model(path)
    return Beginning(model.config, model.state_dict(), saved["data"] | {"paths": paths_of(saved["config"])})


def paths_of(config: dict[str, Any]) -> list[str]:
    """Paths of the stores of a saved configuration; an older one has a single one."""
    data = config["data"]
    return [data] if isinstance(data, str) else list(data)


@dataclass
class State:
    """State of a run, without the random generators."""

    model: AnyModel
    average: AnyModel | None
    """Exponential moving average of the weights."""
    optimizer: torch.optim.Optimizer
    rates: list[float]
    """Highest learning rate of each parameter group."""
    step: int = 0
    epoch: int = 0
    step_in_epoch: int = 0
    best: float = math.inf
    best_epoch: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    unreported: list[dict[str, float]] = field(default_factory=list)
    """Losses of each step since the last report, means over ranks."""

    def report(self) -> dict[str, float]:
        """Means of the losses since the last report."""
        means = {name: float(np.mean([x[name] for x in self.unreported])) for name in self.unreported[0]}
        self.unreported = []
        return means

    @property
    def evaluated(self) -> AnyModel:
        """Model for validation and inference: the averaged one, if there is one."""
        return self.average or self.model


def update_average(average: nn.Module, model: nn.Module, decay: float, step: int) -> None:
    """Update the moving average of the weights; its decay is faster in the first steps."""
    rate = max(1 - decay, 10 / (10 + step))
    with torch.no_grad():  # in a few kernels on a GPU
        torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), rate)


def begin_or_resume(
    config: Train, world: World, description: dict[str, Any], sample: Batch, start: Beginning | None = None
) -> State:
    """State from the newest intact checkpoint of the run directory, or that of a new run.

    A run resumes bit-identically to one that was never stopped, on as many ranks and the same kind of device;
    otherwise every galaxy of the epoch is still seen once, with the same masks, but dropout differs.

    Raises UsageError where the run was begun with other flags or on other data, InputRefused where its
    weights are of another version of the model.
    """
    torch.manual_seed(config.seed)
    model, path = build(config.model), checkpoint.newest(config.out)
    if path is None:  # a run that goes on has in its weights what they take from the sample
        if start is None:
            model.fit(sample.image, sample.conditions, description["noise"], sample.redshift)
        else:
            begin_with(model, start, sample, description)
    model.to(world.device)
    average = copy.deepcopy(model).requires_grad_(False) if config.average else None
    optimizer = make_optimizer(model, config)
    state = State(model, average, optimizer, [group["lr"] for group in optimizer.param_groups])
    if world.is_main:
        checkpoint.sweep(config.out)
    if path is None:
        seed_dropout(config, world, 0)
        if world.is_main:
            resolved = {"config": as_json(config), "data": description, "code_version": __version__}
            atomic.write_json(config.out / "config.json", resolved)
        return state

    saved = checkpoint.load(path)
    if (preset := saved.get("family", "of an older version")) != config.model.family:
        raise UsageError(f"{config.out} was begun with --preset {preset}: give it, or another --out")
    if changed := differences(as_json(config), saved["config"]):
        raise UsageError(f"{config.out} was begun with {changed}: give it the same flags, or another --out")
    if saved["data"] != description:
        raise UsageError(f"{config.out} was begun on other data than {config.names}: give another --out")
    checkpoint.take_weights(model, saved["model"], path)
    if average:
        checkpoint.take_weights(average, saved["average"], path)
    optimizer.load_state_dict(saved["optimizer"])
    for name in saved.keys() & set(PROGRESS):  # an older version saved fewer
        setattr(state, name, saved[name])
    if (saved["device"], len(saved["generators"])) == (world.device.type, world.size):
        set_generator(world.device, saved["generators"][world.rank])
    else:
        seed_dropout(config, world, state.step)
        if world.is_main:
            before = f"{len(saved['generators'])} ranks ({saved['device']})"
            print(f"{config.out}: begun on {before}; dropout goes on otherwise than there")
    return state


def begin_with(model: AnyModel, start: Beginning, sample: Batch, description: dict[str, Any]) -> None:
    """Give a new model the weights that a run begins with; it may have more bands, and a head of classes."""
    if isinstance(model, Model) and len(model.noise) > len(start.weights["noise"]):
        try:
            adopt(model, start.weights, sample.image, torch.tensor(description["noise"]))
        except ValueError as error:
            raise InputRefused(f"{description['survey']}: {error}") from None
    else:
        missing, unexpected = model.load_state_dict(start.weights, strict=False)
        assert not unexpected
        assert all(name.startswith("class_head.") or name == "others" for name in missing)
    if isinstance(model, Model):
        model.expect(sample.redshift)


def seed_dropout(config: Train, world: World, step: int) -> None:
    """Seed the generator of dropout for this rank and the step at which the run resumes."""
    torch.manual_seed(stream_seed(config.seed, DROPOUT, world.rank, step))


def get_generator(device: torch.device) -> torch.Tensor:
    """State of the random generator of dropout."""
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def set_generator(device: torch.device, state: torch.Tensor) -> None:
    if device.type == "cuda":
        torch.cuda.set_rng_state(state, device)
    else:
        torch.set_rng_state(state)


def save(config: Train, world: World, description: dict[str, Any], state: State, best: bool = False) -> None:
    """Write a checkpoint: every rank contributes its random generator, rank 0 writes."""
    generators = world.gather(get_generator(world.device).to(world.device))
    if not world.is_main:
        return
    content = {
        "family": config.model.family,
        "model": state.model.state_dict(),
        "average": state.average.state_dict() if state.average else None,
        "optimizer": state.optimizer.state_dict(),
        "generators": [generator.cpu() for generator in generators],
        "device": world.device.type,
        **{name: getattr(state, name) for name in PROGRESS},
        "config": as_json(config),
        "data": description,
        "code_version": __version__,
    }
    if best:  # before the step: a run killed in between repeats the end of the epoch, and this with it
        checkpoint.save(config.out / checkpoint.BEST, content)
    checkpoint.save_step(config.out, content)


def as_json(config: Train) -> dict[str, Any]:
    """The configuration with the types that JSON has."""
    return dict(json.loads(json.dumps(dataclasses.asdict(config), default=str)))


def differences(new: dict[str, Any], old: dict[str, Any]) -> str:
    """Flags that must not change when a run resumes, but do; its length and its paths may.

    Except with the one-cycle schedule, which depends on the length.
    """
    may_change = {"out", "data", "like", "epochs", "patience", "compile", "checkpoint_minutes"}
    may_change -= {"epochs"} if old["schedule"] == "one-cycle" else set()
    changed = (key for key in new if key not in may_change and new[key] != old.get(key))
    return ", ".join(f"{key} {old.get(key)}" for key in changed)


def check_bands(data: TrainingSet, sample: torch.Tensor) -> None:
    """Raise InputRefused where a band of images (N, bands, 64, 64) is dark, or no two have data in all."""
    observed = observed_bands(sample)
    seen = zip(data.input.bands, observed.any(0).tolist(), strict=True)
    if dark := [band for band, has_data in seen if not has_data]:
        raise InputRefused(f"{data.name} has no data in the band {', '.join(dark)}: leave it out")
    if observed.all(1).sum() < 2:
        raise InputRefused(
            f"{data.name} has no two galaxies with data in all of its bands "
            f"({' '.join(data.input.bands)}): leave out one that few have"
        )


def describe(data: TrainingSet, sample: torch.Tensor, start: Beginning | None = None) -> dict[str, Any]:
    """Description of the training data for the model card: survey, bands, fluxes, range of redshifts.

    sample : (N, bands, 64, 64), some images of the training split
    start : what the run begins with: what it learned from, and its statistics of bands that are dark here
    Raises InputRefused as `check_bands`, where there is no `start`.
    """
    if start is None:
        check_bands(data, sample)
    rows, image = data.rows(TRAIN), sample.numpy()
    levels = (1, 50, 99)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of bands without data
        statistics = np.stack([sky_noise(image), *np.nanpercentile(image, levels, axis=(0, 2, 3))])
    told = [name for name in TOLD if data.model.hears and any(store.has(name) for store in data.stores)]
    if start is not None:
        before = np.array([start.trained_on["noise"], *start.trained_on["flux_percentiles"].values()])
        more = statistics.shape[1] - before.shape[1]
        before = np.pad(before, ((0, 0), (more, 0)), constant_values=np.nan)
        statistics, told = np.where(np.isnan(statistics), before, statistics), start.trained_on["told"]
    noise, *percentiles = statistics.tolist()
    without = [band for band, sigma in zip(data.input.bands, noise, strict=True) if not sigma > 0]
    if without and isinstance(data.model, ModelConfig):
        raise InputRefused(
            f"{data.name} has no noise of the sky at the corners of images in the band {', '.join(without)}, "
            "in units of which the model takes them: leave it out"
        )
    redshift = data.redshift[rows[np.isfinite(data.redshift[rows])]]
    description = {
        "survey": ", ".join(dict.fromkeys(store.survey for store in data.stores)),
        "stores": [
            {"survey": store.survey, "bands": list(store.bands), "fingerprint": store.fingerprint}
            for store in data.stores
        ],
        "galaxies": len(rows),
        "bands": list(data.input.bands),
        "pixel_scale": data.input.pixel_scale,
        "zero_point": data.input.zero_point,
        "noise": noise,
        "flux_percentiles": {str(level): row for level, row in zip(levels, percentiles, strict=True)},
        "z_range": [float(redshift.min()), float(redshift.max())],
        "told": told,
        "columns": list(data.input.columns),
    }
    return description | ({} if start is None else {"start": start.trained_on})
