"""Training with a share of wrong redshifts, whether it is said or not; and how many of them a model finds.

python tests/benchmarks/bench_wrong.py FOLDER [--galaxies 12000] [--wrong 0.05] [--epochs 3] [--seeds 2]

FOLDER keeps a mock survey of HSC, and the same with redshifts of other galaxies in the place of some.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
import torch
from studies import data_for, held_out, make_all, measured, opened, part

from catalogs.products.schema import QUANTILE_LEVELS
from catalogs.store.cutouts import open_store
from mmae.bundles.program import estimates
from mmae.layers import pdf
from mmae.layers.pdf import Grid
from mmae.scores.suspects import distance
from mmae.training.data import TRAIN, split
from mmae.training.recipe import Train

HEADER = ["trained on", *studies.SCORES[:5], "wrong ones found", "ratio of sigma_NMAD", "of outliers"]
LEAST = 0.05
"""Of |dz| / (1 + z) between a redshift and a wrong one: less is none that matters."""


def spoilt(redshift: np.ndarray, object_id: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Redshifts (N,) a share of which, in the training split alone, are of another galaxy; and which are."""
    rng = np.random.default_rng(0)
    wrong = (rng.random(len(redshift)) < share) & (split(object_id) == TRAIN)
    others = rng.permutation(redshift)
    wrong &= np.abs(others - redshift) > LEAST * (1 + redshift)
    return np.where(wrong, others, redshift), wrong


def found(run: Path, store: Path, wrong: np.ndarray) -> float:
    """Share of the wrong redshifts among twice as many that p(z) disbelieves most, of the training split."""
    bundle = opened(run)
    data = data_for(bundle, store)
    rows = data.rows(TRAIN)
    batch, of_train = data.read(rows), wrong[rows]
    grid = Grid(**bundle.card["grid"])
    mass = estimates(bundle.load(torch.device("cpu")), batch.image, batch.conditions).mass
    levels = torch.tensor(QUANTILE_LEVELS, dtype=mass.dtype).expand(len(mass), -1)
    quantiles = pdf.quantiles(mass / mass.sum(1, keepdim=True), grid, levels).numpy()
    far = distance(quantiles, batch.redshift.numpy())
    worst = np.argsort(-far, kind="stable")[: 2 * of_train.sum()]
    return float(of_train[worst].sum() / of_train.sum())


def rows(clean: Path, dirty: Path, wrong: np.ndarray, runs: dict[str, list[Path]]) -> Iterator[str]:
    yield f"{wrong.sum()} of the redshifts of the training split are wrong.\n"
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    first = None
    for name, of_seeds in runs.items():
        mean = np.mean([measured(opened(run), held_out(opened(run), clean))[:5] for run in of_seeds], 0)
        first = mean if first is None else first
        share = np.mean([found(run, dirty, wrong) for run in of_seeds])
        cells = [*studies.cells(mean), f"{100 * share:.0f} %"]
        yield f"| {name} | {' | '.join(cells)} | {mean[0] / first[0]:.2f} | {mean[1] / first[1]:.2f} |"


def main() -> None:
    options = studies.parser(__doc__, 12_000)
    options.add_argument("--wrong", type=float, default=0.05)
    arguments = options.parse_args()
    clean = studies.drawn(arguments.folder, arguments.galaxies)
    store = open_store(clean)
    redshift, wrong = spoilt(store.column("redshift"), store.column("object_id"), arguments.wrong)
    dirty = part(clean, arguments.folder / "wrong.zarr", range(store.n), redshift=redshift)
    common = {"epochs": arguments.epochs, "batch": arguments.batch, "model": studies.model_of(arguments)}
    ways = {
        "right redshifts": (clean, 0.0),
        "wrong ones among them": (dirty, 0.0),
        f"and --wrong {arguments.wrong:g}": (dirty, arguments.wrong),
    }
    recipes = {
        name: [
            Train((path,), arguments.folder / "runs" / f"{name} {seed}", seed=seed, wrong=share, **common)
            for seed in range(arguments.seeds)
        ]
        for name, (path, share) in ways.items()
    }
    make_all(each for of_way in recipes.values() for each in of_way)
    runs = {name: [each.out for each in of_way] for name, of_way in recipes.items()}
    command = " ".join(["bench_wrong.py", "FOLDER", *sys.argv[2:]])
    report.write("wrong_redshifts", "Wrong redshifts in training", command, rows(clean, dirty, wrong, runs))


if __name__ == "__main__":
    main()
