"""Reconstruction of partly hidden galaxies by a model."""

import math
from typing import NamedTuple

import numpy as np
import torch
from rich import box
from rich.table import Table
from torch import Tensor

from mmae.models.batch import Batch
from mmae.models.families import AnyModel
from mmae.models.losses import image_pixels, spectrum_pixels


class Reconstruction(NamedTuple):
    """The model's images, spectra and redshifts of partly hidden galaxies, and the masks of hidden pixels."""

    image: Tensor
    """(B, bands, 64, 64) float32"""
    image_hidden: Tensor
    """(B, bands, 64, 64) bool, True = hidden"""
    spectrum: Tensor
    """(B, L) float32"""
    spectrum_hidden: Tensor
    """(B, L) bool, True = hidden"""
    redshift: Tensor
    """(B,) float32"""


@torch.inference_mode()
def reconstruct(
    model: AnyModel,
    image: Tensor,
    spectrum: Tensor,
    image_mask: Tensor,
    spectrum_mask: Tensor,
    conditions: Tensor | None = None,
) -> Reconstruction:
    """Hide parts of galaxies and let the model rebuild them.

    Parameters
    ----------
    image : (B, bands, 64, 64) float32, flux at the zero point of the model; NaN: no data
    spectrum : (B, L) float32, normalised and pooled (catalogs.spectra)
    image_mask, spectrum_mask : (B, 64) and (B, T) bool, tokens, True = hidden
    conditions : (B, 2 * bands + 1) float32, of the observation of the images; NaN, or None: not known
    """
    output = model.eval()(image, spectrum, image_mask, spectrum_mask, conditions=conditions)
    return Reconstruction(
        image=output.image,
        image_hidden=image_pixels(image_mask, image.shape),
        spectrum=output.spectrum,
        spectrum_hidden=spectrum_pixels(spectrum_mask, spectrum.shape[1], model.config.spectrum_patch),
        redshift=model.redshift(output),
    )


def hidden_rms(rebuilt: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    """Rms error of each galaxy over its hidden pixels: 3 x (B, ...) -> (B,); NaN if none is hidden."""
    hidden = hidden & ~truth.isnan()
    squares = torch.where(hidden, (rebuilt - truth) ** 2, 0.0)
    return (squares.flatten(1).sum(1) / hidden.flatten(1).sum(1)).sqrt()


def error_table(object_id: np.ndarray, truth: Batch, rebuilt: Reconstruction) -> Table:
    """Redshifts and rms errors of each galaxy, as a table for a terminal."""
    table = Table(box=box.SIMPLE)
    for name in ("object", "z", "z model", "image rms", "spectrum rms"):
        table.add_column(name, justify="right", no_wrap=True)
    columns = (
        truth.redshift,
        rebuilt.redshift,
        hidden_rms(rebuilt.image, truth.image, rebuilt.image_hidden),
        hidden_rms(rebuilt.spectrum, truth.spectrum, rebuilt.spectrum_hidden),
    )
    for name, values in zip(object_id, torch.stack(columns, 1).tolist(), strict=True):
        table.add_row(str(name), *("-" if math.isnan(value) else f"{value:.3f}" for value in values))
    return table
