"""What a model takes of galaxies: a batch of images, spectra and redshifts, as a store holds them."""

from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from catalogs.errors import InputRefused
from catalogs.store.cutouts import CutoutStore
from catalogs.store.spectra import POOL, POOLED_LENGTH, STORED_POOL, pool


class Batch(NamedTuple):
    image: Tensor
    """(B, 5, 64, 64) float32, flux at the zero point of the store"""
    spectrum: Tensor
    """(B, L) float32, normalised and pooled as the model takes it"""
    redshift: Tensor
    """(B,) float32"""

    def rows(self, which: slice) -> "Batch":
        return Batch(*(tensor[which] for tensor in self))

    def pinned(self) -> "Batch":
        """The same in memory that a GPU copies from by itself."""
        return Batch(*(tensor.pin_memory() for tensor in self))

    def to(self, device: torch.device) -> "Batch":
        """On a device; the copy of a pinned batch goes on behind what the program does next."""
        return Batch(*(tensor.to(device, non_blocking=True) for tensor in self))


class Spectra(Protocol):
    """What a model takes of spectra."""

    @property
    def spectrum_pool(self) -> int:
        """Native pixels averaged into one."""

    @property
    def spectrum_length(self) -> int:
        """Such pixels, from the blue end."""


def pooled(spectrum: np.ndarray, spectra: Spectra) -> np.ndarray:
    """Spectra (..., P) as a model takes them, from the resolution of a store: (..., L)."""
    return pool(spectrum, spectra.spectrum_pool // STORED_POOL)[..., : spectra.spectrum_length]


def check_spectra(store: CutoutStore) -> None:
    """Raises InputRefused where a store has no spectra such as the models take."""
    if not store.has_spectra:
        raise InputRefused(
            f"{store.path} lacks spectra or redshifts: ingest a GalaxiesML-Spectra file (again)"
        )
    if (pixels := len(store.wave)) // POOL != POOLED_LENGTH:
        raise InputRefused(
            f"{store.path} has spectra of {pixels} pixels, not {POOLED_LENGTH} x {POOL} and a few"
        )
