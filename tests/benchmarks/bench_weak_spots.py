"""Where p(z) is worse than elsewhere, and where its intervals do not hold: by class, magnitude, redshift.

python tests/benchmarks/bench_weak_spots.py FOLDER [--galaxies 12000] [--judged 16000] [--epochs 3]
    [--seeds 2] [--small]

FOLDER keeps mock surveys of HSC, and the runs. Judged are the objects of another survey than that which was
trained on, in the mean of the seeds; a 68 % interval of n of them holds 68 % to within 47 / sqrt(n) %.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import report
import studies
import torch
from astropy.table import Table
from studies import data_for, opened

from mmae.bundles.program import estimates
from mmae.layers import pdf
from mmae.layers.pdf import Grid
from mmae.models.output import Estimate

HEADER = ["objects", "number", "bias", *studies.SCORES[:5]]
LEAST = 25
OTHER_SEED = 6
"""Of the survey that is judged."""


def groups(truth: Table, best: np.ndarray, typed: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Names of groups of the objects (N,), and which are in them."""
    z, i = np.asarray(truth["Z_SPEC"]), np.asarray(truth["MAG_HSC_I"])
    red = np.asarray(truth["MAG_HSC_G"]) - i
    galaxy = typed == "GALAXY"
    yield "all", np.ones(len(z), bool)
    yield "galaxies", galaxy
    yield "quasars", ~galaxy
    yield "quasars, 0.5 < z < 1", ~galaxy & (z > 0.5) & (z < 1)
    yield "quasars, 1 < z < 3", ~galaxy & (z > 1) & (z < 3)
    yield "quasars, z > 3", ~galaxy & (z > 3)
    for name, values in (("i", i), ("predicted z", best)):
        edges = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
        for low, high in itertools.pairwise(edges):
            yield f"{low:.2f} < {name} < {high:.2f}", (values >= low) & (values <= high)
    yield "galaxies, 20 < i < 21", galaxy & (i > 20) & (i < 21)
    yield "galaxies, z < 0.1", galaxy & (z < 0.1)
    for low, high in ((0.1, 0.4), (0.4, 1.0)):
        inside = galaxy & (z > low) & (z < high)
        middle = np.median(red[inside])
        yield f"the bluer half, {low} < z < {high}", inside & (red < middle)
        yield f"the redder half, {low} < z < {high}", inside & (red >= middle)


def judged(run: Path, store: Path, truth: Table) -> dict[str, list[float]]:
    bundle = opened(run)
    data = data_for(bundle, store)
    rows = np.flatnonzero(data.usable)
    batch = data.read(rows)
    estimate = estimates(bundle.load(torch.device("cpu")), batch.image, batch.conditions)
    place = np.searchsorted(truth["OBJECT_ID"], data.object_id[rows])
    known, grid = truth[place], Grid(**bundle.card["grid"])
    assert (known["OBJECT_ID"] == data.object_id[rows]).all()
    mass = estimate.mass / estimate.mass.sum(1, keepdim=True)
    best, z = pdf.best(mass, grid)[0].numpy(), batch.redshift
    dz = (best - z.numpy()) / (1 + z.numpy())
    found = {}
    for name, inside in groups(known, best, np.asarray(known["SPECTYPE"]).astype(str)):
        chosen = torch.from_numpy(inside)
        if inside.sum() >= LEAST:
            part = Estimate(*(each[chosen] for each in estimate))
            scores = studies.scores(part, grid, z[chosen])[:5]
            found[name] = [float(inside.sum()), float(np.median(dz[inside])), *scores]
    return found


def rows(store: Path, truth: Table, runs: list[Path]) -> Iterator[str]:
    yield f"| {' | '.join(HEADER)} |"
    yield "|---" * len(HEADER) + "|"
    of_runs = [judged(run, store, truth) for run in runs]
    for name in of_runs[0]:
        number, bias, *scores = np.mean([found[name] for found in of_runs if name in found], 0).tolist()
        yield f"| {name} | {number:.0f} | {bias:+.4f} | {' | '.join(studies.cells(scores))} |"


def main() -> None:
    parser = studies.parser(__doc__, 12_000)
    parser.add_argument("--judged", type=int, default=16_000)
    arguments = parser.parse_args()
    _, runs = studies.with_seeds("all", arguments)
    others = arguments.folder / "others"
    store = studies.drawn(others, arguments.judged, seed=OTHER_SEED)
    truth = Table.read(others / "galaxies.truth.fits")
    truth.sort("OBJECT_ID")
    command = " ".join(["bench_weak_spots.py", "FOLDER", *sys.argv[2:]])
    body = rows(store, truth, runs)
    report.write("weak_spots", "Where p(z) is worse than elsewhere", command, body)


if __name__ == "__main__":
    main()
