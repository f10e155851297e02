"""What galaxies without a spectrum teach, and those without a redshift: few with both, and more of others.

python tests/benchmarks/bench_teaching.py FOLDER [--galaxies 25000] [--few 2000] [--more 10000] [--seeds 2]

FOLDER keeps a mock survey of HSC, stores of its parts, and the runs. Every model sees as many galaxies.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
    """What is trained on: a number of stores, and the share of galaxies without a redshift an epoch sees."""

    name: str
    stores: int
    unlabelled: float = 1.0


KINDS = [
    Kind("few with spectra", 1),
    Kind("and more with a redshift alone", 2),
    Kind("and as many images", 3),
    Kind("and a fifth of the images an epoch", 3, 0.2),
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


def recipe(stores: list[Path], kind: Kind, seed: int, sizes: list[int], options: argparse.Namespace) -> Train:
    labelled = sum(sizes[: min(kind.stores, 2)]) * SHARES[TRAIN]
    others = kind.unlabelled * sum(sizes[2 : kind.stores]) * SHARES[TRAIN]
    epochs = max(1, round(options.seen / (labelled + others)))
    used = tuple(stores[: kind.stores])
    out = options.folder / "runs" / f"{kind.name} {seed}"
    common = {"batch": options.batch, "seed": seed, "model": studies.model_of(options)}
    return Train(used, out, epochs=epochs, unlabelled=kind.unlabelled, **common)


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
    recipes = {
        kind.name: [recipe(stores, kind, seed, sizes, arguments) for seed in range(arguments.seeds)]
        for kind in KINDS
    }
    make_all(each for of_kind in recipes.values() for each in of_kind)
    runs = {name: [each.out for each in of_kind] for name, of_kind in recipes.items()}
    command = " ".join(["bench_teaching.py", "FOLDER", *sys.argv[2:]])
    report.write(
        "teaching", "What galaxies without some labels teach", command, rows(runs, store, arguments.batch)
    )


if __name__ == "__main__":
    main()
