"""A model by how much of image and spectrum is hidden; and in full at the paper's two ratios."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from astropy.table import Table
from torch import Tensor

from mmae.models.families import AnyConfig, AnyModel
from mmae.models.patches import IMAGE_TOKENS
from mmae.scores.image_scores import magnitude
from mmae.scores.line_scores import median
from mmae.scores.metrics import EDGES, point_metrics, ranges
from mmae.scores.photoz_scores import EVERYWHERE, NEAR
from mmae.scores.rebuilding import Survey, Truth, hidden_tokens, rebuild, scores
from mmae.scores.reconstruction import Reconstruction

Ratio = tuple[float, float]
"""Shares of image and spectrum tokens hidden."""

FIGURE_1: Ratio = (0.75, 0.75)
FIGURE_2: Ratio = (0.0, 1.0)
"""What the paper's figures hide."""
IMAGE_SHARES: tuple[Ratio, ...] = tuple((share, 1.0) for share in (0.0, 0.25, 0.5, 0.75, 0.9))
"""More and more of the image hidden, without a spectrum."""
SPECTRUM_SHARES: tuple[Ratio, ...] = tuple((0.75, share) for share in (0.5, 0.75, 0.9, 1.0))
"""More and more of the spectrum hidden, beside a quarter of the image."""
RATIOS = tuple(dict.fromkeys((*IMAGE_SHARES, *SPECTRUM_SHARES)))
IMAGE_SEED, SPECTRUM_SEED = 1, 2
"""Of the masks."""
MAGNITUDES = (18.0, 19.0, 20.0)
"""Of the i band: edges of the bins in which reconstruction is measured."""
SCORES = (
    *("rms error", "median error", "PSNR", "flux error", "colour error", "radius error", "shape error"),
    *("chi2", "slope error"),
)
"""Of a rebuilt galaxy, as image_scores and spectrum_scores name them."""


def observe(
    model: AnyModel, truth: Truth, survey: Survey
) -> Iterator[tuple[Ratio, Reconstruction, dict[str, np.ndarray]]]:
    """Each ratio, what the model makes of galaxies of which so much is hidden, and the scores of it, (B,)."""
    for ratio in RATIOS:
        made = rebuild(model, truth.image, truth.spectrum, *drawn_masks(truth.object_id, model.config, ratio))
        yield ratio, made, {"redshift": made.redshift.numpy(), **scores(made, truth, model, survey)}


def drawn_masks(object_id: np.ndarray, config: AnyConfig, ratio: Ratio) -> tuple[Tensor, Tensor]:
    """Hidden tokens (B, 64) and (B, T) of galaxies, always the same."""
    return (
        hidden_tokens(object_id, IMAGE_TOKENS, ratio[0], IMAGE_SEED),
        hidden_tokens(object_id, config.spectrum_tokens, ratio[1], SPECTRUM_SEED),
    )


def table(observed: Mapping[Ratio, Mapping[str, np.ndarray]], z_spec: np.ndarray) -> Table:
    """A row for each ratio: scatter of the redshift, medians of the other scores."""
    near = z_spec < EDGES[0]
    rows = []
    for (image_share, spectrum_share), found in observed.items():
        row = {"image hidden": image_share, "spectrum hidden": spectrum_share}
        row |= scatter(found["redshift"], z_spec, near)
        rows.append(row | {name: median(found[name]) for name in SCORES})
    return Table(rows=rows)


def scatter(z_phot: np.ndarray, z_spec: np.ndarray, near: np.ndarray) -> dict[str, float]:
    """sigma_NMAD of the near galaxies and of all, and how many of all are off by more than 0.15."""
    every = point_metrics(z_phot, z_spec)
    return {
        f"sigma_NMAD, {NEAR}": point_metrics(z_phot[near], z_spec[near])["sigma_NMAD"],
        f"sigma_NMAD, {EVERYWHERE}": every["sigma_NMAD"],
        "|dz|>0.15": every["|dz|>0.15"],
    }


def reconstruction_table(
    observed: Mapping[str, Mapping[str, np.ndarray]], i_flux: np.ndarray, zero_point: float
) -> Table:
    """Medians of scores of all galaxies and in bins of i magnitude, by what was hidden.

    i_flux (N,): of the true image in the aperture of image_scores; without a positive one, in no bin.
    """
    bins = [("all", np.full(len(i_flux), True)), *ranges("i", magnitude(i_flux, zero_point), MAGNITUDES)]
    return Table(
        rows=[
            {"hidden": hidden, "galaxies": name, "n": int(inside.sum())}
            | {score: median(found[score][inside]) if score in found else math.nan for score in SCORES}
            for hidden, found in observed.items()
            for name, inside in bins
        ]
    )


def label(ratio: Ratio) -> str:
    """As `75/75`: percent of image and spectrum hidden."""
    return "/".join(f"{100 * share:g}" for share in ratio)
