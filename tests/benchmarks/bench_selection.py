"""Redshifts of the brighter and redder galaxies alone: does p(z) hold for the survey, and where does it not?

python tests/benchmarks/bench_selection.py FOLDER [--galaxies 12000] [--epochs 3] [--seeds 2] [--small]

FOLDER keeps a mock survey of HSC, the same with redshifts of a selection alone, and the runs. The selection
is soft: the chance of a spectrum rises with brightness in i and with the colour g - i, half have one. Models
are judged on the test split of the whole survey.
"""

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
import torch
from studies import held_out, make_all, opened, part

from catalogs.products.model_input import ModelInput
from catalogs.store.cutouts import open_store
from mmae.bundles.bundle import Bundle
from mmae.bundles.likeness.selection import magnitudes
from mmae.bundles.program import estimates
from mmae.layers import pdf
from mmae.layers.pdf import Grid
from mmae.models.batch import Batch
from mmae.models.mmae_config import ModelConfig
from mmae.recalibrate import Recalibrate
from mmae.recalibrate import main as recalibrate
from mmae.training.data import VALIDATION, sky_noise, split
from mmae.training.recipe import Train

SOFTNESS = 0.5
"""Of the selection, in units of the scatter of magnitude and colour."""
BINS = 5
HEADER = [
    *("trained on", *studies.SCORES[:5]),
    *(f"bias of the mean z, bin {k + 1}" for k in range(BINS)),
    "NO_SPECTRA_LIKE_IT",
    *("outliers there", "elsewhere", "68 % hold elsewhere"),
]


def selected(store: Path, bands: ModelConfig) -> np.ndarray:
    """Which galaxies (N,) of a survey have a spectrum: more of the bright and of the red ones."""
    opened_store = open_store(store)
    wanted = ModelInput(bands.bands, opened_store.zero_point, opened_store.pixel_scale, 2)
    parts, noise = [], None
    for start in range(0, opened_store.n, 512):
        image = wanted.read(opened_store, start, min(opened_store.n, start + 512)).image
        noise = torch.from_numpy(sky_noise(image)) if noise is None else noise
        parts.append(magnitudes(torch.from_numpy(image), noise.float(), bands.own_light))
    bright = torch.cat(parts).numpy()
    of_i, red = bright[:, 2], bright[:, 2] - bright[:, 0]
    score = sum((each - np.nanmedian(each)) / np.nanstd(each) for each in (of_i, red))
    return np.random.default_rng(1).random(len(score)) < 1 / (1 + np.exp(-score / SOFTNESS))


def judged(bundle: Bundle, galaxies: Batch) -> list[float]:
    """The figures of HEADER for galaxies of the survey."""
    estimate = estimates(bundle.load(torch.device("cpu")), galaxies.image, galaxies.conditions)
    grid, z = Grid(**bundle.card["grid"]), galaxies.redshift
    mass = estimate.mass / estimate.mass.sum(1, keepdim=True)
    best, expected = pdf.best(mass, grid)[0], pdf.mean(mass, grid)
    edges = best.quantile(torch.linspace(0, 1, BINS + 1))[1:-1]
    tomographic = torch.bucketize(best, edges)
    means = [(expected[tomographic == k].mean(), z[tomographic == k].mean()) for k in range(BINS)]
    unlike, outlier = estimate.backing > 1, ((best - z) / (1 + z)).abs() > 0.15
    elsewhere = type(estimate)(*(each[~unlike] for each in estimate))
    return [
        *studies.scores(estimate, grid, z)[:5],
        *(float((of_pdf - true) / (1 + true)) for of_pdf, true in means),
        *(float(share.float().mean()) for share in (unlike, outlier[unlike], outlier[~unlike])),
        studies.scores(elsewhere, grid, z[~unlike])[3],
    ]


def written(values: np.ndarray) -> list[str]:
    biases, shares = values[5 : 5 + BINS], values[5 + BINS : 8 + BINS]
    return [
        *studies.cells(values[:5].tolist()),
        *(f"{bias:+.4f}" for bias in biases),
        *(f"{share:.1%}" for share in shares),
        f"{values[-1]:.1f}",
    ]


def rows(bundles: dict[str, list[Path]], survey: Path, chosen: np.ndarray) -> Iterator[str]:
    yield f"{chosen.mean():.0%} of the galaxies have a spectrum.\n"
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    for name, of_seeds in bundles.items():
        opened_ones = [opened(run) for run in of_seeds]
        mean = np.mean([judged(bundle, held_out(bundle, survey)) for bundle in opened_ones], 0)
        yield f"| {name} | {' | '.join(written(mean))} |"


def main() -> None:
    options = studies.parser(__doc__, 12_000).parse_args()
    folder, model = options.folder, studies.model_of(options)
    survey = studies.drawn(folder, options.galaxies)
    store, chosen = open_store(survey), selected(survey, model)
    redshift = np.where(chosen, store.column("redshift"), np.nan)
    some = part(survey, folder / "selected.zarr", range(store.n), redshift=redshift)
    of_validation = split(store.column("object_id")) == VALIDATION
    for_widths = np.where(of_validation, redshift, np.nan)
    not_judged = part(survey, folder / "validation.zarr", range(store.n), redshift=for_widths)
    ways = {
        "all": Train((survey,)),
        "the selection": Train((some,), unlabelled=0.0),
        "the selection, --like the survey": Train((some,), unlabelled=0.0, like=survey),
    }
    common = {"epochs": options.epochs, "batch": options.batch, "model": model}
    recipes = {
        name: [
            dataclasses.replace(way, out=folder / "runs" / f"{name} {seed}", seed=seed, **common)
            for seed in range(options.seeds)
        ]
        for name, way in ways.items()
    }
    make_all(each for of_way in recipes.values() for each in of_way)
    bundles = {name: [each.out for each in of_way] for name, of_way in recipes.items()}
    again = []
    for run in bundles["the selection"]:
        again.append(folder / "recalibrated" / run.name)
        if not (again[-1] / "bundle" / "card.json").exists():
            recalibrate(Recalibrate(run / "bundle", not_judged, again[-1] / "bundle", like=survey))
    bundles["the selection, recalibrated --like the survey"] = again
    command = " ".join(["bench_selection.py", "FOLDER", *sys.argv[2:]])
    report.write("selection", "Spectra of a selection", command, rows(bundles, survey, chosen))


if __name__ == "__main__":
    main()
