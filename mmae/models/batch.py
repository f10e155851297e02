"""Input of a model: a batch of images, spectra and redshifts from a store."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from catalogs.errors import InputRefused
from catalogs.store.cutouts import CutoutStore
from catalogs.store.spectra import POOL, POOLED_LENGTH, STORED_POOL, pool
from mmae.layers.conditions import unknown

SAME_WAVE = 0.1
"""angstrom; an eighth of a pixel, above the rounding of wavelengths that were kept as float32."""


class Batch(NamedTuple):
    image: Tensor
    """(B, bands, 64, 64) float32, flux at the zero point of the store; NaN: no data"""
    spectrum: Tensor
    """(B, L) float32, normalised and pooled in the format of the model; 0 where there is none"""
    redshift: Tensor
    """(B,) float32; NaN: not known"""
    conditions: Tensor
    """(B, 2 * bands + 1 + C) float32, of the observation of the image (conditions.py), and columns of a
    catalogue; NaN: not known"""
    right: Tensor
    """(B,) float32, probability that the redshift is right"""
    spectype: Tensor
    """(B,) uint8, what the object is: code of catalogs.store.format.SPECTYPES; 0: not known"""

    @classmethod
    def of_pairs(cls, image: Tensor, spectrum: Tensor, redshift: Tensor) -> "Batch":
        """Images, spectra and redshifts of which nothing else is known."""
        nothing = torch.zeros(len(image), dtype=torch.uint8)
        return cls(image, spectrum, redshift, unknown(image), torch.ones(len(image)), nothing)

    def rows(self, which: slice) -> "Batch":
        return Batch(*(tensor[which] for tensor in self))

    def pinned(self) -> "Batch":
        """Copy in pinned memory."""
        return Batch(*(tensor.pin_memory() for tensor in self))

    def to(self, device: torch.device) -> "Batch":
        """Copy on a device; asynchronous if the batch is pinned."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Spectra(Protocol):
    """Format of the spectra that a model takes."""

    @property
    def spectrum_pool(self) -> int:
        """Native pixels averaged into one pixel."""

    @property
    def spectrum_length(self) -> int:
        """Number of such pixels, from the blue end."""


def pooled(spectrum: np.ndarray, spectra: Spectra) -> np.ndarray:
    """Spectra (..., P) of a store in the format of a model: (..., L)."""
    return pool(spectrum, spectra.spectrum_pool // STORED_POOL)[..., : spectra.spectrum_length]


def check_labels(stores: Sequence[CutoutStore], complete: bool) -> None:
    """Raise InputRefused where no store has spectra or redshifts, or some have spectra that no model takes.

    complete : whether every store must have spectra
    """
    with_spectra = [store for store in stores if store.has_spectra or complete]
    for store in with_spectra:
        check_spectra(store)
        wave, first = store.wave, with_spectra[0].wave
        if len(wave) != len(first) or np.abs(wave - first).max() > SAME_WAVE:
            raise InputRefused(
                f"{store.path} has spectra at other wavelengths than {with_spectra[0].path}: train on one"
            )
    if not with_spectra and not any(store.has_redshifts for store in stores):
        names = ", ".join(str(store.path) for store in stores)
        raise InputRefused(
            f"{names} lacks spectra and redshifts: ingest a file of GalaxiesML-Spectra, or of GalaxiesML"
        )


def check_spectra(store: CutoutStore) -> None:
    """Raise InputRefused where a store has no spectra, or not those that the models take."""
    if not store.has_spectra:
        raise InputRefused(
            f"{store.path} lacks spectra or redshifts: ingest a GalaxiesML-Spectra file (again)"
        )
    if (pixels := len(store.wave)) // POOL != POOLED_LENGTH:
        raise InputRefused(
            f"{store.path} has spectra of {pixels} pixels, not {POOLED_LENGTH} x {POOL} and a few"
        )
