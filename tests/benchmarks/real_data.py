"""Real HSC cutouts and DESI spectra, comparable mock ones, and baselines that rebuild without a model.

No real object has both an image and a spectrum: the missing one is 0.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bench_mock_realism import SKY

from catalogs.store.format import SIZE
from catalogs.store.spectra import STORED_POOL, normalise, pool, pooled_noise
from mmae.models.batch import Batch
from mmae.models.mmae_config import ModelConfig
from mmae.scores.image_scores import RADIUS, magnitude, measure
from mmae.scores.rebuilding import Truth, truth_of
from mmae.scores.spectrum_scores import COARSE, coarse_noise
from mmae.training.data import TRAIN, TrainingSet, sample_test_rows

ZERO_POINT = 27.0
REAL_SHARE, STAR = 0.6, 2.15
"""Smallest fraction of pixels that are not padding; size in pixels below which an object is a star."""
SAMPLE = 2048
"""Mock galaxies from which those of the magnitudes of the real ones are selected."""
PIXELS = ModelConfig().spectrum_length
RING = np.minimum(RADIUS.astype(int), SIZE // 2)
"""Ring of each pixel around the centre, one pixel wide, the last without an outer edge: (4096,)."""


class Cutouts(NamedTuple):
    truth: Truth
    noise: np.ndarray
    """(B, 5), sky noise of each cutout per pixel"""

    @property
    def magnitude(self) -> np.ndarray:
        """(B,), i magnitude in the aperture of image_scores."""
        return magnitude(self.truth.galaxy.flux, ZERO_POINT)


def cutouts(image: np.ndarray, noise: np.ndarray) -> Cutouts:
    pixels, redshift = torch.from_numpy(image.astype(np.float32)), torch.zeros(len(image))
    batch = Batch.of_pairs(pixels, torch.zeros(len(image), PIXELS), redshift)
    return Cutouts(truth_of(np.arange(1, len(image) + 1), batch), noise)


def real_cutouts(folder: Path) -> dict[str, Cutouts]:
    """HSC cutouts of COSMOS: galaxies; stars; galaxies that are mostly padding."""
    with np.load(folder / "hsc_stamps64_grizy.npz") as stamps:
        names = ("images", "sky_sigma", "frac_real", "size_i_pix")
        image, noise, share, size = (stamps[name] for name in names)
    unique = np.isin(np.arange(len(size)), np.unique(size, return_index=True)[1])  # one is a duplicate
    star, real = size < STAR, share > REAL_SHARE
    kinds = {"galaxies": real & ~star, "stars": real & star, "padded galaxies": ~real & ~star}
    return {name: cutouts(image[mask & unique], noise[mask & unique]) for name, mask in kinds.items()}


def as_wide(deep: Cutouts) -> Cutouts:
    """The cutouts at the depth of HSC Wide: with white noise added up to that of its sky."""
    added = np.sqrt(np.clip(SKY**2 - deep.noise**2, 0, None))[..., None, None]
    noise = np.random.default_rng(0).standard_normal(deep.truth.image.shape)
    return cutouts(deep.truth.image + added * noise, np.maximum(deep.noise, SKY))


def mock_cutouts(data: TrainingSet, like: Cutouts) -> Cutouts:
    """A galaxy of the test split for each, the nearest in magnitude of those left; their sky is SKY."""
    assert data.store.zero_point == ZERO_POINT, data.store.zero_point
    image = data.read(np.sort(sample_test_rows(data, SAMPLE, seed=0))).image.numpy()
    magnitudes, chosen = magnitude(measure(image).flux, ZERO_POINT), []
    for target in like.magnitude[: len(image)]:
        chosen.append(int(np.nanargmin(np.abs(magnitudes - target))))
        magnitudes[chosen[-1]] = np.nan
    return cutouts(image[chosen], np.tile(SKY, (len(chosen), 1)))


def real_spectra(folder: Path) -> tuple[Truth, list[str]]:
    """DESI spectra of known redshift in the format of a store, with noise from their ivar; their types."""
    with np.load(folder / "desi_spectra_7781px.npz") as arrays:
        flux, ivar, redshift, kind = (arrays[name] for name in ("flux", "ivar", "z", "spectype"))
    spectrum = pool(normalise(flux, ivar), STORED_POOL)[:, :PIXELS].astype(np.float32)
    image = torch.zeros(len(flux), 5, SIZE, SIZE)
    batch = Batch.of_pairs(image, torch.from_numpy(spectrum), torch.from_numpy(redshift))
    truth = truth_of(np.arange(1, len(flux) + 1), batch)
    return truth._replace(noise=pooled_noise(flux, ivar, STORED_POOL)[:, :PIXELS]), kind.tolist()


class Library:
    """Spectra of the training split on pixels of 24 A, in which to find the most similar ones (twins)."""

    def __init__(self, data: TrainingSet):
        self.data, self.rows = data, data.rows(TRAIN)
        self.spectra = pool(data.store.column("spectrum"), COARSE)[self.rows]  # (N, 259)

    def twins(self, truth: Truth, seen: np.ndarray) -> np.ndarray:
        """Index of the spectrum of least chi2 over the visible pixels, seen (B, 259) bool: (B,)."""
        sigma = coarse_noise(truth.noise)
        known = seen & (sigma > 0)
        weight = np.divide(1.0, sigma**2, out=np.zeros_like(sigma), where=known)
        cross = (weight * pool(truth.spectrum, COARSE)) @ self.spectra.T
        return np.argmin(weight @ (self.spectra**2).T - 2 * cross, axis=1)

    def images(self, twins: np.ndarray) -> np.ndarray:
        return self.data.read(self.rows[twins]).image.numpy()


# ---------------------------------------------------------------- baselines without a model


def seen_mean(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Each band replaced by the mean of its visible pixels."""
    seen = ~hidden
    mean = np.where(seen, image, 0).sum((2, 3)) / seen.sum((2, 3)).clip(1)
    return np.broadcast_to(mean[..., None, None], image.shape)


def round_galaxy(image: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Each pixel replaced by the mean of the visible pixels at its radius; 0 where there are none."""
    rings = np.eye(RING.max() + 1)[RING]  # (4096, R)
    seen = (~hidden).reshape(*hidden.shape[:2], -1).astype(float)
    light = (seen * image.reshape(seen.shape)) @ rings
    return (light / (seen @ rings).clip(1))[..., RING].reshape(image.shape)


def straight_lines(spectrum: np.ndarray, hidden: np.ndarray) -> np.ndarray:
    """Linear interpolation between the visible pixels: (B, L) and (B, L)."""
    index = np.arange(spectrum.shape[1])
    pairs = zip(spectrum, ~hidden, strict=True)
    return np.stack([np.interp(index, index[seen], values[seen]) for values, seen in pairs])
