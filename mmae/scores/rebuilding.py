"""What is true of a batch of galaxies, and how far a model that saw a part of it comes from that."""

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
from mmae.scores.line_scores import ABSENT, FAINTEST
from mmae.scores.lines import LINES, fit_lines, in_spectrum, observed_lines, reach
from mmae.scores.reconstruction import Reconstruction, reconstruct


class Survey(NamedTuple):
    """What all galaxies of a store have in common."""

    wave: np.ndarray
    """(1296,) angstrom, of the spectra of the store."""
    sky: np.ndarray
    """(5,) noise of the sky a pixel, in the unit of the images."""
    zero_point: float


class Truth(NamedTuple):
    """Galaxies as they are."""

    object_id: np.ndarray
    """(B,) int64"""
    image: np.ndarray
    """(B, 5, 64, 64)"""
    spectrum: np.ndarray
    """(B, 1296), pixels of 4.8 A, whatever the model takes"""
    redshift: np.ndarray
    """(B,) float64"""
    noise: np.ndarray
    """(B, 1296), of the spectrum"""
    galaxy: Galaxy


def truth_of(object_id: np.ndarray, batch: Batch) -> Truth:
    """batch: at the resolution of the store."""
    image, spectrum, redshift = (part.numpy() for part in batch)
    noise = spectrum_scores.noise(spectrum)
    return Truth(object_id, image, spectrum, redshift.astype(np.float64), noise, image_scores.measure(image))


def hidden_tokens(object_id: np.ndarray, tokens: int, share: float, seed: int) -> Tensor:
    """Masks (B, tokens), True = hidden, that depend on id and seed alone; a larger share hides more of it."""
    visible = visible_tokens(object_id, tokens, share, 0, seed)
    mask = torch.ones(len(object_id), tokens, dtype=torch.bool)
    return mask.scatter(1, torch.from_numpy(visible), False)


def rebuild(
    model: AnyModel, image: np.ndarray, spectrum: np.ndarray, image_mask: Tensor, spectrum_mask: Tensor
) -> Reconstruction:
    """What a model, on whatever device, makes of what it sees: arrays on the CPU.

    image (B, 5, 64, 64), spectrum (B, 1296), masks of tokens; True = hidden.
    """
    device = next(model.parameters()).device
    seen = torch.from_numpy(image), torch.from_numpy(pooled(spectrum, model.config))
    given = (tensor.to(device) for tensor in (*seen, image_mask, spectrum_mask))
    return Reconstruction(*(tensor.cpu() for tensor in reconstruct(model, *given)))


def filled_spectrum(made: Reconstruction, truth: Truth, model: AnyModel) -> np.ndarray:
    """The true spectrum at the model's resolution, rebuilt where it was hidden: (B, L)."""
    true = pooled(truth.spectrum, model.config)
    return np.where(made.spectrum_hidden.numpy(), made.spectrum.numpy(), true)


def scores(made: Reconstruction, truth: Truth, model: AnyModel, survey: Survey) -> dict[str, np.ndarray]:
    """The scores of image_scores and spectrum_scores, (B,) each; NaN where nothing was hidden."""
    images = image_errors(made.image.numpy(), made.image_hidden.numpy(), truth, survey.sky)
    step = POOL // model.config.spectrum_pool
    filled, unseen = filled_spectrum(made, truth, model), made.spectrum_hidden.numpy()
    return images | spectrum_errors(pool(filled, step), pool(unseen, step) == 1, truth, survey.wave)


def flat_scores(truth: Truth, survey: Survey) -> dict[str, np.ndarray]:
    """What a spectrum would score that is 0, the mean, everywhere; (B,) each."""
    hidden = np.full((len(truth.image), POOLED_LENGTH), True)
    return spectrum_errors(np.zeros(hidden.shape), hidden, truth, survey.wave)


def image_errors(
    rebuilt: np.ndarray, hidden: np.ndarray, truth: Truth, noise: np.ndarray
) -> dict[str, np.ndarray]:
    """The scores of image_scores, (B,) each.

    rebuilt, hidden (B, 5, 64, 64), rebuilt of any value where not hidden; noise (5,) or (B, 5), of the sky.
    """
    pixels = image_scores.pixel_scores(rebuilt, truth.image, hidden, noise)
    filled = np.where(hidden, rebuilt, truth.image)
    shapes = image_scores.galaxy_scores(image_scores.measure(filled), truth.galaxy)
    unseen = hidden.any((1, 2, 3))
    return pixels | {name: np.where(unseen, score, np.nan) for name, score in shapes.items()}


def spectrum_errors(
    rebuilt: np.ndarray, hidden: np.ndarray, truth: Truth, wave: np.ndarray
) -> dict[str, np.ndarray]:
    """chi2, and slope error: |slope - that of the true spectrum|; (B,) each.

    rebuilt, hidden (B, 259), pixels of 24 A, as true ones where not hidden; wave (1296,).
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
    """Lines fitted to true spectra, (B, L) of lines.FIT, and the noise of a pixel there, (B, L)."""
    wanted = in_spectrum(survey.wave, truth.redshift)
    fits = fit_lines(survey.wave, truth.spectrum, truth.redshift, wanted)
    noise = np.take_along_axis(truth.noise, places(survey.wave, truth.redshift), 1)
    return fits, np.where(noise > 0, noise, np.nan)


def rebuilt_lines(made: Reconstruction, truth: Truth, wave: np.ndarray, strength: np.ndarray) -> np.ndarray:
    """Lines fitted to rebuilt spectra, (B, L) of lines.FIT, at the resolution of the model, wave (P,).

    Those whose window was hidden whole, and which there clearly are, or are not: strength (B, L) is the S/N
    of the true lines.
    """
    seen, observed = ~made.spectrum_hidden.numpy(), observed_lines(truth.redshift)
    hidden = np.full(strength.shape, False)
    for which, line in enumerate(LINES.values()):
        half = reach(line, truth.redshift, wave[1] - wave[0])
        window = np.abs(wave - observed[:, which, None]) <= half[:, None]
        hidden[:, which] = ~(window & seen).any(1)
    counts = (strength < ABSENT) | (strength >= FAINTEST)
    return fit_lines(wave, made.spectrum.numpy(), truth.redshift, hidden & counts)


def places(wave: np.ndarray, redshift: np.ndarray) -> np.ndarray:
    """Pixels of LINES, (B, L), the last or the first for those beyond the spectrum."""
    step = wave[1] - wave[0]
    return np.rint((observed_lines(redshift) - wave[0]) / step).astype(int).clip(0, len(wave) - 1)
