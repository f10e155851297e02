"""Scores of mostly hidden real and mock galaxies, rebuilt by a model and by baselines."""

from typing import NamedTuple

import numpy as np
import torch
from real_data import Cutouts, Library, round_galaxy, seen_mean, straight_lines

from catalogs.store.spectra import POOL, pool
from mmae.layers.patches import IMAGE_TOKENS
from mmae.models.families import AnyModel
from mmae.models.losses import spectrum_pixels
from mmae.scores.rebuilding import (
    Truth,
    filled_spectrum,
    hidden_tokens,
    image_errors,
    rebuild,
    spectrum_errors,
)
from mmae.scores.reconstruction import Reconstruction
from mmae.scores.spectrum_scores import COARSE

HIDDEN, MASKS = 0.75, 8
IMAGE_SEED, SPECTRUM_SEED = 100, 200
"""Seeds of the first masks."""
MODEL, ROUND, MEAN, NOTHING = "model", "round galaxy", "mean", "zero"
OWN, TWIN, ABSENT = "model, its own image", "model, the twin's image", "model, no image"
TWIN_SPECTRUM, STRAIGHT, FLAT = "the twin's spectrum", "straight lines", "flat"

Scores = dict[str, dict[str, np.ndarray]]
"""Scores by method and name: (MASKS, B)."""


def measure_images(model: AnyModel, these: Cutouts) -> tuple[Scores, Reconstruction]:
    """Scores of all methods that rebuild images; the model's reconstruction with the first mask."""
    truth, scores, reconstructions = these.truth, [], []
    no_spectrum = torch.ones(len(truth.image), model.config.spectrum_tokens, dtype=torch.bool)
    for number in range(MASKS):
        mask = hidden_tokens(truth.object_id, IMAGE_TOKENS, HIDDEN, IMAGE_SEED + number)
        reconstructions.append(rebuild(model, truth.image, truth.spectrum, mask, no_spectrum))
        hidden = reconstructions[-1].image_hidden.numpy()
        rebuilt = {
            MODEL: reconstructions[-1].image.numpy(),
            ROUND: round_galaxy(truth.image, hidden),
            MEAN: seen_mean(truth.image, hidden),
            NOTHING: np.zeros_like(truth.image),
        }
        scores.append({name: image_errors(x, hidden, truth, these.noise) for name, x in rebuilt.items()})
    return stacked(scores), reconstructions[0]


class Rebuilt(NamedTuple):
    """Reconstructions of B spectra under MASKS masks."""

    scores: Scores
    twin: list[Reconstruction]
    """With each mask, and the image of the twin."""
    absent: Reconstruction
    """With the first mask, without an image."""


def measure_spectra(model: AnyModel, truth: Truth, wave: np.ndarray, library: Library) -> Rebuilt:
    """Rebuild spectra, wave (1296,) of a store; with their own image, too, where they have one."""
    scores, reconstructions = [], []
    for number in range(MASKS):
        image_mask = hidden_tokens(truth.object_id, IMAGE_TOKENS, HIDDEN, IMAGE_SEED + number)
        mask = hidden_tokens(truth.object_id, model.config.spectrum_tokens, HIDDEN, SPECTRUM_SEED + number)
        share = hidden_share(mask, model)
        twins = library.twins(truth, share == 0)
        inputs = {
            TWIN: (library.images(twins), image_mask),
            ABSENT: (truth.image, torch.ones_like(image_mask)),
        }
        if truth.image.any():
            inputs[OWN] = truth.image, image_mask
        reconstructions.append(
            {
                name: rebuild(model, image, truth.spectrum, seen, mask)
                for name, (image, seen) in inputs.items()
            }
        )
        rebuilt = {
            name: coarse(filled_spectrum(x, truth, model), model) for name, x in reconstructions[-1].items()
        }
        true = pool(truth.spectrum, COARSE)
        rebuilt[TWIN_SPECTRUM] = library.spectra[twins]
        rebuilt[STRAIGHT] = straight_lines(true, share > 0)
        rebuilt[FLAT] = np.zeros_like(true)
        scores.append({name: spectrum_errors(x, share == 1, truth, wave) for name, x in rebuilt.items()})
    return Rebuilt(
        stacked(scores), [by_method[TWIN] for by_method in reconstructions], reconstructions[0][ABSENT]
    )


def coarse(spectrum: np.ndarray, model: AnyModel) -> np.ndarray:
    """Rebin from the resolution of a model to pixels of 24 A: (..., L) -> (..., 259)."""
    return pool(spectrum, POOL // model.config.spectrum_pool)


def hidden_share(mask: torch.Tensor, model: AnyModel) -> np.ndarray:
    """Hidden fraction of each pixel of 24 A under a mask of tokens (B, T): (B, 259)."""
    hidden = spectrum_pixels(mask, model.config.spectrum_length, model.config.spectrum_patch)
    return coarse(hidden.numpy(), model)


def stacked(scores: list[Scores]) -> Scores:
    """Stack the scores of each mask, (B,), to (MASKS, B)."""
    return {
        method: {name: np.stack([of_mask[method][name] for of_mask in scores]) for name in by_name}
        for method, by_name in scores[0].items()
    }
