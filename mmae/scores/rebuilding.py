"""Reconstruction of partly hidden galaxies by a model, and its scores against the truth."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from catalogs.store.spectra import POOL, POOLED_LENGTH, pool
from mmae.bundles.image_mask import visible_tokens
from mmae.models.batch import Batch, pooled
from mmae.models.families import AnyModel
from mmae.scores import image_scores, spectrum_scores
from mmae.scores.image_scores import Galaxy
from mmae.scores.line_scores import ABSENT_SNR, PRESENT_SNR
from mmae.scores.lines import LINES, fit_lines, half_window, in_spectrum, observed_lines
from mmae.scores.reconstruction import Reconstruction, reconstruct


class Survey(NamedTuple):
    """Properties that all galaxies of a store share."""

    wave: np.ndarray
    """(1296,) wavelengths of the spectra of the store, angstrom."""
    sky: np.ndarray
    """(5,) sky noise per pixel, in the unit of the images."""
    zero_point: float


class Truth(NamedTuple):
    """True images, spectra and redshifts of a batch of galaxies."""

    object_id: np.ndarray
    """(B,) int64"""
    image: np.ndarray
    """(B, 5, 64, 64)"""
    spectrum: np.ndarray
    """(B, 1296), pixels of 4.8 A, for every model"""
    redshift: np.ndarray
    """(B,) float64"""
    noise: np.ndarray
    """(B, 1296), of the spectrum"""
    galaxy: Galaxy


def truth_of(object_id: np.ndarray, batch: Batch) -> Truth:
    """Truth of a batch that has the resolution of the store."""
    image, spectrum, redshift, *_ = (part.numpy() for part in batch)
    noise = spectrum_scores.noise(spectrum)
    galaxy = image_scores.measure(np.nan_to_num(image))
    return Truth(object_id, image, spectrum, redshift.astype(np.float64), noise, galaxy)


def hidden_tokens(object_id: np.ndarray, tokens: int, share: float, seed: int) -> Tensor:
    """Masks (B, tokens), True = hidden, that depend on id and seed alone; those of a larger share contain
    those of a smaller one."""
    visible = visible_tokens(object_id, tokens, share, 0, seed)
    mask = torch.ones(len(object_id), tokens, dtype=torch.bool)
    return mask.scatter(1, torch.from_numpy(visible), False)


def rebuild(
    model: AnyModel, image: np.ndarray, spectrum: np.ndarray, image_mask: Tensor, spectrum_mask: Tensor
) -> Reconstruction:
    """Reconstruct galaxies with a model on any device; the result is on the CPU.

    image (B, 5, 64, 64), spectrum (B, 1296), token masks, True = hidden. Seeing and extinction are not told.
    """
    device = next(model.parameters()).device
    galaxies = torch.from_numpy(image), torch.from_numpy(pooled(spectrum, model.config))
    inputs = (tensor.to(device) for tensor in (*galaxies, image_mask, spectrum_mask))
    return Reconstruction(*(tensor.cpu() for tensor in reconstruct(model, *inputs)))


def filled_spectrum(rebuilt: Reconstruction, truth: Truth, model: AnyModel) -> np.ndarray:
    """The true spectrum at the model's resolution, with hidden pixels replaced by rebuilt ones: (B, L)."""
    true = pooled(truth.spectrum, model.config)
    return np.where(rebuilt.spectrum_hidden.numpy(), rebuilt.spectrum.numpy(), true)


def scores(rebuilt: Reconstruction, truth: Truth, model: AnyModel, survey: Survey) -> dict[str, np.ndarray]:
    """The scores of image_scores and spectrum_scores, (B,) each; NaN where nothing was hidden."""
    images = image_errors(rebuilt.image.numpy(), rebuilt.image_hidden.numpy(), truth, survey.sky)
    step = POOL // model.config.spectrum_pool
    filled, hidden = filled_spectrum(rebuilt, truth, model), rebuilt.spectrum_hidden.numpy()
    return images | spectrum_errors(pool(filled, step), pool(hidden, step) == 1, truth, survey.wave)


def flat_scores(truth: Truth, survey: Survey) -> dict[str, np.ndarray]:
    """Scores of a spectrum that is 0, the mean, everywhere; (B,) each."""
    hidden = np.full((len(truth.image), POOLED_LENGTH), True)
    return spectrum_errors(np.zeros(hidden.shape), hidden, truth, survey.wave)


def image_errors(
    rebuilt: np.ndarray, hidden: np.ndarray, truth: Truth, noise: np.ndarray
) -> dict[str, np.ndarray]:
    """The scores of image_scores, (B,) each.

    rebuilt, hidden (B, 5, 64, 64), where rebuilt is ignored outside hidden; sky noise (5,) or (B, 5). Pixels
    without data say nothing of what was rebuilt there.
    """
    image, hidden = np.nan_to_num(truth.image), hidden & np.isfinite(truth.image)
    pixels = image_scores.pixel_scores(rebuilt, image, hidden, noise)
    filled = np.where(hidden, rebuilt, image)
    shapes = image_scores.galaxy_scores(image_scores.measure(filled), truth.galaxy)
    any_hidden = hidden.any((1, 2, 3))
    return pixels | {name: np.where(any_hidden, score, np.nan) for name, score in shapes.items()}


def spectrum_errors(
    rebuilt: np.ndarray, hidden: np.ndarray, truth: Truth, wave: np.ndarray
) -> dict[str, np.ndarray]:
    """chi2, and slope error: |slope - that of the true spectrum|; (B,) each.

    rebuilt, hidden (B, 259), pixels of 24 A, where rebuilt equals the truth outside hidden; wave (1296,).
    """
    true, wave = (pool(array, spectrum_scores.COARSE) for array in (truth.spectrum, wave))
    sigma = spectrum_scores.coarse_noise(truth.noise)
    free = spectrum_scores.continuum(wave, truth.redshift)
    slopes = (spectrum_scores.slope(wave, flux, free) for flux in (rebuilt, true))
    error = np.abs(next(slopes) - next(slopes))
    return {
        "chi2": spectrum_scores.chi2(rebuilt, true, sigma, hidden),
        "slope error": np.where(hidden.any(1), error, np.nan),
    }


# ---------------------------------------------------------------- emission lines


def true_lines(truth: Truth, survey: Survey) -> tuple[np.ndarray, np.ndarray]:
    """Lines fitted to true spectra, (B, L) of lines.FIT, and the noise per pixel at each, (B, L)."""
    inside = in_spectrum(survey.wave, truth.redshift)
    fits = fit_lines(survey.wave, truth.spectrum, truth.redshift, inside)
    noise = np.take_along_axis(truth.noise, line_pixels(survey.wave, truth.redshift), 1)
    return fits, np.where(noise > 0, noise, np.nan)


def rebuilt_lines(
    rebuilt: Reconstruction, truth: Truth, wave: np.ndarray, signal_to_noise: np.ndarray
) -> np.ndarray:
    """Lines fitted to rebuilt spectra, (B, L) of lines.FIT, at the resolution of the model, wave (P,).

    Fits the lines whose whole window was hidden and which are clearly present or absent by the S/N of the
    true lines, signal_to_noise (B, L).
    """
    seen, observed = ~rebuilt.spectrum_hidden.numpy(), observed_lines(truth.redshift)
    hidden = np.full(signal_to_noise.shape, False)
    for k, line in enumerate(LINES.values()):
        half = half_window(line, truth.redshift, wave[1] - wave[0])
        window = np.abs(wave - observed[:, k, None]) <= half[:, None]
        hidden[:, k] = ~(window & seen).any(1)
    certain = (signal_to_noise < ABSENT_SNR) | (signal_to_noise >= PRESENT_SNR)
    return fit_lines(wave, rebuilt.spectrum.numpy(), truth.redshift, hidden & certain)


def line_pixels(wave: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Indices of the pixels of LINES, (B, L); the first or the last for lines beyond the spectrum."""
    step = wave[1] - wave[0]
    return np.rint((observed_lines(redshift) - wave[0]) / step).astype(int).clip(0, len(wave) - 1)
