"""What galaxies without a spectrum teach, and those without a redshift: few with both, and more of others.

python tests/benchmarks/bench_teaching.py FOLDER [--galaxies 25000] [--few 2000] [--more 10000] [--seeds 2]

FOLDER keeps a mock survey of HSC, stores of its parts, and the runs. Every model sees as many galaxies.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import report
import studies
from studies import make_all, measured, opened, part

from mmae.models import checkpoint
from mmae.training.data import SHARES, TRAIN, TrainingSet
from mmae.training.distributed import World, world
from mmae.training.recipe import Train
from mmae.training.validate import validate

HEADER = ["trained on", *studies.SCORES[:5], "loss of hidden spectra", "ratio of sigma_NMAD"]


class Kind(NamedTuple):
    """What is trained on: numbers of stores, and the share of galaxies without a redshift an epoch sees."""

    name: str
    stores: tuple[int, ...]
    unlabelled: float = 1.0
    flags: Mapping[str, Any] = {}
    """Other than the usual ones."""
    first: "Kind | None" = None
    """What is trained before, whose model then goes on learning."""
    tried: bool = False
    """Whether with one seed alone."""


SPECTRA, REDSHIFTS, IMAGES = range(3)
ALL = (SPECTRA, REDSHIFTS, IMAGES)
KINDS = [
    Kind("few with spectra", (SPECTRA,)),
    Kind("and more with a redshift alone", (SPECTRA, REDSHIFTS)),
    Kind("and as many images", ALL),
    Kind("and a fifth of the images an epoch", ALL, 0.2),
    Kind("the same, 3/4 of images hidden", ALL, 0.2, {"image_mask": (0.75, 0.75)}, tried=True),
    Kind("the same, bands of half of the galaxies hidden", ALL, 0.2, {"band_dropout": 0.5}, tried=True),
    Kind(
        "images first, then those with a redshift",
        (SPECTRA, REDSHIFTS),
        first=Kind("few with spectra, and images", (SPECTRA, IMAGES)),
        tried=True,
    ),
]


def stores_of(folder: Path, few: int, more: int, galaxies: int) -> tuple[list[Path], Path]:
    """Stores of the parts of a survey: with spectra, with redshifts, with neither; and those to judge by."""
    source = studies.drawn(folder, galaxies)
    ends = np.cumsum([0, few, more, more])
    spans = [range(*span) for span in itertools.pairwise(ends.tolist())]
    stores = [
        part(source, folder / "spectra.zarr", spans[0]),
        part(source, folder / "redshifts.zarr", spans[1], without=("flux", "ivar")),
        part(source, folder / "images.zarr", spans[2], without=("flux", "ivar", "redshift")),
    ]
    return stores, part(source, folder / "judged.zarr", range(int(ends[-1]), galaxies))


def recipe(
    stores: list[Path], kind: Kind, seed: int, sizes: list[int], options: argparse.Namespace, seen: int
) -> Train:
    """The training of a kind that sees about so many galaxies, in whole epochs."""
    epoch = sum(
        sizes[store] * SHARES[TRAIN] * (kind.unlabelled if store == IMAGES else 1) for store in kind.stores
    )
    out = options.folder / "runs" / f"{kind.name} {seed}".replace("/", " of ")
    return Train(
        tuple(stores[store] for store in kind.stores),
        out,
        epochs=max(1, round(seen / epoch)),
        unlabelled=kind.unlabelled,
        batch=options.batch,
        seed=seed,
        model=studies.model_of(options),
        **kind.flags,
    )


def judged(run: Path, store: Path, ranks: World, batch: int) -> list[float]:
    """Scores for all galaxies of a store, and the loss of the hidden tokens of their spectra."""
    bundle = opened(run)
    model, state = checkpoint.load_model(checkpoint.find(run))
    data = TrainingSet(store, model.config, state["data"])
    galaxies = studies.whole(bundle, store)
    losses = validate(model, data, Train((store,), run, batch=batch, model=model.config), ranks).metrics
    return [*measured(bundle, galaxies)[:5], losses["spectrum"]]


def rows(runs: dict[str, list[Path]], store: Path, batch: int) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    first = None
    with world() as ranks:
        for name, of_seeds in runs.items():
            mean = np.mean([judged(run, store, ranks, batch) for run in of_seeds], 0)
            first = mean[0] if first is None else first
            cells = [*studies.cells(mean[:5]), f"{mean[5]:.4f}", f"{mean[0] / first:.2f}"]
            yield f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    options = studies.parser(__doc__, 25_000)
    options.add_argument("--few", type=int, default=2_000)
    options.add_argument("--more", type=int, default=10_000)
    options.add_argument("--seen", type=int, default=25_000, help="galaxies that a model sees")
    arguments = options.parse_args()
    sizes = [arguments.few, arguments.more, arguments.more]
    stores, store = stores_of(arguments.folder, arguments.few, arguments.more, arguments.galaxies)
    recipes: dict[str, list[Train]] = {kind.name: [] for kind in KINDS}
    before = []
    for kind in KINDS:
        for seed in range(1 if kind.tried else arguments.seeds):
            parts = (stores, kind, seed, sizes, arguments)
            whole = recipe(*parts, arguments.seen)
            if kind.first:
                first = recipe(stores, kind.first, seed, sizes, arguments, arguments.seen // 3)
                before.append(first)
                whole = replace(recipe(*parts, arguments.seen * 2 // 3), start=first.out)
            recipes[kind.name].append(whole)
    make_all(before)
    make_all(each for of_kind in recipes.values() for each in of_kind)
    runs = {name: [each.out for each in of_kind] for name, of_kind in recipes.items()}
    command = " ".join(["bench_teaching.py", "FOLDER", *sys.argv[2:]])
    report.write(
        "teaching", "What galaxies without some labels teach", command, rows(runs, store, arguments.batch)
    )


if __name__ == "__main__":
    main()
