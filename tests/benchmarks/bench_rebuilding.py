"""How well hidden parts of images and spectra are rebuilt, by this version and by another.

python tests/benchmarks/bench_rebuilding.py FOLDER --before CHECKOUT [--galaxies 12000] [--epochs 3]
    [--seeds 2] [--judged 1000]

FOLDER keeps a mock survey, and the runs. Either version is trained on the same galaxies, in processes of its
own, and rebuilds the same galaxies of the test split with the same three quarters of the tokens hidden.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import report
import studies
import torch

from mmae import train
from mmae.models import checkpoint
from mmae.models.mmae_config import ModelConfig
from mmae.scores.image_scores import magnitude
from mmae.scores.line_scores import CLEAR_SNR, LineFits, flux, median, scorecard
from mmae.scores.lines import signal_to_noise
from mmae.scores.masking_study import FIGURE_1, MAGNITUDES, draw_masks
from mmae.scores.metrics import ranges
from mmae.scores.rebuilding import Survey, truth_of
from mmae.training.batches import batches
from mmae.training.data import TEST, TrainingSet, sky_noise
from mmae.training.recipe import Train

VERSIONS = ("before", "this")
MIDDLE = [27, 28, 35, 36]
"""The four tokens around the middle."""
SCORES = "rebuilding.json"
OF_IMAGES = {
    "median error of pixels": "median error",
    "error of flux of images": "flux error",
    "error of g - i, mag": "colour error",
    "error of the half-light radius": "radius error",
    "error of the ellipticity": "shape error",
}
OF_REDSHIFTS = {
    "sigma_NMAD": "sigma_NMAD",
    "outliers": "|dz|>0.15",
    "HSC loss": "HSC loss",
    "loss of spectra": "spectrum",
}
"""Names of scores in the table, and in image_scores.py and the log of a run."""


def measure(run: Path, store: Path, judged: int) -> dict[str, float]:
    """Scores of a run, by name."""
    model, _ = checkpoint.load_model(checkpoint.find(run))
    data = TrainingSet(store, ModelConfig())
    rows = data.rows(TEST)[:judged]
    survey = Survey(data.wave, sky_noise(data.read(rows[:400]).image.numpy()), data.store.zero_point)
    fits, scores, i, start = [], [], [], 0
    for batch in batches(data, rows, 64, 0, 1):
        truth = truth_of(data.object_id[rows[start : start + len(batch.image)]], batch)
        lines, values = studies.rebuilt(model, truth, survey)
        middle = draw_masks(truth.object_id, model.config, FIGURE_1)[0][:, MIDDLE].all(1)
        fits.append(lines)
        scores.append(values | {"middle": middle.numpy()})
        i.append(magnitude(truth.galaxy.flux, survey.zero_point))
        start += len(batch.image)
    of_all = {name: np.concatenate([part[name] for part in scores]) for name in scores[0]}
    lines = LineFits(*(np.concatenate(part) for part in zip(*fits, strict=True)))
    return of_images(of_all, np.concatenate(i)) | of_spectra(of_all, lines)


def of_images(scores: dict[str, np.ndarray], i: np.ndarray) -> dict[str, float]:
    rms = scores["rms error"]
    found = {
        f"rms error of images, {name}": median(rms[inside]) for name, inside in ranges("i", i, MAGNITUDES)
    }
    found["rms error of images, middle hidden"] = median(rms[scores["middle"]])
    found["rms error of images, middle seen in part"] = median(rms[~scores["middle"]])
    return found | {label: median(scores[name]) for label, name in OF_IMAGES.items()}


def of_spectra(scores: dict[str, np.ndarray], fits: LineFits) -> dict[str, float]:
    clear, rebuilt = scorecard(fits)[0], signal_to_noise(fits.rebuilt, fits.noise) > CLEAR_SNR
    true = rebuilt & np.isfinite(fits.signal_to_noise)
    return {
        "chi2 of spectra": median(scores["chi2"]),
        "lines of S/N > 10, their number": clear["n"],
        "of these found": clear["detected"],
        "lines found where there is none": clear["false lines"],
        "error of height of lines": clear["height error"],
        "error of width of lines": clear["width error"],
        "error of flux of lines": clear["flux error"],
        "height of lines, rebuilt / true": clear["height ratio"],
        "flux of lines rebuilt with S/N > 10, true / rebuilt": median(
            flux(fits.true)[true] / flux(fits.rebuilt)[true]
        ),
    }


def of_redshifts(run: Path) -> dict[str, float]:
    """Of the validation split, as the run reports it."""
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    *_, last = (line for line in lines if "sigma_NMAD" in line)
    return {label: last[name] for label, name in OF_REDSHIFTS.items()}


def make(store: Path, run: Path, seed: int, epochs: int, judged: int) -> None:
    """Train a run and keep its scores, each once; with the code that this process has."""
    torch.set_num_threads(1)
    if not (run / SCORES).exists():
        train.main(Train((store,), run, epochs=epochs, batch=64, seed=seed))
        scores = of_redshifts(run) | measure(run, store, judged)
        (run / SCORES).write_text(
            json.dumps({name: float(value) for name, value in scores.items()}, indent=1)
        )


def apart(tree: Path, *arguments: object) -> None:
    """Run `make` with the code of a checkout, in a process of one thread."""
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    subprocess.run(
        [sys.executable, __file__, "--make", *map(str, arguments)], env=environment, cwd=tree, check=True
    )


def table(runs: dict[str, list[Path]]) -> Iterator[str]:
    """A row for each score: means over seeds, and each seed in brackets."""
    yield "| | " + " | ".join(runs) + " |"
    yield "|---" * (1 + len(runs)) + "|"
    found = {name: [json.loads((run / SCORES).read_text()) for run in of] for name, of in runs.items()}
    for score in next(iter(found.values()))[0]:
        values = [[seed[score] for seed in seeds] for seeds in found.values()]
        cells = (f"{np.mean(of):.3g} ({', '.join(f'{value:.3g}' for value in of)})" for of in values)
        yield f"| {score} | {' | '.join(cells)} |"


def main() -> None:
    if sys.argv[1:2] == ["--make"]:
        store, run, *numbers = sys.argv[2:]
        make(Path(store), Path(run), *map(int, numbers))
        return
    parser = studies.parser(__doc__, 12_000)
    parser.add_argument("--before", type=Path, required=True)
    parser.add_argument("--judged", type=int, default=1000)
    options = parser.parse_args()
    store = studies.drawn(options.folder, options.galaxies)
    trees = dict(zip(VERSIONS, (options.before.resolve(), Path(__file__).parents[2]), strict=True))
    runs = {
        version: [options.folder.resolve() / "runs" / f"{version} {seed}" for seed in range(options.seeds)]
        for version in VERSIONS
    }
    with ThreadPoolExecutor(2) as pool:
        jobs = [
            pool.submit(
                apart, trees[version], store.resolve(), of[seed], seed, options.epochs, options.judged
            )
            for seed in range(options.seeds)
            for version, of in runs.items()
        ]
        for job in jobs:
            job.result()
    command = " ".join(["bench_rebuilding.py", "FOLDER", "--before", "CHECKOUT", *sys.argv[4:]])
    body = [
        f"Mock data of HSC and DESI: {options.galaxies} galaxies, {options.epochs} epochs, seeds: "
        f"{options.seeds}, each in brackets. Three quarters of the tokens of images and spectra of "
        f"{options.judged} galaxies of the test split are hidden. Errors of images are medians over "
        "galaxies: of hidden pixels, in units of the noise of the sky; of what is measured on the filled "
        "image. Those of redshifts are of whole images, of the validation split.",
        "",
        *table(runs),
    ]
    report.write("rebuilding", "Hidden parts, rebuilt", command, body)


if __name__ == "__main__":
    main()
