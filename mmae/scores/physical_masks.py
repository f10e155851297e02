"""What instruments lose: bands, columns, pixels, an arm of the spectrograph; and what a model makes of it.

A loss is judged twice: as the model meets it in use, NaN pixels being 0 (catalogs/screen.py) and lost parts
of a spectrum 0 (catalogs/spectra.py); and with all tokens it touches hidden, where that leaves any. What is
lost of an image is judged without a spectrum, what is lost of a spectrum beside the whole image.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import torch
from astropy.table import Table

from catalogs.products.screen import screen_images
from catalogs.store.format import BANDS, SIZE
from catalogs.store.spectra import STORED_POOL
from catalogs.surveys.desi import ARMS, SKY_LINES
from mmae.models.families import AnyConfig, AnyModel
from mmae.models.patches import IMAGE_TOKENS, PATCH, SIDE
from mmae.scores.line_scores import median
from mmae.scores.masking_study import scatter
from mmae.scores.metrics import EDGES
from mmae.scores.rebuilding import Survey, Truth, rebuild, scores
from mmae.scores.reconstruction import Reconstruction

IMAGE, SPECTRUM = "image", "spectrum"
PIXELS, TOKENS, NOTHING = "as pixels", "tokens hidden", "nothing lost"
SATURATION = 20.0
"""AB magnitude of the flux in a pixel of a bleed trail, where it begins."""
TRAIL = slice(SIZE // 2, SIZE // 2 + 3)
"""Columns of a bleed trail: through the galaxy, within one column of tokens."""
GAP = slice(SIZE // 2 + PATCH, SIZE // 2 + 2 * PATCH)
"""Columns of a detector gap: beside the middle of the galaxy, a column of tokens."""
BAD_PIXELS = 0.02
"""Share of pixels."""
RESIDUAL, SKY_WIDTH = 10.0, 5.0
"""Of what is left of a sky line: its scatter, in units of the noise; half its width, angstrom."""


class Loss(NamedTuple):
    """What is lost, the same of every galaxy."""

    name: str
    part: str
    """IMAGE or SPECTRUM"""
    lost: np.ndarray
    """(5, 64, 64) or (1296,) bool: pixels without a value"""
    light: np.ndarray | float = 0.0
    """(5, 64, 64), what is added to an image"""
    residual: np.ndarray | float = 0.0
    """(1296,), scatter of what is added to a spectrum, in units of its noise"""

    @property
    def touched(self) -> np.ndarray:
        """Pixels of the image or the spectrum that are not as they should be."""
        added = np.asarray(self.light if self.part == IMAGE else self.residual)
        return np.broadcast_to(self.lost | (added != 0), self.lost.shape)


def losses(survey: Survey) -> list[Loss]:
    """All of them, for spectra on the grid of the survey."""
    whole = np.zeros((len(BANDS), SIZE, SIZE), bool)
    trail = np.zeros(whole.shape)
    peak = 10 ** (0.4 * (survey.zero_point - SATURATION))
    trail[BANDS.index("i"), :, TRAIL] = peak * np.exp(-np.arange(SIZE) / SIZE)[:, None]
    gap = whole.copy()
    gap[..., GAP] = True
    bad = np.random.default_rng(0).random(whole.shape) < BAD_PIXELS
    sky = (np.abs(survey.wave[:, None] - SKY_LINES) < SKY_WIDTH).any(1)
    return [
        *(
            Loss(f"no {band}", IMAGE, whole | (np.arange(len(BANDS)) == k)[:, None, None])
            for k, band in enumerate(BANDS)
        ),
        Loss("bleed trail", IMAGE, whole, light=trail),
        Loss("detector gap", IMAGE, gap),
        Loss("bad pixels", IMAGE, bad),
        Loss("sky lines", SPECTRUM, np.zeros_like(sky), residual=RESIDUAL * sky),
        *(Loss(f"no {name.lower()} arm", SPECTRUM, alone(survey.wave, name)) for name in ARMS),
    ]


def alone(wave: np.ndarray, name: str) -> np.ndarray:
    """Which wavelengths (P,) only this arm of the spectrograph sees."""
    seen = {arm: (wave >= low) & (wave <= high) for arm, (low, high) in ARMS.items()}
    others = np.any([inside for arm, inside in seen.items() if arm != name], axis=0)
    return seen[name] & ~others


def image_tokens(touched: np.ndarray) -> np.ndarray:
    """Tokens (64,) with any of these pixels (5, 64, 64)."""
    return touched.any(0).reshape(SIDE, PATCH, SIDE, PATCH).any((1, 3)).ravel()


def spectrum_tokens(touched: np.ndarray, config: AnyConfig) -> np.ndarray:
    """Tokens (T,) of a model with any of these pixels (1296,) of a store."""
    pixels = config.spectrum_patch * config.spectrum_pool // STORED_POOL
    return touched[: config.spectrum_tokens * pixels].reshape(-1, pixels).max(1)


def masks(loss: Loss | None, part: str, how: str, config: AnyConfig) -> tuple[np.ndarray, np.ndarray]:
    """Hidden tokens of image (64,) and spectrum (T,), when a loss, if any, of a part is judged in a way."""
    image = np.zeros(IMAGE_TOKENS, bool)
    spectrum = np.full(config.spectrum_tokens, part == IMAGE)
    if loss and how == TOKENS and part == IMAGE:
        image = image_tokens(loss.touched)
    if loss and how == TOKENS and part == SPECTRUM:
        spectrum = spectrum_tokens(loss.touched, config)
    return image, spectrum


def cases(config: AnyConfig, survey: Survey) -> Iterator[tuple[Loss | None, str, str]]:
    """(loss, part, way to judge it), those first in which nothing is lost."""
    yield from ((None, part, NOTHING) for part in (IMAGE, SPECTRUM))
    for loss in losses(survey):
        yield loss, loss.part, PIXELS
        hidden = masks(loss, loss.part, TOKENS, config)[loss.part == SPECTRUM]
        if not hidden.all():
            yield loss, loss.part, TOKENS


def spoiled(loss: Loss | None, truth: Truth) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Images and spectra as they would come with a loss; and whether inference refuses the image, (B,)."""
    image, spectrum = truth.image, truth.spectrum
    if loss and loss.part == IMAGE:
        image = np.where(loss.lost, np.float32(np.nan), image + np.asarray(loss.light, np.float32))
    if loss and loss.part == SPECTRUM:
        rng = np.random.default_rng(truth.object_id.astype(np.uint64))
        left = loss.residual * truth.noise * rng.standard_normal(spectrum.shape)
        spectrum = np.where(loss.lost, 0, spectrum + left).astype(np.float32)
    _, reason, _ = screen_images(image, np.zeros(len(image), bool))
    return np.nan_to_num(image, nan=0.0), spectrum, reason != ""


def judge(
    model: AnyModel, truth: Truth, survey: Survey, loss: Loss | None, part: str, how: str
) -> tuple[Reconstruction, dict[str, np.ndarray]]:
    """What a model makes of galaxies with a loss, and the scores of that; (B,) each."""
    image, spectrum, refused = spoiled(loss, truth)
    hidden = (np.broadcast_to(mask, (len(image), len(mask))) for mask in masks(loss, part, how, model.config))
    made = rebuild(model, image, spectrum, *(torch.from_numpy(mask.copy()) for mask in hidden))
    found = {"redshift": made.redshift.numpy(), "refused": refused}
    return made, found | scores(made, truth, model, survey)


def table(observed: Mapping[tuple[str, str, str], Mapping[str, np.ndarray]], z_spec: np.ndarray) -> Table:
    """A row for each (loss, part, way to judge it): scatter of the redshift, medians over hidden pixels."""
    near = z_spec < EDGES[0]
    return Table(
        rows=[
            {"loss": name, "part": part, "judged": how, "refused": float(found["refused"].mean())}
            | scatter(found["redshift"], z_spec, near)
            | {score: median(found[score]) for score in ("rms error", "median error", "chi2")}
            for (name, part, how), found in observed.items()
        ]
    )
