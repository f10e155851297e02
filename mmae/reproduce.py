"""`mmae reproduce`: the paper's measurements of a trained model, and further ones.

Galaxies are read once, batch by batch: each is rebuilt at every ratio of masks and with every data loss, and
only its scores are kept. Scores are defined where they are computed (mmae/scores).
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.reproduce", "Reproduce")

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from astropy.table import Table
from matplotlib.figure import Figure
from tyro.conf import Positional

from catalogs.bands import HSC, match
from catalogs.errors import InputRefused
from catalogs.output import check_output_folder
from catalogs.place_flag import PlaceFlag
from catalogs.ranges import check_range
from mmae import cli
from mmae.bundles.program import Program, program_of
from mmae.models import checkpoint
from mmae.models.batch import Batch, pooled
from mmae.models.families import AnyModel
from mmae.models.mmae_config import ModelConfig
from mmae.progress import bar
from mmae.scores import line_scores, masking_study, photoz_scores, physical_masks, report_page
from mmae.scores import reproduce_figures as figures
from mmae.scores.line_scores import CLEAR_SNR, LineFits
from mmae.scores.lines import LINES, signal_to_noise
from mmae.scores.masking_study import FIGURE_1, FIGURE_2, Ratio
from mmae.scores.rebuilding import (
    Survey,
    Truth,
    flat_scores,
    rebuild,
    rebuilt_lines,
    true_lines,
    truth_of,
)
from mmae.scores.reconstruction import Reconstruction
from mmae.training.batches import batches
from mmae.training.data import TrainingSet, sample_test_rows, sky_noise
from mmae.training.made_with import is_held_out

BATCH = 64
SKY_ROWS = 1024
"""Galaxies from which the sky noise is measured."""
FIGURE_GALAXIES = 3
"""Galaxies drawn for each of the paper's figures 1 and 2."""
FIGURE_LINES = {FIGURE_1: ("Hα",), FIGURE_2: ("Lyα", "C IV")}
"""Lines measured in those figures; the first must be clear in the true spectrum."""
FIGURE_REDSHIFTS = {FIGURE_1: (0.05, 0.25), FIGURE_2: (2.0, 2.6)}
"""Redshift ranges of those galaxies."""

Measured = dict[Any, Any]
"""Arrays of all galaxies, by name, or in nested dictionaries."""
MAX_OBJECTS, MAX_SEEDS = 10**7, 1000


@dataclass(frozen=True)
class Reproduce:
    """Measure a trained model as in its paper, and beyond the paper: tables, figures, one page.

    Uses galaxies that the model has not seen: of the test split, or of all of a store with none that it was
    made with (which is told where the training store still is where it was). Writes into one folder

    - report.md: everything below on one page, in the order of the paper; read this
    - reconstruction: hidden pixels in units of the sky noise; flux, colour, size and shape of the galaxy;
      chi2 and slope of the spectrum; by magnitude
    - lines, ratios: emission lines in the rebuilt spectrum against the true one: the fraction detected, and
      the errors of centre, height, width and flux
    - photoz: scatter of the redshift with 0 and 25 % of the image hidden, over several masks (figure 3)
    - masking: the above as a function of how much is hidden
    - losses: a missing band, a bleed trail, a detector gap, bad pixels, sky lines, a lost arm of the
      spectrograph
    - galaxies as in figures 1 and 2: the first of the test split, in the order of the store, with the line

    each table as .ecsv, and all numbers as scores.json (name -> number, null where there is nothing to
    measure), so that two models can be compared. Every galaxy is rebuilt some thirty times: a CPU core does
    about one a second.
    """

    checkpoint: Positional[Path]
    """A run directory (its best checkpoint is taken) or a checkpoint file, of either model."""
    data: Positional[PlaceFlag]
    """Training store (`mmae ingest`)."""
    out: Path | None = None
    """Folder for all files; by default `reproduction` in the run directory."""
    objects: int = 1000
    """Galaxies to measure, chosen at random, or all that the model has not seen if they are fewer."""
    seeds: int = 5
    """Masks of 25 % of the image over which the scatter of the redshift is averaged."""

    def __post_init__(self) -> None:
        check_range("--objects", self.objects, 1, MAX_OBJECTS)
        check_range("--seeds", self.seeds, 1, MAX_SEEDS)


def main(config: Reproduce) -> None:
    source = checkpoint.find(config.checkpoint)
    model, state = checkpoint.load_model(source)
    out = config.out or source.parent / "reproduction"
    check_output_folder(out)
    if None in match(HSC, model.config.bands):
        raise InputRefused(
            f"{source} is of the bands {' '.join(model.config.bands)}: the paper's figures are of "
            f"{' '.join(HSC)}; `mmae reconstruct` and `mmae evaluate` take any"
        )
    # spectra at the resolution of the store, for either model; images in all bands
    data = TrainingSet(config.data, ModelConfig(), state["data"], least_bands=len(HSC), complete=True)
    held_out = is_held_out(data.store, state)
    rows = np.sort(sample_test_rows(data, config.objects, seed=0, held_out=held_out))
    model.to("cuda" if torch.cuda.is_available() else "cpu")

    if data.left_out:
        print(data.left_out)

    out.mkdir(parents=True, exist_ok=True)
    sky = sky_noise(data.read(rows[:SKY_ROWS]).image.numpy())
    survey = Survey(data.wave, sky, data.input.zero_point)
    measured = measure(model, data, rows, survey, config.seeds)
    tables = tabulate(measured, survey)
    plots = dict(draw(model, data, survey, measured, tables))
    part = "none of which the model was made with" if held_out else "of its test split"
    heading = (
        f"Model {model.config.family}, step {state['step']} of `{source}`. {survey_name(data)}: "
        f"{len(measured['row'])} galaxies of `{config.data}`, {part}."
    )
    report_page.write(out, heading, tables, plots)
    print("\n".join(f"{name:<40} {value:.4g}" for name, value in headlines(tables).items()))
    print(f"wrote report.md, scores.json, {len(tables)} tables and {len(plots)} figures to {out}")


def survey_name(data: TrainingSet) -> str:
    """Name of the survey; that of mock galaxies says so wherever it is printed."""
    return "mock data" if data.store.survey == "mock" else data.store.survey


# ---------------------------------------------------------------- measuring


def measure(model: AnyModel, data: TrainingSet, rows: np.ndarray, survey: Survey, seeds: int) -> Measured:
    """All scores of all galaxies, (N,) or (N, L) each; memory is that of a few batches and of the scores."""
    program = program_of(model)
    parts = []
    with bar("galaxies") as progress:
        task = progress.add_task("", total=len(rows))
        start = 0
        for batch in batches(data, rows, BATCH, 0, 1):
            batch_rows = rows[start : start + len(batch.image)]
            truth = truth_of(data.object_id[batch_rows], batch)
            parts.append(measure_batch(model, program, truth, survey, seeds) | {"row": batch_rows})
            start += len(batch_rows)
            progress.update(task, completed=start)
    return joined(parts)


def measure_batch(model: AnyModel, program: Program, truth: Truth, survey: Survey, seeds: int) -> Measured:
    """All scores of a batch; `program` is the model's inference program for images."""
    true, noise = true_lines(truth, survey)
    wave = pooled_wave(survey, model)
    ratios, lines = {}, {}
    for ratio, rebuilt, scores in masking_study.evaluate(model, truth, survey):
        ratios[ratio] = scores
        if ratio in (FIGURE_1, FIGURE_2):
            lines[ratio] = rebuilt_lines(rebuilt, truth, wave, signal_to_noise(true, noise))
    losses = {}
    for loss, part, method in physical_masks.cases(model.config, survey):
        _, scores = physical_masks.evaluate(model, truth, survey, loss, part, method)
        losses[loss.name if loss else "none", part, method] = scores
    image = torch.from_numpy(truth.image).to(next(model.parameters()).device)
    photoz = photoz_scores.evaluate(program, model.config.grid, image, truth.object_id, seeds)
    return {
        "redshift": truth.redshift,
        "i flux": truth.galaxy.flux,
        "flat": flat_scores(truth, survey),
        "ratios": ratios,
        "losses": losses,
        "lines": {"true": true, "noise": noise, "rebuilt": lines},
        "photoz": photoz,
    }


def pooled_wave(survey: Survey, model: AnyModel) -> np.ndarray:
    """Wavelengths (L,) at the resolution of the model, angstrom."""
    return pooled(survey.wave, model.config)


def joined(parts: list[Measured]) -> Measured:
    """Concatenate the arrays of batches."""
    first = parts[0]
    return {
        name: joined([part[name] for part in parts])
        if isinstance(value, dict)
        else np.concatenate([part[name] for part in parts])
        for name, value in first.items()
    }


def line_fits(measured: Measured, ratio: Ratio) -> LineFits:
    lines = measured["lines"]
    return LineFits(lines["true"], lines["rebuilt"][ratio], lines["noise"], measured["redshift"])


# ---------------------------------------------------------------- tables


def tabulate(measured: Measured, survey: Survey) -> dict[str, Table]:
    """All tables, in the order of the page."""
    z_spec = measured["redshift"]
    fits = {masking_study.label(ratio): line_fits(measured, ratio) for ratio in (FIGURE_2, FIGURE_1)}
    rebuilt = {masking_study.label(ratio): measured["ratios"][ratio] for ratio in (FIGURE_1, FIGURE_2)}
    return {
        "reconstruction": masking_study.reconstruction_table(
            rebuilt | {"flat": measured["flat"]}, measured["i flux"], survey.zero_point
        ),
        "lines": stacked({hidden: line_scores.scorecard(part) for hidden, part in fits.items()}),
        "ratios": stacked({hidden: line_scores.ratio_table(part) for hidden, part in fits.items()}),
        "photoz": photoz_scores.table(measured["photoz"], z_spec),
        "masking": masking_study.table(measured["ratios"], z_spec),
        "losses": physical_masks.table(measured["losses"], z_spec),
    }


def stacked(tables: dict[str, Table]) -> Table:
    """Stack tables of the same columns, with a first column of what was hidden."""
    rows = [{"hidden": hidden, **dict(row)} for hidden, table in tables.items() for row in table]
    return Table(rows=rows)


def headlines(tables: dict[str, Table]) -> dict[str, float]:
    """The numbers that the command prints."""
    photoz, lines = tables["photoz"], tables["lines"]
    summary = lines[(lines["line"] == line_scores.ALL) & (lines["true S/N"] == f">{CLEAR_SNR:g}")]
    numbers = {
        f"sigma_NMAD, {row['range']}, {100 * row['hidden']:g} % hidden": row["sigma_NMAD"] for row in photoz
    }
    for row in tables["reconstruction"][tables["reconstruction"]["galaxies"] == "all"]:
        numbers |= {f"{name}, {row['hidden']}": row[name] for name in ("rms error", "chi2")}
    for row in summary:
        for name in ("detected", "centre error", "height error", "width error"):
            numbers[f"lines S/N > {CLEAR_SNR:g}: {name}, {row['hidden']}"] = row[name]
    return {name: float(value) for name, value in numbers.items() if not math.isnan(value)}


# ---------------------------------------------------------------- figures


def draw(
    model: AnyModel, data: TrainingSet, survey: Survey, measured: Measured, tables: dict[str, Table]
) -> Iterator[tuple[str, Figure]]:
    """All figures by name."""
    rows = measured["row"]
    for number, ratio in ((1, FIGURE_1), (2, FIGURE_2)):
        for row in figure_galaxies(measured, ratio):
            name = f"figure{number}_{data.object_id[rows[row]]}"
            yield name, draw_galaxy(model, data, rows[row], survey, figure_lines(measured, ratio, row), ratio)
    cards = {hidden: tables["lines"][tables["lines"]["hidden"] == hidden] for hidden in ("0/100", "75/75")}
    yield "lines", figures.lines(line_fits(measured, FIGURE_2), cards)
    z_phot = measured["photoz"][photoz_scores.SHARES[0], 0]
    yield "figure3", figures.redshifts(z_phot, measured["redshift"], tables["photoz"], survey_name(data))
    yield "masking", figures.masking(tables["masking"])
    waves = survey.wave, pooled_wave(survey, model)
    bright = truth_at(data, rows[[upper_decile(measured["i flux"])]])
    yield "losses", figures.losses(list(examples(model, bright, survey)), tables["losses"], waves)


def upper_decile(values: np.ndarray) -> int:
    """Index of the 90th percentile of values (N,), without NaN."""
    return int(np.argsort(values)[np.isfinite(values).sum() * 9 // 10])


def truth_at(data: TrainingSet, rows: np.ndarray) -> Truth:
    return truth_of(data.object_id[rows], data.read(rows))


def figure_galaxies(measured: Measured, ratio: Ratio) -> np.ndarray:
    """Rows of the first galaxies in the redshift range of a figure whose line is clear and was hidden."""
    fits, (low, high) = line_fits(measured, ratio), FIGURE_REDSHIFTS[ratio]
    line = list(LINES).index(FIGURE_LINES[ratio][0])
    inside = (fits.redshift >= low) & (fits.redshift < high)
    return np.flatnonzero(inside & (fits.signal_to_noise[:, line] > CLEAR_SNR))[:FIGURE_GALAXIES]


def figure_lines(measured: Measured, ratio: Ratio, row: int) -> dict[str, tuple[np.void, np.void | None]]:
    """Fits of the evaluated lines of a figure in one galaxy: true, and rebuilt or None if not detected."""
    fits, names = line_fits(measured, ratio), list(LINES)
    detected = line_scores.detected(fits)
    columns = {name: names.index(name) for name in FIGURE_LINES[ratio]}
    return {
        name: (fits.true[row, k], fits.rebuilt[row, k] if detected[row, k] else None)
        for name, k in columns.items()
        if fits.evaluated[row, k]
    }


def draw_galaxy(
    model: AnyModel,
    data: TrainingSet,
    row: int,
    survey: Survey,
    fits: dict[str, tuple[np.void, np.void | None]],
    ratio: Ratio,
) -> Figure:
    truth = truth_at(data, np.array([row]))
    masks = masking_study.draw_masks(truth.object_id, model.config, ratio)
    rebuilt = rebuild(model, truth.image, truth.spectrum, *masks)
    inputs = truth.image, pooled(truth.spectrum, model.config), truth.redshift
    image, spectrum, redshift = (torch.from_numpy(array) for array in inputs)
    batch = Batch(*(part[0] for part in Batch.of_pairs(image, spectrum, redshift)))
    first = Reconstruction(*(tensor[0] for tensor in rebuilt))
    wave = pooled_wave(survey, model)
    return figures.galaxy(str(truth.object_id[0]), wave, batch, first, fits, survey.zero_point)


def examples(model: AnyModel, truth: Truth, survey: Survey) -> Iterator[figures.Example]:
    """A galaxy with each data loss, rebuilt with the affected tokens hidden unless those are all."""
    rebuilt = {}
    for loss, part, method in physical_masks.cases(model.config, survey):
        if loss and method == physical_masks.TOKENS:
            reconstruction, _ = physical_masks.evaluate(model, truth, survey, loss, part, method)
            rebuilt[loss.name] = Reconstruction(*(tensor[0] for tensor in reconstruction))
    for loss in physical_masks.data_losses(survey):
        image, spectrum, _ = physical_masks.degraded(loss, truth, model.config.least_bands)
        true = truth.image[0], truth.spectrum[0]
        yield figures.Example(loss, image[0], spectrum[0], true, rebuilt.get(loss.name), survey.zero_point)
