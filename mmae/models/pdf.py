"""What a p(z) says: point estimates, errors, intervals, risk, quantiles.

A p(z) is given by its mass in bins that are equal in x = ln(1 + z), the density in x being constant within a
bin. So those of N galaxies are a tensor (N, K), and a CDF is linear in x between the edges of the bins. Every
function takes the masses and their grid, works on the device they are on, and treats each galaxy by itself.
The names are those of the HSC photo-z catalogues (Tanaka et al. 2018, PASJ 70, S9).
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import cast

import torch
from torch import Tensor

from mmae.models.linear import product
from mmae.models.losses import HSC_WIDTH, hsc

CONF_WIDTH = 0.03
"""Confidence is the mass within this much of a redshift, times 1 + it."""
PEAK_RATIO = 0.05
"""A second peak counts if its density is at least this part of the highest."""


@dataclass(frozen=True)
class Grid:
    """K bins from redshift 0 to z_max, equal in x = ln(1 + z); its tensors are float64, on the CPU."""

    bins: int
    z_max: float

    @property
    def step(self) -> float:
        """Width of a bin in x."""
        return math.log1p(self.z_max) / self.bins

    @cached_property
    def edges(self) -> Tensor:
        """(K + 1,) redshifts"""
        return torch.expm1(self.step * torch.arange(self.bins + 1, dtype=torch.float64))

    @cached_property
    def centres(self) -> Tensor:
        """(K,) redshifts, in the middle of the bins in x"""
        return torch.expm1(self.step * (torch.arange(self.bins, dtype=torch.float64) + 0.5))

    @cached_property
    def loss(self) -> Tensor:
        """(K, K) HSC loss: estimate in one bin, truth in another."""
        return hsc(self.centres[:, None], self.centres[None, :])

    def like(self, name: str, mass: Tensor) -> Tensor:
        """One of the tensors above, on the device and in the precision of `mass`."""
        return _copy(self, name, mass.device, mass.dtype)

    def softened(self, z: Tensor) -> Tensor:
        """What to train a p(z) on: a Gaussian of 0.6 bins about each redshift (N,), as masses (N, K).

        Neighbouring bins learn from each other; a spectroscopic redshift is far more precise than a bin.
        """
        x = torch.log1p(z)[:, None] / self.step - 0.5
        return (-0.5 * ((torch.arange(self.bins, device=z.device) - x) / 0.6) ** 2).softmax(1)

    def bin(self, z: Tensor) -> Tensor:
        """Number of the bin of each redshift, the first and the last for those beyond."""
        return (torch.log1p(z) / self.step).floor().long().clamp(0, self.bins - 1)


@cache
def _copy(grid: Grid, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    return cast(Tensor, getattr(grid, name)).to(device, dtype)


def below(mass: Tensor) -> Tensor:
    """P(redshift <= z) at the edges of the bins: (N, K) -> (N, K + 1)."""
    return torch.nn.functional.pad(mass.cumsum(1), (1, 0))


def entropy(mass: Tensor) -> Tensor:
    """How wide a p(z) is, however many peaks it has: of masses (N, K), (N,)."""
    return -torch.xlogy(mass, mass).sum(1)


def recalibrated(mass: Tensor, levels: Tensor) -> Tensor:
    """The p(z) whose CDF is G(F), F being the CDF of `mass`: (N, K) -> (N, K).

    G is a polyline, that of the PIT of galaxies of known redshift, so that their PIT becomes even (Bordoloi
    et al. 2010, MNRAS 406, 881). levels (N, L + 1), ascending from 0 to 1: where each G is 0, 1/L, ..., 1.
    """
    total = below(mass)
    k = torch.searchsorted(levels[:, 1:-1].contiguous(), total)
    low, high = levels.gather(1, k), levels.gather(1, k + 1)
    share = ((total - low) / (high - low)).clamp(0, 1)
    return ((k + share) / (levels.shape[1] - 1)).diff(dim=1).clamp(min=0)


def cdf(mass: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """P(redshift <= z), one z a galaxy: (N, K) and (N,) -> (N,)."""
    k = grid.bin(z)[:, None]
    share = (torch.log1p(z)[:, None] / grid.step - k).clamp(0, 1)
    return (below(mass).gather(1, k) + share * mass.gather(1, k))[:, 0]


def quantiles(mass: Tensor, grid: Grid, levels: Tensor) -> Tensor:
    """Redshifts below which the mass is `levels`: (N, K) and (N, L) -> (N, L)."""
    total = below(mass)
    total = total / total[:, -1:]
    k = torch.searchsorted(total[:, 1:].contiguous(), levels.contiguous()).clamp(max=grid.bins - 1)
    low, high = total.gather(1, k), total.gather(1, k + 1)
    share = ((levels - low) / (high - low).clamp(min=1e-30)).clamp(0, 1)
    return torch.expm1((k + share) * grid.step)


def density(mass: Tensor, grid: Grid) -> Tensor:
    """dP/dz at the centres of the bins, (N, K)."""
    return mass / (grid.step * (1 + grid.like("centres", mass)))


def best(mass: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """The redshift of least risk R(z) = integral p(z') L(z, z') dz', and that risk: (N,), (N,).

    L is the HSC loss (Tanaka et al. 2018, section 4.2). The minimum over the bins is refined by the parabola
    through it and its neighbours.
    """
    risk = product(mass, grid.like("loss", mass))
    k = risk.argmin(1, keepdim=True).clamp(1, grid.bins - 2)
    before, here, after = (risk.gather(1, k + shift)[:, 0] for shift in (-1, 0, 1))
    curvature, slope = before - 2 * here + after, (before - after) / 2
    step = torch.where(curvature > 0, slope / curvature, 0.0).nan_to_num(0.0).clamp(-1, 1)
    z = torch.expm1(((k[:, 0] + 0.5 + step) * grid.step).clamp(min=0))
    return z, here - slope * step + curvature * step**2 / 2


def mean(mass: Tensor, grid: Grid) -> Tensor:
    """Of p(z), (N,)."""
    return (mass * grid.like("centres", mass)).sum(1)


def spread(mass: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """Root of the second moment of p about z (N,)."""
    return (mass * (grid.like("centres", mass) - z[:, None]) ** 2).sum(1).sqrt()


def confidence(mass: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """The mass within 0.03 (1 + z) of z, (N,)."""
    width = CONF_WIDTH * (1 + z)
    return cdf(mass, grid, z + width) - cdf(mass, grid, (z - width).clamp(min=0))


def modes(mass: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Redshifts of the highest peak and of the highest one elsewhere, (N,) each; NaN where there is none.

    Elsewhere is more than 0.15 (1 + z) away: who takes one for the other makes an outlier.
    """
    p = density(mass, grid)
    sides = torch.nn.functional.pad(p, (1, 1), value=-1.0)
    peaks = torch.where((p > sides[:, :-2]) & (p >= sides[:, 2:]), p, -1.0)
    height, first = peaks.max(1, keepdim=True)
    z = grid.like("centres", mass)
    near = (z - z[first]).abs() <= HSC_WIDTH * (1 + z[first])
    other, second = peaks.masked_fill(near, -1.0).max(1)
    return z[first[:, 0]], torch.where(other >= PEAK_RATIO * height[:, 0], z[second], torch.nan)
