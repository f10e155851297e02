"""What a validation looks like: photo-z against spectroscopic redshifts, and a galaxy rebuilt."""

import numpy as np
import torch
from matplotlib.figure import Figure

from catalogs.spectra import pool_wave
from mmae import evaluate, reconstruct
from mmae.data import VALIDATION, Batch, TrainingSet
from mmae.model import Himes2025
from mmae.recipe import Train, draw_masks
from mmae.validate import SEED


def redshifts(z_phot: np.ndarray, z_spec: np.ndarray) -> Figure:
    """The figure of `mmae evaluate`, of those of (N,) redshifts that are finite."""
    finite = np.isfinite(z_phot)
    return evaluate.figure(z_phot[finite], z_spec[finite])


def rebuilt(model: Himes2025, data: TrainingSet, config: Train, device: torch.device) -> Figure:
    """The figure of `mmae reconstruct`, of the first galaxy of the validation split, always hidden alike."""
    row = data.rows(VALIDATION)[:1]
    truth = data.read(row)
    generator = torch.Generator().manual_seed(SEED)
    masks = draw_masks(torch.ones(1, dtype=torch.bool), config, generator)
    given = (truth.image, truth.spectrum, masks.image, masks.spectrum)
    made = reconstruct.reconstruct(model, *(tensor.to(device) for tensor in given))
    name, wave = str(data.object_id[row[0]]), pool_wave(data.store.wave)
    guess = reconstruct.Reconstruction(*(part[0].cpu() for part in made))
    return reconstruct.figure(name, wave, Batch(*(part[0] for part in truth)), guess)
