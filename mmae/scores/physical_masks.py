"""Instrumental losses (a band, columns, pixels, an arm of the spectrograph), and scores of a model with them.

A loss is evaluated in two ways: as in production, with NaN pixels (catalogs/screen.py) and lost parts of a
spectrum (catalogs/spectra.py) set to 0; and with all affected tokens hidden, unless those are all tokens.
Losses of an image are evaluated without a spectrum, losses of a spectrum with the whole image.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from astropy.table import Table

from catalogs.bands import HSC, TABLE
from catalogs.products.screen import screen_images
from catalogs.store.format import SIZE
from catalogs.store.spectra import STORED_POOL
from catalogs.surveys.desi import ARMS, SKY_LINES
from mmae.layers.patches import IMAGE_TOKENS, PATCH, SIDE
from mmae.models.families import AnyConfig, AnyModel
from mmae.scores.image_scores import I_BAND
from mmae.scores.line_scores import median
from mmae.scores.masking_study import scatter
from mmae.scores.metrics import EDGES
from mmae.scores.rebuilding import Survey, Truth, rebuild, scores
from mmae.scores.reconstruction import Reconstruction

IMAGE, SPECTRUM = "image", "spectrum"
PIXELS, TOKENS, NOTHING = "as pixels", "tokens hidden", "nothing lost"
SATURATION = 20.0
"""AB magnitude of the flux in the first pixel of a bleed trail."""
TRAIL = slice(SIZE // 2, SIZE // 2 + 3)
"""Columns of a bleed trail, pixels: through the galaxy, within one column of tokens."""
GAP = slice(SIZE // 2 + PATCH, SIZE // 2 + 2 * PATCH)
"""Columns of a detector gap, pixels: beside the centre of the galaxy, a column of tokens."""
BAD_PIXELS = 0.02
"""Fraction of pixels that are bad."""
RESIDUAL, SKY_WIDTH = 10.0, 5.0
"""Residual of a sky line: its scatter, in units of the noise, and half its width, angstrom."""


class DataLoss(NamedTuple):
    """A loss of data, the same for every galaxy."""

    name: str
    part: str
    """IMAGE or SPECTRUM"""
    lost: np.ndarray
    """(5, 64, 64) or (1296,) bool: pixels without a value"""
    added_flux: np.ndarray | float = 0.0
    """(5, 64, 64), flux added to an image"""
    added_noise: np.ndarray | float = 0.0
    """(1296,), scatter of the noise added to a spectrum, in units of its own noise"""

    @property
    def affected(self) -> np.ndarray:
        """Mask of the pixels of the image or the spectrum that are lost or altered."""
        added = np.asarray(self.added_flux if self.part == IMAGE else self.added_noise)
        return np.broadcast_to(self.lost | (added != 0), self.lost.shape)


def data_losses(survey: Survey) -> list[DataLoss]:
    """All losses, for spectra on the wavelength grid of the survey."""
    none = np.zeros((len(HSC), SIZE, SIZE), bool)
    trail = np.zeros(none.shape)
    peak = 10 ** (0.4 * (survey.zero_point - SATURATION))
    trail[I_BAND, :, TRAIL] = peak * np.exp(-np.arange(SIZE) / SIZE)[:, None]
    gap = none.copy()
    gap[..., GAP] = True
    bad = np.random.default_rng(0).random(none.shape) < BAD_PIXELS
    sky = (np.abs(survey.wave[:, None] - SKY_LINES) < SKY_WIDTH).any(1)
    return [
        *(
            DataLoss(f"no {TABLE[band].filter}", IMAGE, none | (np.arange(len(HSC)) == k)[:, None, None])
            for k, band in enumerate(HSC)
        ),
        DataLoss("bleed trail", IMAGE, none, added_flux=trail),
        DataLoss("detector gap", IMAGE, gap),
        DataLoss("bad pixels", IMAGE, bad),
        DataLoss("sky lines", SPECTRUM, np.zeros_like(sky), added_noise=RESIDUAL * sky),
        *(DataLoss(f"no {name.lower()} arm", SPECTRUM, covered_only_by(survey.wave, name)) for name in ARMS),
    ]


def covered_only_by(wave: np.ndarray, name: str) -> np.ndarray:
    """Mask of the wavelengths (P,) that no other arm of the spectrograph covers."""
    covered = {arm: (wave >= low) & (wave <= high) for arm, (low, high) in ARMS.items()}
    by_others = np.any([inside for arm, inside in covered.items() if arm != name], axis=0)
    return covered[name] & ~by_others


def image_tokens(affected: np.ndarray) -> np.ndarray:
    """Image tokens (64,) with any affected pixel (5, 64, 64)."""
    return affected.any(0).reshape(SIDE, PATCH, SIDE, PATCH).any((1, 3)).ravel()


def spectrum_tokens(affected: np.ndarray, config: AnyConfig) -> np.ndarray:
    """Spectrum tokens (T,) of a model with any affected pixel (1296,) of a store."""
    pixels = config.spectrum_patch * config.spectrum_pool // STORED_POOL
    return affected[: config.spectrum_tokens * pixels].reshape(-1, pixels).max(1)


def masks(loss: DataLoss | None, part: str, method: str, config: AnyConfig) -> tuple[np.ndarray, np.ndarray]:
    """Masks of image (64,) and spectrum (T,) for a loss, if any, of a part, evaluated with a method."""
    image = np.zeros(IMAGE_TOKENS, bool)
    spectrum = np.full(config.spectrum_tokens, part == IMAGE)
    if loss and method == TOKENS and part == IMAGE:
        image = image_tokens(loss.affected)
    if loss and method == TOKENS and part == SPECTRUM:
        spectrum = spectrum_tokens(loss.affected, config)
    return image, spectrum


def cases(config: AnyConfig, survey: Survey) -> Iterator[tuple[DataLoss | None, str, str]]:
    """Yield (loss, part, method of evaluation), first those in which nothing is lost."""
    yield from ((None, part, NOTHING) for part in (IMAGE, SPECTRUM))
    for loss in data_losses(survey):
        yield loss, loss.part, PIXELS
        hidden = masks(loss, loss.part, TOKENS, config)[loss.part == SPECTRUM]
        if not hidden.all():
            yield loss, loss.part, TOKENS


def degraded(
    loss: DataLoss | None, truth: Truth, least_bands: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and spectra with a loss, and whether a model that needs so many bands refuses them, (B,)."""
    image, spectrum = truth.image, truth.spectrum
    if loss and loss.part == IMAGE:
        image = np.where(loss.lost, np.float32(np.nan), image + np.asarray(loss.added_flux, np.float32))
    if loss and loss.part == SPECTRUM:
        rng = np.random.default_rng(truth.object_id.astype(np.uint64))
        residual = loss.added_noise * truth.noise * rng.standard_normal(spectrum.shape)
        spectrum = np.where(loss.lost, 0, spectrum + residual).astype(np.float32)
    reason = screen_images(image.copy(), np.zeros(len(image), bool), least_bands=least_bands).reason
    return image, spectrum, reason != ""


def evaluate(
    model: AnyModel, truth: Truth, survey: Survey, loss: DataLoss | None, part: str, method: str
) -> tuple[Reconstruction, dict[str, np.ndarray]]:
    """Reconstruct galaxies with a loss; returns the reconstruction and its scores, (B,) each."""
    image, spectrum, refused = degraded(loss, truth, model.config.least_bands)
    image_mask, spectrum_mask = (
        torch.from_numpy(np.tile(mask, (len(image), 1))) for mask in masks(loss, part, method, model.config)
    )
    rebuilt = rebuild(model, image, spectrum, image_mask, spectrum_mask)
    redshifts = {"redshift": rebuilt.redshift.numpy(), "refused": refused}
    return rebuilt, redshifts | scores(rebuilt, truth, model, survey)


def table(scores: Mapping[tuple[str, str, str], Mapping[str, np.ndarray]], z_spec: np.ndarray) -> Table:
    """Table with a row for each (loss, part, method): scatter of the redshift, medians over hidden pixels."""
    near = z_spec < EDGES[0]
    return Table(
        rows=[
            {"loss": name, "part": part, "judged": method, "refused": float(values["refused"].mean())}
            | scatter(values["redshift"], z_spec, near)
            | {score: median(values[score]) for score in ("rms error", "median error", "chi2")}
            for (name, part, method), values in scores.items()
        ]
    )
