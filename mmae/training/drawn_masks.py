"""What is hidden at each step of a training, and in its validation, drawn by the recipe."""

import torch
from torch import Tensor

from mmae.layers.patches import IMAGE_TOKENS
from mmae.models.masking import (
    UNTOLD,
    Masks,
    random_bands,
    random_columns,
    random_mask,
    random_noise,
    without_spectrum,
)
from mmae.training.recipe import Train
from mmae.training.streams import MASKS, stream_seed

LEVELS = 7
"""Number of fractions of hidden image tokens: few, as oneDNN caches a compiled product for every shape."""
VALIDATION_SEED = 7
"""Seed of the validation masks, the same at every epoch."""


def draw_masks(
    present: Tensor, config: Train, generator: torch.Generator, whole_images: bool, turn: bool
) -> Masks:
    """Draw the masks of galaxies. present (B,): True = the galaxy has a spectrum."""
    size, tokens = len(present), config.model.spectrum_tokens
    low, high = config.image_mask
    ratio = low + (high - low) * int(torch.randint(LEVELS, (), generator=generator)) / (LEVELS - 1)
    image = random_mask(size, IMAGE_TOKENS, 0.0 if whole_images else ratio, generator)
    spectrum = without_spectrum(random_mask(size, tokens, config.spectrum_mask, generator), present)
    target = spectrum if config.rebuild_absent else spectrum & present[:, None]
    turns = torch.randint(8, (size,), generator=generator)
    bands = random_bands(size, len(config.model.bands), config.band_dropout, generator)
    noise = random_noise(size, config.noisier, generator)
    noise_seed = torch.randint(2**62, (size,), generator=generator)
    untold = torch.rand(size, generator=generator) < UNTOLD
    columns = random_columns(size, len(config.model.columns), generator)
    return Masks(
        image=image,
        spectrum=spectrum,
        target=target,
        bands=bands,
        labelled=torch.ones(size, dtype=torch.bool),
        classified=torch.ones(size, dtype=torch.bool),
        turn=turns if turn else torch.zeros_like(turns),
        noise=noise,
        noise_seed=noise_seed,
        untold=untold,
        columns=columns,
        columns_target=columns,
    )


def step_masks(size: int, config: Train, step: int) -> Masks:
    """Masks of the whole batch of a step: every rank draws the same ones and takes its own rows."""
    generator = torch.Generator().manual_seed(stream_seed(config.seed, MASKS, step))
    whole_images = float(torch.rand((), generator=generator)) < config.whole_images
    if config.dropout_of == "steps":
        present = (torch.rand((), generator=generator) >= config.spectrum_dropout).expand(size)
    else:
        present = ~random_mask(1, size, config.spectrum_dropout, generator)[0]
    return draw_masks(present, config, generator, whole_images, config.turn)


def validation_masks(size: int, config: Train) -> Masks:
    """Masks of validation, the same at every epoch: no spectra, and images as at inference.

    That is in all bands, as deep as they are, and without hidden tokens if training includes such images,
    else as in training.
    """
    generator = torch.Generator().manual_seed(VALIDATION_SEED)
    absent = torch.zeros(size, dtype=torch.bool)
    masks = draw_masks(absent, config, generator, whole_images=config.whole_images > 0, turn=False)
    bands, columns = len(config.model.bands), len(config.model.columns)
    return Masks.of_tokens(masks.image, masks.spectrum, masks.target, bands, columns)
