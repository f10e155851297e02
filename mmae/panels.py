"""What a validation looks like: photo-z against spectroscopic redshifts, and a galaxy rebuilt."""

import numpy as np
import torch
from matplotlib.figure import Figure

from mmae import evaluate, reconstruct
from mmae.data import VALIDATION, Batch, TrainingSet
from mmae.families import AnyModel
from mmae.recipe import VALIDATION_SEED, Train, draw_masks


def redshifts(z_phot: np.ndarray, z_spec: np.ndarray) -> Figure:
    """The figure of `mmae evaluate`, of those of (N,) redshifts that are finite."""
    finite = np.isfinite(z_phot)
    return evaluate.figure(z_phot[finite], z_spec[finite])


def rebuilt(model: AnyModel, data: TrainingSet, config: Train, device: torch.device) -> Figure:
    """The figure of `mmae reconstruct`, of the first galaxy of the validation split, always hidden alike."""
    row = data.rows(VALIDATION)[:1]
    truth = data.read(row)
    generator, present = torch.Generator().manual_seed(VALIDATION_SEED), torch.ones(1, dtype=torch.bool)
    masks = draw_masks(present, config, generator, whole=False, turn=False)
    given = (truth.image, truth.spectrum, masks.image, masks.spectrum)
    made = reconstruct.reconstruct(model, *(tensor.to(device) for tensor in given))
    name = str(data.object_id[row[0]])
    guess = reconstruct.Reconstruction(*(part[0].cpu() for part in made))
    return reconstruct.figure(name, data.wave, Batch(*(part[0] for part in truth)), guess)
