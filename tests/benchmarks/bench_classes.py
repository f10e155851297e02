"""Stars, galaxies and quasars told apart: completeness and purity on a mock field, and on real stamps of HSC.

python tests/benchmarks/bench_classes.py FOLDER [--galaxies 12000] [--stars 0.3] [--stamps DATA] [--epochs 3]

FOLDER keeps a mock survey of HSC with stars, and the runs; DATA has hsc_stamps64_grizy.npz. The share of
stars is about that at high latitudes, i < 22.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
import torch
from studies import data_for, held_out, make_all, measured, opened

from catalogs.products.screen import LIKELY
from mmae.bundles.program import estimates
from mmae.scores.catalogue.classes import CLASSES, table
from mmae.training.data import TEST
from mmae.training.recipe import Train

MAGNITUDE = "i_cmodel_mag"
STAR_SIZE = 2.15
"""Pixels of a stamp in i; below are stars."""


def of_mock(runs: list[Path], store: Path) -> Iterator[str]:
    """Scores on the test split, of the first seed; and of p(z) of what is no star."""
    bundle = opened(runs[0])
    data = data_for(bundle, store)
    rows = data.rows(TEST, stars=True)
    batch, magnitude = data.read(rows), data.store.column(f"columns/{MAGNITUDE}")[rows]
    estimate = estimates(bundle.load(torch.device("cpu")), batch.image, batch.conditions)
    found = table(estimate.spectype.numpy(), batch.spectype.numpy(), magnitude)
    yield "| i | class | n | completeness | purity | expected n |"
    yield "|---" * 6 + "|"
    for row in found:
        shares = (row["completeness"], row["purity"])
        percent = " | ".join("" if np.isnan(share) else f"{100 * share:.1f} %" for share in shares)
        yield f"| {row['magnitude']} | {row['class']} | {row['n']} | {percent} | {row['expected']:.0f} |"
    yield ""
    yield "p(z) of galaxies and quasars:"
    yield ""
    header = studies.SCORES[:5]
    yield f"| {' | '.join(header)} |"
    yield "|---" * len(header) + "|"
    mean = np.mean([measured(opened(run), held_out(opened(run), store))[:5] for run in runs], 0)
    yield f"| {' | '.join(studies.cells(mean))} |"


def of_stamps(run: Path, path: Path) -> Iterator[str]:
    """Probabilities of every real stamp, and what is known of it."""
    with np.load(path) as arrays:
        image, size, magnitude = (arrays[name] for name in ("images", "size_i_pix", "apmag_grizy"))
    probability = estimates(opened(run).load(torch.device("cpu")), torch.from_numpy(image)).spectype.tolist()
    yield f"| size in i, pixels | i | {' | '.join(f'P_{name}' for name in CLASSES)} |"
    yield "|---" * (2 + len(CLASSES)) + "|"
    for row in np.argsort(size):
        of_classes = " | ".join(f"{p:.3f}" for p in probability[row])
        yield f"| {size[row]:.2f} | {magnitude[row, 2]:.2f} | {of_classes} |"
    is_star, taken = size < STAR_SIZE, np.array(probability)[:, 0] > LIKELY
    yield f"\n{taken[is_star].sum()} of {is_star.sum()} stars, by their size, and {taken[~is_star].sum()} of "
    yield f"{(~is_star).sum()} others are LIKELY_STAR."


def main() -> None:
    options = studies.parser(__doc__, 12_000)
    options.add_argument("--stars", type=float, default=0.3)
    options.add_argument("--stamps", type=Path)
    arguments = options.parse_args()
    store = studies.drawn(arguments.folder, arguments.galaxies, (MAGNITUDE,), arguments.stars)
    common = {"epochs": arguments.epochs, "batch": arguments.batch, "model": studies.model_of(arguments)}
    recipes = [
        Train((store,), arguments.folder / "runs" / f"seed {seed}", seed=seed, **common)
        for seed in range(arguments.seeds)
    ]
    make_all(recipes)
    runs = [recipe.out for recipe in recipes]

    def body() -> Iterator[str]:
        yield from of_mock(runs, store)
        if arguments.stamps:
            yield "\nReal stamps of HSC:\n"
            yield from of_stamps(runs[0], arguments.stamps / "hsc_stamps64_grizy.npz")

    words = ["DATA" if word == str(arguments.stamps) else word for word in sys.argv[2:]]
    command = " ".join(["bench_classes.py", "FOLDER", *words])
    report.write("classes", "Stars, galaxies and quasars", command, body())


if __name__ == "__main__":
    main()
