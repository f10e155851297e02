"""From estimates of a model to columns of the catalogue, on the device of the model."""

from functools import cache

import torch
from torch import Tensor

from catalogs.products.schema import QUANTILE_LEVELS
from mmae.bundles import columns
from mmae.layers import pdf
from mmae.layers.pdf import Grid
from mmae.models.output import Estimate

LEVELS = {
    "PHOTOZ_MEDIAN": 0.5,
    "PHOTOZ_ERR68_MIN": 0.16,
    "PHOTOZ_ERR68_MAX": 0.84,
    "PHOTOZ_ERR95_MIN": 0.025,
    "PHOTOZ_ERR95_MAX": 0.975,
}
"""Levels of the columns that are quantiles of p(z)."""


@cache
def fixed_levels(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The levels of LEVELS and of PDF_QUANT; copied to a device once."""
    return torch.tensor([*LEVELS.values(), *QUANTILE_LEVELS], dtype=dtype, device=device)


def table(estimate: Estimate, grid: Grid | None, drawn: Tensor) -> Tensor:
    """The columns of columns.SHAPE side by side, and colours after them, (B, C) float32.

    drawn (B,): the levels of p(z), from 0 to 1, at which PHOTOZ_MC is read off.
    """
    values = {
        columns.POINT: estimate.point,
        "OOD_SCORE": estimate.typical,
        "SPEC_DISTANCE": estimate.backing,
    }
    if grid:
        values |= columns_of_pdf(estimate.mass / estimate.mass.sum(1, keepdim=True), grid, drawn)
        values |= columns_of_class(estimate.spectype)
    parts = [values[name].reshape(len(drawn), -1) for name in columns.SHAPE if name in values]
    return torch.cat([*parts, estimate.colours], 1)


def columns_of_pdf(mass: Tensor, grid: Grid, drawn: Tensor) -> dict[str, Tensor]:
    """Columns (B,) or (B, 20) computed from p(z), (B, K)."""
    best, risk = pdf.best(mass, grid)
    mode, second = pdf.modes(mass, grid)
    fixed = fixed_levels(mass.device, mass.dtype).expand(len(mass), -1)
    quantiles = pdf.quantiles(mass, grid, torch.cat([drawn.to(mass)[:, None], fixed], 1))
    mc, *levels = quantiles[:, : 1 + len(LEVELS)].unbind(1)
    return {
        "PHOTOZ_BEST": best,
        "PHOTOZ_RISK_BEST": risk,
        "PHOTOZ_CONF_BEST": pdf.confidence(mass, grid, best),
        "PHOTOZ_STD_BEST": pdf.spread(mass, grid, best),
        "PHOTOZ_MEAN": pdf.mean(mass, grid),
        "PHOTOZ_MODE": mode,
        "PHOTOZ_MODE2": second,
        "PHOTOZ_MC": mc,
        **dict(zip(LEVELS, levels, strict=True)),
        columns.QUANTILES: quantiles[:, 1 + len(LEVELS) :],
    }


def columns_of_class(spectype: Tensor) -> dict[str, Tensor]:
    """Columns (B,) of the probabilities of classes (B, 3), or of (B, 0): NaN."""
    if not spectype.shape[1]:
        spectype = spectype.new_full((len(spectype), len(columns.CLASSES)), torch.nan)
    return dict(zip(columns.CLASSES, spectype.unbind(1), strict=True))
