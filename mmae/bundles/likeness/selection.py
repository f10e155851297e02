"""Weights by which galaxies with redshifts stand for others: spectra are of the brighter and the redder ones.

Lima et al. (2008, MNRAS 390, 118): the weight of a galaxy is the density of the target sample about it, in
the space of magnitudes, over that of the galaxies with redshifts.
"""

from dataclasses import dataclass

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from catalogs.products.model_input import ModelInput
from catalogs.store.cutouts import CutoutStore
from catalogs.store.sampling import BLOCK, spread
from mmae.bundles.likeness.backing import USUAL
from mmae.layers.own_light import own_pixels
from mmae.layers.patches import patches
from mmae.layers.photometry import Photometry

NEIGHBOURS = 16
"""Galaxies with redshifts whose distance is the size of a neighbourhood."""
MOST_WEIGHT = 10.0
"""Largest weight, in units of the mean; a few galaxies would stand for all else."""
MOST_TARGETS = 2**14
"""Objects of the target sample that are looked at."""
COMMON = 0.5
"""Share of the target sample that must have a band for it to count."""


@dataclass(frozen=True)
class Standing:
    """How well galaxies with redshifts stand for a target sample."""

    fingerprint: str
    """Of the store of the target sample."""
    galaxies: int
    effective: float
    """How many galaxies that count alike would tell as much."""
    target_unlike: float
    """Share of the target sample that is farther from galaxies with redshifts than 99 % of these are from
    each other: nothing stands behind p(z) there, whatever the weights."""

    def __str__(self) -> str:
        return (
            f"{self.galaxies} galaxies with redshifts count as {self.effective:.0f}; "
            f"{self.target_unlike:.1%} of the sample they stand for are unlike any of them"
        )


def magnitudes(image: Tensor, noise: Tensor, own_light: bool) -> Tensor:
    """asinh of the signal to noise in the middle of images (N, bands, 64, 64), (N, bands); NaN: no band.

    noise (bands,): a unit, that of the sky in the training set, and not of the image; own_light: the model's.
    """
    pixels, known = own_pixels(image, noise, own_light)
    return Photometry(image.shape[1]).central(patches(pixels), patches(known.expand_as(pixels)))


def target_of(store: CutoutStore, wanted: ModelInput, noise: Tensor, own_light: bool) -> np.ndarray:
    """Magnitudes (T, bands) of objects from all of a store that inference takes; noise (bands,): the unit.

    Raises InputRefused for a store whose images the model does not take.
    """
    wanted.check(store)
    parts = []
    for start, stop in spread(store.n, MOST_TARGETS // BLOCK):
        read = wanted.read(store, start, stop)
        image = torch.from_numpy(read.image[read.reason == ""])
        parts.append(magnitudes(image, noise, own_light))
    return torch.cat(parts).numpy()


def weights(spectra: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights of galaxies with redshifts, of mean 1, and the share of a target sample that is unlike them.

    spectra (S, bands), target (T, bands): magnitudes. Bands count that most of the target sample have. A
    galaxy that lacks one of them has the weight 1.
    """
    bands = np.isfinite(target).sum(0) >= COMMON * len(target)
    complete = np.isfinite(spectra[:, bands]).all(1)
    target = target[np.isfinite(target[:, bands]).all(1)][:, bands]
    known = spectra[complete][:, bands]
    weight = np.ones(len(spectra))
    if len(known) <= NEIGHBOURS or not len(target) or not bands.any():
        return weight, 1.0
    tree = cKDTree(known)
    size = tree.query(known, NEIGHBOURS + 1)[0][:, -1]  # the nearest is the galaxy itself
    found = cKDTree(target).query_ball_point(known, size, return_length=True)
    weight[complete] = capped(found)
    far = tree.query(target, NEIGHBOURS)[0][:, -1] > np.quantile(size, USUAL)
    return weight, float(far.mean())


def effective(weight: np.ndarray) -> float:
    """Kish's size of a weighted sample, (sum w)^2 / sum w^2."""
    return float(weight.sum() ** 2 / (weight**2).sum())


def capped(density: np.ndarray) -> np.ndarray:
    """Weights of mean 1, none of which is much above MOST_WEIGHT; all alike where none is above 0."""
    if not density.any():
        return np.ones(len(density))
    weight = np.minimum(density / density.mean(), MOST_WEIGHT)
    return np.asarray(weight / weight.mean())


def drawn(expected: np.ndarray, rng: np.random.Generator, group: np.ndarray | None = None) -> np.ndarray:
    """Indices (M,), ascending, among which each of N comes `expected` times (N,), or one time more or less.

    Systematic sampling: how many there are of all, and of each group (N,) if there are some, does not depend
    on chance.
    """
    order = rng.permutation(len(expected))
    if group is not None:
        order = order[np.argsort(group[order], kind="stable")]
    upto = np.floor(np.cumsum(expected[order]) + 0.5).astype(np.int64)
    return np.sort(np.repeat(order, np.diff(upto, prepend=0)))
