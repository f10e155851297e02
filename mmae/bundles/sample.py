"""The galaxies that a new program is calibrated, rounded and compared on."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from catalogs.store.format import SIZE
from mmae.models.masking import random_bands

FITTED_ROWS = 128
"""Training images to which the rounding of the weights is fitted."""
CALIBRATED_ROWS = 4096
"""Galaxies to which p(z) is calibrated, at most; of several stores as many of each, on the average."""
MOST_STORES = 4
"""Stores that count for that: the images of 16,384 galaxies take 1.3 GB."""
MEASURED_ROWS = 1024
"""Images on which precisions are compared with each other."""


class Sample(NamedTuple):
    """Galaxies of the splits; or noise, of which no redshift is known, where there are none."""

    name: str
    trained: Tensor
    """(M, bands, 64, 64), to the first of which the rounding of the weights is fitted."""
    image: Tensor
    """(N, bands, 64, 64), that the model was not trained on."""
    redshift: Tensor | None = None
    """(N,); NaN: of a star"""
    spectype: Tensor | None = None
    """(N,), codes of catalogs.store.format.SPECTYPES"""
    roles: np.ndarray | None = None
    """(L,) of bundle.ROLES, by id: all galaxies that the model was made with."""
    trained_redshift: Tensor | None = None
    """(M,); NaN: not known"""
    weight: Tensor | None = None
    """(N,), how often each counts for the width of p(z), where they stand for a target sample; None: once"""
    conditions: tuple[Tensor | None, Tensor | None] = (None, None)
    """(M, 2 * bands + 1) and (N, 2 * bands + 1), of the observation of both; None: not known."""


def noise_sample(bands: int, fitted: int = FITTED_ROWS, measured: int = MEASURED_ROWS) -> Sample:
    """Images of noise, where there are no galaxies: no redshifts, so nothing is calibrated."""
    order = torch.randperm(fitted + measured, generator=torch.Generator().manual_seed(0))
    image = noise(fitted + measured, bands)[order]  # noise goes from faint to bright
    return Sample("images of noise (the training store is not there)", image[:fitted], image[fitted:])


def noise(rows: int, bands: int) -> Tensor:
    """(rows, bands, 64, 64) of several brightnesses."""
    image = torch.randn(rows, bands, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    return image * torch.logspace(-2, 1, rows)[:, None, None, None]


def with_bands_hidden(image: Tensor, least_bands: int) -> Tensor:
    """Images (N, bands, 64, 64), every second of which lacks bands, as in training.

    All of them are whole for a model that needs all bands.
    """
    bands = image.shape[1]
    if least_bands == bands:
        return image
    hidden = random_bands(len(image), bands, 1.0, torch.Generator().manual_seed(0))
    hidden[::2] = False
    return image.masked_fill(hidden[:, :, None, None], torch.nan)
