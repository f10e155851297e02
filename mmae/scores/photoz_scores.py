"""Redshifts from images without spectra, as at inference, with and without hidden tokens; their scatter."""

from collections.abc import Mapping

import numpy as np
import torch
from astropy.table import Table
from torch import Tensor

from mmae.bundles.image_mask import visible_tokens
from mmae.bundles.program import Program, best_redshift
from mmae.layers.patches import IMAGE_TOKENS
from mmae.layers.pdf import Grid
from mmae.scores.metrics import EDGES, point_metrics

SHARES = (0.25, 0.0)
"""Fractions of the image that are hidden; the first is that of the paper's figure 3."""
NEAR, EVERYWHERE = f"z < {EDGES[0]:g}", "all"
METRICS = ("sigma_NMAD", "bias", "|dz|>0.15", "HSC loss")
PAPER = {0.25: 0.0163, 0.0: 0.0250}
"""sigma_NMAD at z < 0.4 by fraction hidden, of the paper's own predictions for 20,181 real galaxies."""
PUBLISHED = {"AstroCLIP": 0.020, "BCNN": 0.012}
"""sigma_NMAD at z < 0.4 of other models, as quoted in the paper's section 5.2."""


@torch.inference_mode()
def photoz(
    program: Program, grid: Grid | None, image: Tensor, object_id: np.ndarray, share: float, seed: int
) -> np.ndarray:
    """Redshifts (B,) of images (B, 5, 64, 64), spectra hidden; images are on the device of the program.

    A fraction `share` of each image's tokens is hidden, drawn by id and seed. With a p(z), the redshift is
    that of least risk, before calibration (`mmae export`).
    """
    visible = torch.from_numpy(visible_tokens(object_id, IMAGE_TOKENS, share, 0, seed)).to(image.device)
    return best_redshift(program(image, visible if share else None), grid).cpu().numpy()


def evaluate(
    program: Program, grid: Grid | None, image: Tensor, object_id: np.ndarray, seeds: int
) -> dict[tuple[float, int], np.ndarray]:
    """Redshifts (B,) by share and seed; without hidden tokens there is a single seed."""
    return {
        (share, seed): photoz(program, grid, image, object_id, share, seed)
        for share in SHARES
        for seed in range(seeds if share else 1)
    }


def table(z_phot: Mapping[tuple[float, int], np.ndarray], z_spec: np.ndarray) -> Table:
    """Table of mean and standard deviation of the metrics over seeds.

    z_phot: (N,) by (share, seed). One row for each share and range of redshifts.
    """
    ranges = {NEAR: z_spec < EDGES[0], EVERYWHERE: np.full(len(z_spec), True)}
    return Table(
        rows=[
            {"hidden": share, "range": name, "n": int(inside.sum())}
            | _over_seeds([z[inside] for (s, _), z in z_phot.items() if s == share], z_spec[inside])
            for share in SHARES
            for name, inside in ranges.items()
        ]
    )


def _over_seeds(z_phot: list[np.ndarray], z_spec: np.ndarray) -> dict[str, float]:
    metrics = [point_metrics(z, z_spec) for z in z_phot]
    row: dict[str, float] = {"seeds": len(metrics)}
    for name in METRICS:
        values = np.array([of_seed[name] for of_seed in metrics])
        row[name] = float(values.mean())
        row[f"{name} std"] = float(values.std(ddof=1)) if len(values) > 1 else float("nan")
    return row
