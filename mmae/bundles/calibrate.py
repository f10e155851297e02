"""What is fitted to galaxies after training: the width of p(z), and what is typical."""

from typing import Any

import torch
from torch import Tensor, nn

from mmae.bundles.image_pdf import ImagePdf
from mmae.bundles.program import Program, estimates
from mmae.bundles.sample import Sample
from mmae.models import pdf
from mmae.models.pdf import Grid

PIT_PIECES, PIT_RESOLUTION = 16, 5e-3
"""Of the polylines that p(z) is calibrated by, and the least step between two of their levels."""
LEAST_APART = 0.1
"""Entropies, in nats, between which one map of p(z) passes into the other: so that no rounding decides."""


def calibrate(program: Program, sample: Sample) -> dict[str, Any]:
    """Fit the width of p(z), and what is typical, to galaxies; gives what the card says of it."""
    if sample.redshift is None:
        return {"galaxies": "none", "p(z)": "as the model gives it", "typicality": "not known", "tail": False}
    others = estimates(program, sample.image)
    program.typicality.fit(estimates(program, sample.trained).joint, others.joint)
    fitted = calibrate_pdf(program, others.mass, sample.redshift) if isinstance(program, ImagePdf) else "none"
    return {
        "galaxies": f"{len(others.joint)} {sample.name}",
        "p(z)": fitted,
        "typicality": f"distances of {len(others.joint)} galaxies from {len(sample.trained)}",
        "tail": bool(program.typicality.threshold.isfinite()),
    }


def calibrate_pdf(program: ImagePdf, mass: Tensor, redshift: Tensor) -> dict[str, Any]:
    """Fit the width of p(z), mass (N, K) so far, and then its CDF, to redshifts (N,).

    The temperature alone would make bright galaxies pay for the outliers: the likelihood asks for wide tails,
    and one width serves tails and core. The CDFs of the narrower half, those of bright galaxies, and of the
    wider one are mapped apart.
    """
    logits = mass.clamp(min=1e-30).log()
    program.temperature.fill_(temperature(logits, redshift, program.grid))
    mass = program.calibrated(logits)
    pit, width = pdf.cdf(mass, program.grid, redshift), pdf.entropy(mass)
    order, n = width.argsort(), len(width)
    halves = order[: n - n // 2], order[n // 2 :]
    program.levels = torch.stack([pit_levels(pit[half]) for half in halves])
    narrow, wide = (width[half].median() for half in halves)
    program.widths = torch.stack([narrow, torch.maximum(wide, narrow + LEAST_APART)])
    return {
        "temperature": float(program.temperature),
        "entropies": program.widths.tolist(),
        "PIT levels": program.levels.tolist(),
    }


def pit_levels(pit: Tensor) -> Tensor:
    """Quantiles of the PIT (N,) of galaxies, from 0 to 1, ascending: (PIT_PIECES + 1,)."""
    levels = pit.quantile(torch.linspace(0, 1, PIT_PIECES + 1))
    levels[0], levels[-1] = 0.0, 1.0
    least = PIT_RESOLUTION * torch.arange(PIT_PIECES + 1)
    return (levels - least).cummax(0).values.clamp(max=1 - least[-1]) + least


def temperature(logits: Tensor, redshift: Tensor, grid: Grid) -> float:
    """What to divide logits (N, K) by for the redshifts (N,) to be likeliest, from 1/4 to 4."""
    candidates = torch.logspace(-2, 2, 161, base=2.0)
    bins = grid.bin(redshift)
    losses = [nn.functional.cross_entropy(logits / candidate, bins) for candidate in candidates]
    return float(candidates[torch.stack(losses).argmin()])
