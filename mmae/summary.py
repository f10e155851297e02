"""From what a model says of galaxies to columns of the catalogue, on the device the model is on."""

from functools import cache

import torch
from torch import Tensor

from catalogs.schema import QUANTILE_LEVELS
from mmae import pdf
from mmae.output import Estimate
from mmae.pdf import Grid

INTERVALS = (0.16, 0.84, 0.025, 0.975)


@cache
def fixed_levels(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Levels of the median, the ends of the intervals and PDF_QUANT; copied to a device once."""
    return torch.tensor([0.5, *INTERVALS, *QUANTILE_LEVELS], dtype=dtype, device=device)


def table(estimate: Estimate, grid: Grid | None, drawn: Tensor) -> Tensor:
    """The columns of columns.SHAPE side by side, (B, C) float32.

    drawn (B,): from 0 to 1, the level at which PHOTOZ_MC is read off.
    """
    point, mass, _, typical = estimate
    if grid is None:
        return torch.stack([point, typical], 1)
    mass = mass / mass.sum(1, keepdim=True)
    best, risk = pdf.best(mass, grid)
    fixed = fixed_levels(mass.device, mass.dtype).expand(len(mass), -1)
    levels = torch.cat([drawn.to(mass)[:, None], fixed], 1)
    numbers = (
        *(point, typical, best, risk),
        *(pdf.confidence(mass, grid, best), pdf.spread(mass, grid, best), pdf.mean(mass, grid)),
        *pdf.modes(mass, grid),
    )
    return torch.cat([torch.stack(numbers, 1), pdf.quantiles(mass, grid, levels)], 1)
