"""Ablation of our model and its recipe: from the paper's to ours, one change per row.

python tests/benchmarks/bench_ablation.py STORE RUNS [--epochs 2] [--rebuilt 400]

Trains every row on the same galaxies for the same epochs, the ends of the table with three seeds, and
measures each on the test split: redshifts of all galaxies, and reconstructions of some. Results that are
already in RUNS are reused.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import report
import torch
from sklearn.ensemble import HistGradientBoostingRegressor
from torch import Tensor

from mmae import cli, train
from mmae.bundles.program import program_of
from mmae.bundles.rounding import reduce_precision
from mmae.hardware import BF16, FP32, has_bf16
from mmae.layers.image_fit import ImageFit
from mmae.layers.patches import known_pixels, patches
from mmae.layers.photometric_pdf import PhotometricPdf
from mmae.layers.photometry import Photometry
from mmae.models import checkpoint
from mmae.models.batch import Batch
from mmae.models.masking import Masks
from mmae.models.mmae import Model
from mmae.models.mmae_config import ModelConfig
from mmae.models.output import Output
from mmae.scores import line_scores, photoz_scores
from mmae.scores.line_scores import LineFits
from mmae.scores.metrics import EDGES, point_metrics
from mmae.scores.rebuilding import Survey, truth_of
from mmae.training.batches import batches
from mmae.training.data import TEST, TRAIN, TrainingSet, sky_noise
from mmae.training.recipe import Train

COMMON = ("--batch", "64")
ARITHMETIC = BF16 if has_bf16() else FP32
"""Precision of training and of inference; without hardware support bf16 is slower than fp32."""
SEEDS, INFERENCE_BATCHES = 3, 20
PAPER = ("--preset", "himes2025")
PAPER_RECIPE = (
    *("--lr", "1e-4", "--schedule", "constant", "--weight-decay", "0.01", "--average", "0"),
    *("--image-mask", "0.75", "0.75", "--whole-images", "0"),
    *("--spectrum-dropout", "0.5", "--dropout-of", "steps", "--no-rebuild-absent", "--no-turn"),
)
CHANGES = {
    "the rate: 3e-3, one cycle": ("--lr", "3e-3", "--schedule", "one-cycle", "--weight-decay", "0.05"),
    "0 to 75 % of images hidden, in half of the steps none": (
        *("--image-mask", "0", "0.75"),
        *("--whole-images", "0.5"),
    ),
    "70 % of galaxies, not 50 % of steps, without spectrum; rebuilt all the same": (
        *("--spectrum-dropout", "0.7", "--dropout-of", "galaxies"),
        "--rebuild-absent",
    ),
    "turned and flipped": ("--turn",),
    "averaged weights": ("--average", "0.998"),
}
"""Changes of the recipe from the paper's to ours, cumulative."""


def without_photometry() -> None:
    Photometry.fit = lambda self, pixels, weights: self.whiten.zero_()  # type: ignore[method-assign]


def without_photometric_pdf() -> None:
    """p(z) is what the trunk says, and nothing that photometry says alone."""

    def nothing(self: PhotometricPdf, measured: Tensor, *_: Tensor) -> Tensor:
        return measured.new_zeros(len(measured), len(self.out))

    PhotometricPdf.forward = nothing  # type: ignore[method-assign]


def without_image_fit() -> None:
    ImageFit.forward = lambda self, pixels, *_: torch.zeros_like(pixels)  # type: ignore[method-assign]


def by_running_means() -> None:
    """Divide every loss by its running mean over about a hundred steps."""
    means, losses, parts = torch.ones(3), Model.losses, ("image", "spectrum", "redshift")

    def recorded(self: Model, *inputs: Any) -> Tensor:
        values = losses(self, *inputs)
        if self.training:  # an image loss of 0 is that of a step without masks
            means.lerp_(torch.where(values > 0, values, means).detach(), 0.01)
        return values

    Model.losses = recorded  # type: ignore[method-assign]
    scaled = property(lambda self: dict(zip(parts, (1 / means).tolist(), strict=True)))
    Model.loss_weights = scaled  # type: ignore[assignment]


def with_slopes() -> None:
    """Add a loss of the slope of each spectrum, that of a straight line through it."""
    losses = Model.losses

    def with_slope_loss(self: Model, output: Output, batch: Batch, masks: Masks) -> Tensor:
        axis = torch.linspace(-1, 1, output.spectrum.shape[1])
        error = ((output.spectrum - batch.spectrum) * axis).mean(1) / axis.square().mean()
        return losses(self, output, batch, masks) + torch.tensor([0.0, 1.0, 0.0]) * error.abs().mean()

    Model.losses = with_slope_loss  # type: ignore[method-assign]


MODEL_CHANGES: dict[str, Callable[[], None]] = {
    "without photometry": without_photometry,
    "without p(z) from photometry alone": without_photometric_pdf,
    "without the fit of images": without_image_fit,
    "losses over their running means": by_running_means,
    "a loss of the continuum's slope": with_slopes,
}
"""Changes of our model that have no flag."""
SCORES = "ablation.json"
PHOTOZ_SCORES = {"all": "sigma_NMAD", "bias": "bias", "outliers": "|dz|>0.15", "HSC loss": "HSC loss"}
PIXEL_SCORES = {"image error": "rms error", "spectrum chi2": "chi2"}
LINE_SCORES = {
    "lines found": "detected",
    "centre": "centre error",
    "height": "height error",
    "width": "width error",
}
"""Columns, and the names of their scores in metrics.py, rebuilding.py and line_scores.py."""


def rows() -> Iterator[tuple[str, tuple[str, ...], int]]:
    """Yield name, flags and number of seeds of each row."""
    yield "himes2025, its recipe", PAPER, SEEDS
    yield "mmae, recipe of himes2025", PAPER_RECIPE, 1
    flags = PAPER_RECIPE
    for name, change in CHANGES.items():
        flags = (*without(flags, change), *change)
        last = name == list(CHANGES)[-1]
        yield f"+ {name}" + (" = mmae" if last else ""), flags, SEEDS if last else 1
    yield "without rest-frame templates", (*flags, "--model.templates", "0"), 1
    for name in MODEL_CHANGES:
        yield name, flags, 1


def without(flags: tuple[str, ...], change: tuple[str, ...]) -> tuple[str, ...]:
    """Flags with their values, without those that the change sets."""
    changed = {word.replace("--no-", "--") for word in change if word.startswith("--")}
    kept, keep = [], True
    for word in flags:
        if word.startswith("--"):
            keep = word.replace("--no-", "--") not in changed
        if keep:
            kept.append(word)
    return tuple(kept)


def train_row(name: str, argv: list[str]) -> int:
    """Run `mmae train` on one thread, with the patch of a row that has no flag; in its own process."""
    torch.set_num_threads(1)
    if name in MODEL_CHANGES:
        MODEL_CHANGES[name]()
    return cli.run(train.main, Train, argv, "bench_ablation")


def one_thread(*command: object) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *map(str, command)], env=environment, check=True)


def job(config: argparse.Namespace, name: str, flags: tuple[str, ...], seed: int) -> Callable[[], None]:
    """A function that trains and measures a row, where that is not done yet."""
    out = folder(config, name, seed)

    def work() -> None:
        argv = [config.store, "--out", out, "--epochs", config.epochs, "--seed", seed, *COMMON, *flags]
        one_thread(__file__, "--train", name, *argv)
        if not (out / SCORES).exists():
            one_thread(__file__, "--measure", out, config.store, config.rebuilt)

    return work


def folder(config: argparse.Namespace, name: str, seed: int) -> Path:
    return config.runs / f"{''.join(c if c.isalnum() else '-' for c in name)}-{seed}"


def inference_rate(run: Path) -> float:
    """Median objects/s of the program on one thread, in batches of 64."""
    torch.set_num_threads(1)
    model, _ = checkpoint.load_model(checkpoint.find(run))
    image = torch.randn(64, 5, 64, 64)
    program = program_of(model)
    program = torch.jit.script(reduce_precision(program, image) if ARITHMETIC == BF16 else program)
    rates = []
    with torch.inference_mode():
        for _ in range(INFERENCE_BATCHES):
            began = time.perf_counter()
            program(image)
            rates.append(len(image) / (time.perf_counter() - began))
    return statistics.median(rates)


def training_rate(run: Path) -> float:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return statistics.median(line["samples_per_s"] for line in lines if "samples_per_s" in line)


def measure(run: Path, store: Path, rebuilt: int) -> None:
    """Write the scores of a run: redshifts of all images without spectra; some rebuilt at 75 % masks."""
    torch.set_num_threads(1)
    model, _ = checkpoint.load_model(checkpoint.find(run))
    program, grid = program_of(model), model.config.grid
    data = TrainingSet(store, ModelConfig())
    rows = data.rows(TEST)
    survey = Survey(data.wave, sky_noise(data.read(rows[:rebuilt]).image.numpy()), data.store.zero_point)
    z_phot, rebuilding, start = [], [], 0
    for batch in batches(data, rows, 64, 0, 1):
        object_id = data.object_id[rows[start : start + len(batch.image)]]
        z_phot.append(photoz_scores.evaluate(program, grid, batch.image, object_id, seeds=1))
        if start < rebuilt:
            rebuilding.append(rebuilt(model, truth_of(object_id, batch), survey))
        start += len(object_id)
    redshifts = {share: np.concatenate([z[share, 0] for z in z_phot]) for share in photoz_scores.SHARES}
    z_spec = data.redshift[rows]
    pixels = {name: np.concatenate([part[name] for _, part in rebuilding]) for name in PIXEL_SCORES.values()}
    fits = LineFits(*(np.concatenate(part) for part in zip(*(fits for fits, _ in rebuilding), strict=True)))
    lines = line_scores.scorecard(fits)[0]
    scores = {
        **redshift_scores(redshifts[0.0], z_spec),
        "25 % hidden": point_metrics(redshifts[0.25], z_spec)["sigma_NMAD"],
        **{label: line_scores.median(pixels[name]) for label, name in PIXEL_SCORES.items()},
        **{label: lines[name] for label, name in LINE_SCORES.items()},
        "inferred/s": inference_rate(run),
    }
    (run / SCORES).write_text(json.dumps({name: float(value) for name, value in scores.items()}, indent=1))


def redshift_scores(z_phot: np.ndarray, z_spec: np.ndarray) -> dict[str, float]:
    near, metrics = z_spec < EDGES[0], point_metrics(z_phot, z_spec)
    sigma = point_metrics(z_phot[near], z_spec[near])["sigma_NMAD"]
    return {"sigma_NMAD, z < 0.4": sigma} | {label: metrics[name] for label, name in PHOTOZ_SCORES.items()}


def boosted(store: Path) -> dict[str, float]:
    """Scores of gradient boosting on the same apertures (photometry.py): magnitudes and their colours."""
    data, photometry, features = TrainingSet(store, ModelConfig()), Photometry(5), {}
    for split in (TRAIN, TEST):
        rows = data.rows(split)
        if split == TRAIN:
            noise = torch.from_numpy(sky_noise(data.read(rows[:2048]).image.numpy())).view(-1, 1, 1)
        parts = []
        for batch in batches(data, rows, 512, 0, 1):
            image, known = known_pixels(batch.image)
            magnitudes, _ = photometry.measure(patches(image / noise), patches(known))
            parts.append(magnitudes.unflatten(1, (5, -1)))
        magnitudes = torch.cat(parts)
        colours = (magnitudes.diff(dim=1), magnitudes.diff(dim=2))
        features[split] = torch.cat([part.flatten(1) for part in (magnitudes, *colours)], 1).numpy(), rows
    (x, training), (x_test, test) = features[TRAIN], features[TEST]
    regressor = HistGradientBoostingRegressor(max_iter=400, learning_rate=0.05, random_state=0)
    regressor.fit(x, np.log1p(data.redshift[training]))
    return redshift_scores(np.expm1(regressor.predict(x_test)), data.redshift[test])


def table(config: argparse.Namespace) -> Iterator[str]:
    for number, (name, _, seeds) in enumerate(rows()):
        runs = [folder(config, name, seed) for seed in range(seeds)]
        results = [json.loads((run / SCORES).read_text()) | {"trained/s": training_rate(run)} for run in runs]
        if number == 0:
            yield "| | " + " | ".join(results[0]) + " |"
            yield "|---" * (1 + len(results[0])) + "|"
        cells = [shown([scores[column] for scores in results]) for column in results[0]]
        yield f"| {name} | " + " | ".join(cells) + " |"
    scores = boosted(config.store)
    cells = [shown([scores[column]]) if column in scores else "-" for column in results[0]]
    yield "| gradient boosting on apertures | " + " | ".join(cells) + " |"


def shown(values: list[float]) -> str:
    """Format the mean of seeds and their standard deviation."""
    spread = f" ± {statistics.stdev(values):.2g}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.3g}{spread}"


def main() -> int:
    if sys.argv[1:2] == ["--train"]:
        return train_row(sys.argv[2], sys.argv[3:])
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
        return 0
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("store", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rebuilt", type=int, default=400)
    config = parser.parse_args()
    ends_first = sorted(rows(), key=lambda row: -row[2])
    jobs = [job(config, name, flags, seed) for name, flags, seeds in ends_first for seed in range(seeds)]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(lambda work: work(), jobs))
    body = [
        f"Mock data. {config.epochs} epochs a row over the training split, batches of 64, {ARITHMETIC}, one "
        "thread a process. Redshifts of the test split from images alone: sigma_NMAD, bias, outliers "
        f"|dz| > 0.15 and HSC loss. {config.rebuilt} of its galaxies rebuilt at 75 % masks: rms error of "
        "hidden pixels in units of the sky noise, chi2 of hidden pixels of spectra, and of lines of S/N > 10 "
        "(line_scores.py) the share found and the errors of centre (A), height and width. "
        f"± is the standard deviation of {SEEDS} seeds.",
        "",
        *table(config),
    ]
    title = "From the paper's model to ours, one change a row"
    report.write("ablation", title, f"bench_ablation.py STORE RUNS --epochs {config.epochs}", body)
    return 0


if __name__ == "__main__":
    sys.exit(main())
