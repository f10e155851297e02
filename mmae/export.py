"""`mmae export`: a checkpoint becomes a model bundle, calibrated on galaxies it was not trained on."""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.export", "Export")

import dataclasses
from pathlib import Path
from typing import Any

import torch
from tyro.conf import Positional

from catalogs.place import place
from catalogs.place_flag import PlaceFlag
from catalogs.store.cutouts import open_store
from mmae import cli
from mmae.bundles.bundle import CARD, bf16_report
from mmae.bundles.compiler import check_out, write_bundle
from mmae.bundles.likeness.typicality import MIN_TAIL, TAIL
from mmae.bundles.sample import CALIBRATED_ROWS, MOST_STORES, Sample, noise_sample
from mmae.models import checkpoint
from mmae.models.families import config_of
from mmae.training.data import TRAIN, VALIDATION, TrainingSet
from mmae.training.made_with import earlier_stores, fingerprints, roles, training_stores, with_earlier
from mmae.training.state import paths_of


@dataclasses.dataclass(frozen=True)
class Export:
    """Turn a checkpoint into a model bundle: programs and their card.

    The bundle predicts redshifts from images alone, in fp32, and faster in bf16 if that is accurate enough.
    Each program is there as TorchScript, and as torch.export records it, for Python 3.14, where torch has no
    TorchScript: there it is 6 to 9 % slower, parts of images cannot be hidden, and p(z) not calibrated anew.
    The width of p(z), and what a typical galaxy is, are fitted to the validation split.
    Programs are checked against the full model before they are kept; the card says how well they agree, and
    carries the sha256 of the programs, the architecture, the training configuration, what the images must be
    (bands, pixel scale, zero point), and the validation metrics.
    """

    checkpoint: Positional[Path]
    """A run directory (its best checkpoint is taken) or a checkpoint file."""
    out: Path | None = None
    """Bundle to write; by default `bundle` in the run directory."""
    data: tuple[PlaceFlag, ...] = ()
    """Training stores to whose splits calibration and bf16 weights are fitted, and on which bf16 is compared
    with fp32; by default those the checkpoint was trained on. If one is not there, or is another store by
    now, p(z) stays as it is, and bf16 is tried on noise."""


def main(config: Export) -> None:
    source = checkpoint.find(config.checkpoint)
    model, state = checkpoint.load_model(source)
    out = config.out or source.parent / "bundle"
    check_out(out)
    card = write_bundle(out, model, state, find_sample(config, state))
    print(f"checkpoint: {source} (step {state['step']})")
    print(f"agrees with the full model to |dz| <= {card['agreement']['float64']:.1e} in float64")
    print(bf16_report(card))
    if not card["calibration"]["tail"]:
        print(f"ATYPICAL will never be raised: that takes {MIN_TAIL / TAIL:.0f} galaxies to calibrate on")
    print(f"wrote {', '.join(str(out / name) for name in (*card['files'], CARD))}")


# ---------------------------------------------------------------- what the programs are tried on


def find_sample(config: Export, state: dict[str, Any]) -> Sample:
    """Galaxies of the training and the validation split; noise where the training store is not there."""
    found = config.data or training_stores(state)
    paths = [path for path in found if path is not None]
    if len(paths) < len(found):
        where = next(
            place(name).absolute()
            for name, path in zip(paths_of(state["config"]), found, strict=True)
            if path is None
        )
        there = "another store is there" if where.exists() else "nothing is there"
        print(f"not calibrated: the training store is not at {where} ({there}); name it with --data")
        return noise_sample(len(config_of(state["family"], state["config"]["model"]).bands))
    recipe = state["config"]
    model = config_of(state["family"], recipe["model"])
    data = TrainingSet(paths, model, state["data"], complete=recipe["complete"])
    if data.left_out:
        print(data.left_out)
    data.require_splits()
    trained_on_it = [store.fingerprint for store in data.stores] == fingerprints(state["data"])
    if not trained_on_it:
        print(f"{data.name} is not what the model was trained on: IN_TRAINING will be null")
    earlier = earlier_stores(state)
    for name in (name for name, path in earlier.items() if path is None):
        print(f"{name}, which the model began with, is not there: IN_TRAINING will lack its galaxies")
    stand_for(recipe.get("like"), data, state["data"])
    number = CALIBRATED_ROWS * min(len(paths), MOST_STORES)
    rows = [
        data.sample(split, at_most, model.classes)
        for split, at_most in ((TRAIN, CALIBRATED_ROWS), (VALIDATION, number))
    ]
    trained, others = map(data.read, rows)
    return Sample(
        "galaxies of the validation split",
        trained.image,
        others.image,
        others.redshift,
        others.spectype,
        with_earlier(roles(data.stores, data.usable), filter(None, earlier.values()))
        if trained_on_it
        else None,
        trained.redshift,
        torch.from_numpy(data.weight[rows[1]]),
        (trained.conditions, others.conditions),
    )


def stand_for(like: str | None, data: TrainingSet, trained_on: dict[str, Any]) -> None:
    """Weigh the galaxies as those that were trained on, where these stood for a target sample."""
    if like is None:
        return
    path = place(like)
    if path.is_dir() and (target := open_store(path)).fingerprint == trained_on["like"]["fingerprint"]:
        data.stand_for(target, trained_on["noise"])
    else:
        print(f"p(z) is calibrated for galaxies with redshifts: {path}, which they stood for, is not there")
