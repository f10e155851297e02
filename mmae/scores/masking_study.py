"""Scores of a model as a function of how much of image and spectrum is hidden."""

import math
from collections.abc import Iterator, Mapping

import numpy as np
from astropy.table import Table
from torch import Tensor

from mmae.layers.patches import IMAGE_TOKENS
from mmae.models.families import AnyConfig, AnyModel
from mmae.scores.image_scores import magnitude
from mmae.scores.line_scores import median
from mmae.scores.metrics import EDGES, point_metrics, ranges
from mmae.scores.photoz_scores import EVERYWHERE, NEAR
from mmae.scores.rebuilding import Survey, Truth, hidden_tokens, rebuild, scores
from mmae.scores.reconstruction import Reconstruction

Ratio = tuple[float, float]
"""Fractions of image and spectrum tokens that are hidden."""

FIGURE_1: Ratio = (0.75, 0.75)
FIGURE_2: Ratio = (0.0, 1.0)
"""Ratios of the paper's figures."""
IMAGE_SHARES: tuple[Ratio, ...] = tuple((share, 1.0) for share in (0.0, 0.25, 0.5, 0.75, 0.9))
"""Ratios with more and more of the image hidden, without a spectrum."""
SPECTRUM_SHARES: tuple[Ratio, ...] = tuple((0.75, share) for share in (0.5, 0.75, 0.9, 1.0))
"""Ratios with more and more of the spectrum hidden, beside a quarter of the image."""
RATIOS = tuple(dict.fromkeys((*IMAGE_SHARES, *SPECTRUM_SHARES)))
IMAGE_SEED, SPECTRUM_SEED = 1, 2
"""Seeds of the masks."""
MAGNITUDES = (18.0, 19.0, 20.0)
"""Edges of the bins in i magnitude."""
SCORES = (
    *("rms error", "median error", "PSNR", "flux error", "colour error", "radius error", "shape error"),
    *("chi2", "slope error"),
)
"""Names of the scores of a rebuilt galaxy (image_scores, spectrum_scores)."""


def evaluate(
    model: AnyModel, truth: Truth, survey: Survey
) -> Iterator[tuple[Ratio, Reconstruction, dict[str, np.ndarray]]]:
    """Yield each ratio, the reconstruction of the galaxies at that ratio, and its scores, (B,) each."""
    for ratio in RATIOS:
        masks = draw_masks(truth.object_id, model.config, ratio)
        rebuilt = rebuild(model, truth.image, truth.spectrum, *masks)
        yield ratio, rebuilt, {"redshift": rebuilt.redshift.numpy(), **scores(rebuilt, truth, model, survey)}


def draw_masks(object_id: np.ndarray, config: AnyConfig, ratio: Ratio) -> tuple[Tensor, Tensor]:
    """Image and spectrum masks, (B, 64) and (B, T), that depend on object_id and ratio alone."""
    return (
        hidden_tokens(object_id, IMAGE_TOKENS, ratio[0], IMAGE_SEED),
        hidden_tokens(object_id, config.spectrum_tokens, ratio[1], SPECTRUM_SEED),
    )


def table(scores: Mapping[Ratio, Mapping[str, np.ndarray]], z_spec: np.ndarray) -> Table:
    """Table with a row for each ratio: scatter of the redshift, medians of the other scores."""
    near = z_spec < EDGES[0]
    rows = []
    for (image_share, spectrum_share), values in scores.items():
        row = {"image hidden": image_share, "spectrum hidden": spectrum_share}
        row |= scatter(values["redshift"], z_spec, near)
        rows.append(row | {name: median(values[name]) for name in SCORES})
    return Table(rows=rows)


def scatter(z_phot: np.ndarray, z_spec: np.ndarray, near: np.ndarray) -> dict[str, float]:
    """sigma_NMAD of the near galaxies and of all, and the outlier fraction of all."""
    everywhere = point_metrics(z_phot, z_spec)
    return {
        f"sigma_NMAD, {NEAR}": point_metrics(z_phot[near], z_spec[near])["sigma_NMAD"],
        f"sigma_NMAD, {EVERYWHERE}": everywhere["sigma_NMAD"],
        "|dz|>0.15": everywhere["|dz|>0.15"],
    }


def reconstruction_table(
    scores: Mapping[str, Mapping[str, np.ndarray]], i_flux: np.ndarray, zero_point: float
) -> Table:
    """Table of medians of scores, of all galaxies and in bins of i magnitude, by what was hidden.

    i_flux (N,): of the true image in the aperture of image_scores; where it is not positive, in no bin.
    """
    bins = [("all", np.full(len(i_flux), True)), *ranges("i", magnitude(i_flux, zero_point), MAGNITUDES)]
    return Table(
        rows=[
            {"hidden": hidden, "galaxies": galaxies, "n": int(inside.sum())}
            | {name: median(values[name][inside]) if name in values else math.nan for name in SCORES}
            for hidden, values in scores.items()
            for galaxies, inside in bins
        ]
    )


def label(ratio: Ratio) -> str:
    """Label of a ratio, percent of image and spectrum hidden: `75/75`."""
    return "/".join(f"{100 * share:g}" for share in ratio)
