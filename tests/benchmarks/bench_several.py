"""One model of three surveys beside a model of each: the same galaxies in HSC, Rubin and Legacy.

python tests/benchmarks/bench_several.py FOLDER [--galaxies 12000] [--epochs 3] [--batch 64] [--seeds 2]

FOLDER keeps mock surveys and runs; what is there already is not made again. The model of all three sees as
many galaxies of each survey as its own model does. The test split is the same in all surveys, whose objects
have the same ids.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
from studies import held_out, make_all, measured, opened

from catalogs.mock.cameras import Survey
from catalogs.mock.survey import Mock
from catalogs.mock.survey import main as mock
from mmae.training.recipe import Train

OTHERS: tuple[Survey, ...] = ("rubin", "legacy")
ALL = "all three"
HEADER = ["survey", "model of", *studies.SCORES[:5], "ratio of sigma_NMAD, by seed"]


def drawn(folder: Path, survey: Survey, galaxies: int) -> Path:
    """The training store of a survey other than HSC, drawn once."""
    store = folder / survey / "train.zarr"
    if not store.exists():
        mock(Mock(folder / survey, survey=survey, galaxies=galaxies, tile=1, seed=5))
    return store


def rows(stores: dict[str, Path], runs: dict[str, list[Path]]) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    for survey, store in stores.items():
        own = None
        for name in (survey, ALL):
            each = np.array([measured(opened(run), held_out(opened(run), store))[:5] for run in runs[name]])
            own = each[:, 0] if own is None else own
            ratios = " ".join(f"{ratio:.2f}" for ratio in each[:, 0] / own)
            yield f"| {survey} | {name} | {' | '.join(studies.cells(each.mean(0)))} | {ratios} |"


def main() -> None:
    arguments = studies.parser(__doc__, 12_000).parse_args()
    folder = arguments.folder
    stores = {"hsc": studies.drawn(folder / "hsc", arguments.galaxies)}
    stores |= {survey: drawn(folder, survey, arguments.galaxies) for survey in OTHERS}
    of_models = {name: (store,) for name, store in stores.items()}
    of_models[ALL] = tuple(stores.values())
    recipes = {
        name: [
            Train(
                paths,
                folder / "runs" / f"{name} {seed}",
                epochs=arguments.epochs,
                batch=arguments.batch,
                seed=seed,
                model=studies.model_of(arguments),
            )
            for seed in range(arguments.seeds)
        ]
        for name, paths in of_models.items()
    }
    make_all(each for of_model in recipes.values() for each in of_model)
    runs = {name: [each.out for each in of_model] for name, of_model in recipes.items()}
    command = " ".join(["bench_several.py", "FOLDER", *sys.argv[2:]])
    report.write("several_surveys", "One model of three surveys", command, rows(stores, runs))


if __name__ == "__main__":
    main()
