"""How bright a tile's objects are, and how deep their images: what a catalogue of redshifts does not say."""

from typing import NamedTuple

import numpy as np
import torch

from catalogs.products.model_input import ModelInput
from catalogs.store.cutouts import CutoutStore
from catalogs.store.sampling import BLOCK, spread
from mmae.layers.conditions import border, sky_noise
from mmae.layers.own_light import own_pixels
from mmae.layers.patches import patches
from mmae.layers.photometry import Photometry, central_pixels

MEASURED = 2**15
"""Objects that are measured of a store, at most."""
SIGMA = 5
"""Signal to noise in the aperture at which an object is as faint as the image is deep."""


class Brightness(NamedTuple):
    """Of n objects from all of a store, in its middle band."""

    band: str
    rows: np.ndarray
    """(n,) of the store"""
    magnitude: np.ndarray
    """(n,) AB, in the aperture CENTRAL of RADII; NaN where the flux is not above its noise"""
    depth: np.ndarray
    """(n,) AB magnitude of an object that is SIGMA times as bright as the noise in this aperture"""


def measure(store: CutoutStore) -> Brightness:
    """Measure objects of a store; those whose images inference rejects are left out."""
    band = store.bands[len(store.bands) // 2]
    wanted = ModelInput((band,), store.zero_point, store.pixel_scale, 1)
    unit = torch.ones(1)
    photometry, edge = Photometry(1), border()
    scale = np.sqrt(central_pixels())
    rows, fluxes, noises = [np.zeros(0, int)], [np.zeros(0)], [np.zeros(0)]
    for start, stop in spread(store.n, MEASURED // BLOCK):
        read = wanted.read(store, start, stop)
        taken = np.flatnonzero(read.reason == "")
        pixels, known = (
            patches(each) for each in own_pixels(torch.from_numpy(read.image[taken]), unit, True)
        )
        rows.append(start + taken)
        fluxes.append(np.sinh(photometry.central(pixels, known).double().numpy()[:, 0]) * scale)
        noises.append(sky_noise(pixels, known, edge).numpy()[:, 0] * scale)
    flux, noise = np.concatenate(fluxes), np.concatenate(noises)
    return Brightness(
        band,
        np.concatenate(rows),
        store.zero_point - 2.5 * np.log10(np.where(flux > noise, flux, np.nan)),
        store.zero_point - 2.5 * np.log10(np.where(noise > 0, SIGMA * noise, np.nan)),
    )
