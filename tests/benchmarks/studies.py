"""Trainings of a study, two at a time on one core each, and how good their bundles are."""

import argparse
import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from catalogs.ingest import Ingest
from catalogs.ingest import main as ingest
from catalogs.mock.survey import Mock
from catalogs.mock.survey import main as mock
from catalogs.products.screen import ATYPICAL
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from mmae import export, train
from mmae.bundles.bundle import Bundle, open_bundle
from mmae.bundles.program import estimates
from mmae.hardware import FP32
from mmae.layers import pdf
from mmae.layers.pdf import Grid
from mmae.models.batch import Batch, pooled
from mmae.models.families import AnyModel, config_of
from mmae.models.mmae_config import ModelConfig
from mmae.models.output import Estimate
from mmae.scores.line_scores import LineFits
from mmae.scores.lines import signal_to_noise
from mmae.scores.masking_study import FIGURE_1, draw_masks
from mmae.scores.metrics import hsc_loss, outliers, sigma_nmad
from mmae.scores.rebuilding import Survey, Truth, rebuild, rebuilt_lines, true_lines
from mmae.scores.rebuilding import scores as rebuilding_scores
from mmae.training.data import TEST, TrainingSet
from mmae.training.recipe import Train

SMALL = ModelConfig(embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1)
"""p(z) of photometry as in the usual model, and the least beside it."""
SCORES = ["sigma_NMAD", "outliers", "HSC loss", "68 % hold", "95 % hold", "median width", "ATYPICAL"]


def parser(description: str, galaxies: int) -> argparse.ArgumentParser:
    """Of the command line of a study: FOLDER, which keeps its stores and runs, and sizes."""
    options = argparse.ArgumentParser(description=description.partition("\n")[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--galaxies", type=int, default=galaxies)
    options.add_argument("--epochs", type=int, default=3)
    options.add_argument("--batch", type=int, default=64)
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--small", action="store_true", help="a trunk of one layer, for slow machines")
    return options


def model_of(options: argparse.Namespace) -> ModelConfig:
    """The model of a study, by its command line."""
    return SMALL if options.small else ModelConfig()


def drawn(
    folder: Path, galaxies: int, columns: Sequence[str] = (), stars: float | None = None, seed: int = 5
) -> Path:
    """A training store of HSC's mock, drawn once."""
    store = folder / "train.zarr"
    if not store.exists():
        if not (folder / "galaxies.hdf5").exists():
            mock(Mock(folder, galaxies=galaxies, tile=1, seed=seed, stars=stars))
        ingest(Ingest(folder / "galaxies.hdf5", store, columns=tuple(columns)))
    return store


def part(source: Path, path: Path, rows: range, without: Sequence[str] = (), **columns: np.ndarray) -> Path:
    """A store of some rows of another, without labels or spectra; columns (N,): in place of its own."""
    if path.exists():
        return path
    store = open_store(source)
    names = ["object_id", "ra", "dec", "redshift", "flux", "ivar"]
    names = [name for name in names if name not in without]
    has_spectra = "flux" in names

    def block(start: int, stop: int) -> dict[str, np.ndarray]:
        span = rows.start + start, rows.start + stop
        values = {name: store.column(name, *span) for name in names}
        replaced = {name: column[span[0] : span[1]] for name, column in columns.items()}
        return values | {"image": store.images(*span)[0]} | replaced

    known = ("redshift",) if "redshift" in names and not has_spectra else ()
    cutouts.write(
        path,
        block,
        n=len(rows),
        survey=store.survey,
        bands=store.bands,
        wave=store.wave if has_spectra else None,
        known=known,
    )
    return path


def make(recipe: Train) -> None:
    """The bundle of a recipe, made once."""
    if not (recipe.out / "bundle" / "card.json").exists():
        recipe.out.mkdir(parents=True, exist_ok=True)
        with (recipe.out / "log").open("a") as log, contextlib.redirect_stdout(log):
            train.main(recipe)
            export.main(export.Export(recipe.out))


def make_all(recipes: Iterable[Train]) -> None:
    """The bundles of recipes, two at a time."""
    with ProcessPoolExecutor(
        2, get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)
    ) as pool:
        list(pool.map(make, recipes))


def with_seeds(name: str, options: argparse.Namespace, own_light: bool = True) -> tuple[Path, list[Path]]:
    """The training store of HSC's mock, and runs on it with each seed; made once."""
    store = drawn(options.folder, options.galaxies)
    model = replace(model_of(options), own_light=own_light)
    common = {"epochs": options.epochs, "batch": options.batch, "model": model}
    recipes = [
        Train((store,), options.folder / "runs" / f"{name} {seed}", seed=seed, **common)
        for seed in range(options.seeds)
    ]
    make_all(recipes)
    return store, [recipe.out for recipe in recipes]


def opened(run: Path) -> Bundle:
    return open_bundle(run / "bundle", FP32)


def data_for(bundle: Bundle, store: Path) -> TrainingSet:
    """A store as a bundle takes it."""
    card = bundle.card
    return TrainingSet(store, config_of(card["family"], card["model_config"]), card["training_data"])


def held_out(bundle: Bundle, store: Path) -> Batch:
    """The galaxies of the test split of a store as a bundle takes them."""
    data = data_for(bundle, store)
    return data.read(data.rows(TEST))


def whole(bundle: Bundle, store: Path) -> Batch:
    """All galaxies of a store that was not trained on, as a bundle takes them."""
    data = data_for(bundle, store)
    return data.read(np.flatnonzero(data.usable))


def measured(bundle: Bundle, batch: Batch, conditions: Tensor | None = None) -> list[float]:
    """The SCORES of a bundle for objects with redshifts; conditions: in place of their own."""
    told = batch.conditions if conditions is None else conditions
    program = bundle.load(torch.device("cpu"))
    return scores(estimates(program, batch.image, told), Grid(**bundle.card["grid"]), batch.redshift)


def scores(estimate: Estimate, grid: Grid, redshift: Tensor) -> list[float]:
    """The SCORES of estimates."""
    mass = estimate.mass / estimate.mass.sum(1, keepdim=True)
    levels = torch.tensor([0.025, 0.16, 0.84, 0.975]).expand(len(mass), -1)
    low95, low68, high68, high95 = pdf.quantiles(mass, grid, levels).unbind(1)
    best, z = pdf.best(mass, grid)[0].numpy(), redshift.numpy()
    held = [
        100 * float(((low <= redshift) & (redshift <= high)).float().mean())
        for low, high in ((low68, high68), (low95, high95))
    ]
    width = float(((high68 - low68) / 2 / (1 + redshift)).median())
    unlike = float((estimate.typical < ATYPICAL).float().mean())
    return [sigma_nmad(best, z), outliers(best, z), hsc_loss(best, z), *held, width, unlike]


def rebuilt(model: AnyModel, truth: Truth, survey: Survey) -> tuple[LineFits, dict[str, np.ndarray]]:
    """Lines and scores of galaxies rebuilt from a quarter of their images and of their spectra."""
    true, noise = true_lines(truth, survey)
    masks = draw_masks(truth.object_id, model.config, FIGURE_1)
    galaxies = rebuild(model, truth.image, truth.spectrum, *masks)
    wave = pooled(survey.wave, model.config)
    lines = rebuilt_lines(galaxies, truth, wave, signal_to_noise(true, noise))
    return LineFits(true, lines, noise, truth.redshift), rebuilding_scores(galaxies, truth, model, survey)


def cells(values: Sequence[float]) -> list[str]:
    """SCORES, or the first of them, as they are written in a table."""
    return [f"{x:.1f}" if "hold" in name else f"{x:.4f}" for name, x in zip(SCORES, values, strict=False)]
