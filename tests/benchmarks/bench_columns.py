"""A model that takes magnitudes of catalogues beside images, with all, half and none of them.

python tests/benchmarks/bench_columns.py FOLDER [--galaxies 12000] [--epochs 3] [--seeds 2]

FOLDER keeps a mock survey of HSC, the same galaxies in Rubin's, and the runs. The columns are the cmodel
magnitudes of HSC's catalogue, and that in u of Rubin's, a band that HSC's images lack.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
import torch
from studies import held_out, make_all, measured, opened

from catalogs.mock.survey import Mock
from catalogs.mock.survey import main as mock
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from mmae.layers.conditions import split_told
from mmae.training.recipe import Train

COLUMNS = tuple(f"{band}_cmodel_mag" for band in "ugrizy")
HEADER = ["model", "columns at inference", *studies.SCORES[:5], "ratio of sigma_NMAD"]
SHARES = {"all": 0.0, "half missing, at random": 0.5, "none": 1.0}
"""Which are given at inference, and the share of them that is missing."""


def drawn(folder: Path, galaxies: int) -> Path:
    """The training store of HSC with the columns, drawn once."""
    path, rubin = folder / "columns.zarr", folder / "rubin" / "train.zarr"
    if not path.exists():
        hsc = open_store(studies.drawn(folder, galaxies, COLUMNS[1:]))
        if not rubin.exists():
            mock(Mock(rubin.parent, survey="rubin", galaxies=galaxies, tile=1, seed=5))
        u = open_store(rubin).further(COLUMNS[0])
        names = ("object_id", "ra", "dec", "redshift", "flux", "ivar")

        def block(start: int, stop: int) -> dict[str, np.ndarray | None]:
            own = {name: hsc.column(name, start, stop) for name in names}
            magnitudes = {f"columns/{name}": hsc.further(name, start, stop) for name in COLUMNS[1:]}
            magnitudes[f"columns/{COLUMNS[0]}"] = u[start:stop]
            return own | magnitudes | {"image": hsc.images(start, stop)[0]}

        cutouts.write(path, block, n=hsc.n, survey="mock", wave=hsc.wave, extra=COLUMNS)
    return path


def judged(run: Path, store: Path, missing: float) -> list[float]:
    """Scores where a share of the columns is missing."""
    bundle = opened(run)
    batch = held_out(bundle, store)
    told, columns = split_told(batch.conditions, len(bundle.input.bands), len(bundle.input.columns))
    hidden = torch.rand(columns.shape, generator=torch.Generator().manual_seed(0)) < missing
    conditions = torch.cat([told, columns.masked_fill(hidden, torch.nan)], 1)
    return measured(bundle, batch, conditions)[:5]


def rows(store: Path, without: list[Path], with_columns: list[Path]) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    base = np.mean([measured(opened(run), held_out(opened(run), store))[:5] for run in without], 0)
    yield f"| without columns | | {' | '.join(studies.cells(base))} | |"
    for name, missing in SHARES.items():
        mean = np.mean([judged(run, store, missing) for run in with_columns], 0)
        cells = " | ".join(studies.cells(mean))
        yield f"| with columns | {name} | {cells} | {mean[0] / base[0]:.2f} |"


def main() -> None:
    arguments = studies.parser(__doc__, 12_000).parse_args()
    store = drawn(arguments.folder, arguments.galaxies)
    common = {"epochs": arguments.epochs, "batch": arguments.batch, "model": studies.model_of(arguments)}
    recipes = [
        Train((store,), arguments.folder / "runs" / f"{name} {seed}", seed=seed, columns=columns, **common)
        for name, columns in (("without", ()), ("with", COLUMNS))
        for seed in range(arguments.seeds)
    ]
    make_all(recipes)
    runs = [recipe.out for recipe in recipes]
    command = " ".join(["bench_columns.py", "FOLDER", *sys.argv[2:]])
    body = rows(store, runs[: arguments.seeds], runs[arguments.seeds :])
    report.write("columns", "Magnitudes of a catalogue beside images", command, body)


if __name__ == "__main__":
    main()
