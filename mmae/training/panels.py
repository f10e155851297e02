"""Figures of a validation: photo-z against spectroscopic redshifts, and a rebuilt galaxy."""

import numpy as np
import torch
from matplotlib.figure import Figure

from mmae.models.batch import Batch
from mmae.models.families import AnyModel
from mmae.scores import reconstruction_figure, redshift_figures
from mmae.scores.reconstruction import Reconstruction, reconstruct
from mmae.training.data import VALIDATION, TrainingSet
from mmae.training.drawn_masks import VALIDATION_SEED, draw_masks
from mmae.training.recipe import Train


def redshifts(z_phot: np.ndarray, z_spec: np.ndarray) -> Figure:
    """The figure of `mmae evaluate`, for (N,) redshifts; photo-z that are not finite are left out."""
    finite = np.isfinite(z_phot)
    return redshift_figures.figure(z_phot[finite], z_spec[finite])


def rebuilt(model: AnyModel, data: TrainingSet, config: Train, device: torch.device) -> Figure:
    """The figure of `mmae reconstruct`, for the first galaxy of the validation split, with fixed masks.

    The first that has a spectrum, if any has.
    """
    rows = data.rows(VALIDATION)
    row = rows[np.argsort(~data.has_spectrum[rows], kind="stable")[:1]]
    truth = data.read(row)
    generator, present = torch.Generator().manual_seed(VALIDATION_SEED), data.known(row).spectrum
    masks = draw_masks(present, config, generator, whole_images=False, turn=False)
    inputs = (truth.image, truth.spectrum, masks.image, masks.spectrum, truth.conditions)
    rebuilt_batch = reconstruct(model, *(tensor.to(device) for tensor in inputs))
    name = str(data.object_id[row[0]])
    reconstruction = Reconstruction(*(tensor[0].cpu() for tensor in rebuilt_batch))
    true = Batch(*(tensor[0] for tensor in truth))
    return reconstruction_figure.figure(
        name, data.wave, true, reconstruction, data.input.bands, data.input.zero_point
    )
