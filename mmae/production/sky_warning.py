"""A look at the pixels of a store before it is run: is their sky that of the training set?"""

import numpy as np

from catalogs.products.model_input import ModelInput
from catalogs.products.schema import Flag
from catalogs.products.sky import describe_difference, is_unlike_training
from catalogs.store.cutouts import CutoutStore

PLACES, ROWS = 8, 8
"""So many rows are read at so many places, spread evenly over the store."""


def sky_warning(store: CutoutStore, noise: np.ndarray, wanted: ModelInput) -> str:
    """A sentence where most cutouts have another sky than the training set; else nothing.

    noise (bands,): of the sky in the training set, in its flux unit, that of `wanted`.
    """
    starts = np.linspace(0, max(0, store.n - ROWS), PLACES).astype(int)
    parts = [wanted.read(store, start, min(store.n, start + ROWS)) for start in np.unique(starts).tolist()]
    usable = np.concatenate([part.image[part.reason == ""] for part in parts])
    if not len(usable) or is_unlike_training(usable, noise).mean() <= 0.5:
        return ""
    difference = describe_difference(usable, noise, wanted.bands)
    return (
        f"its sky is not that of the training set ({difference}); are zero point, pixel scale, unit "
        f"and bands right? Redshifts are flagged {Flag.UNLIKE_TRAINING_PIXELS.name}"
    )
