"""Statistics of p(z): point estimates, errors, intervals, risk, quantiles.

A p(z) is represented by its mass in bins that are equal in x = ln(1 + z), with constant density in x within a
bin. The p(z) of N galaxies are a tensor (N, K), and a CDF is linear in x between the edges of the bins. Every
function takes the masses and their grid, computes on their device, and treats each galaxy independently. The
names are those of the HSC photo-z catalogues (Tanaka et al. 2018, PASJ 70, S9).
"""

import math
from dataclasses import dataclass
from functools import cache, cached_property
from typing import cast

import torch
from torch import Tensor

from mmae.layers.linear import product

CONF_WIDTH = 0.03
"""Half-width of the confidence interval about a redshift, in units of 1 + z."""
PEAK_RATIO = 0.05
"""Smallest density of a second peak, relative to the highest."""
SMOOTHED = 0.03
"""Width in ln(1 + z) over which n(z) is smoothed."""
HSC_WIDTH = 0.15
"""Width of the HSC loss in dz."""


def hsc(predicted: Tensor, redshift: Tensor) -> Tensor:
    """1 - 1 / (1 + (dz / 0.15)^2) of each galaxy, dz = (z_pred - z) / (1 + z) (Tanaka et al. 2018)."""
    dz = (predicted - redshift) / (1 + redshift)
    return 1 - 1 / (1 + (dz / HSC_WIDTH) ** 2)


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
        """(K,) redshifts at the centres of the bins in x"""
        return torch.expm1(self.step * (torch.arange(self.bins, dtype=torch.float64) + 0.5))

    @cached_property
    def loss(self) -> Tensor:
        """(K, K) HSC loss of an estimate in one bin for the truth in another."""
        return hsc(self.centres[:, None], self.centres[None, :])

    def like(self, name: str, mass: Tensor) -> Tensor:
        """One of the tensors above, on the device and with the precision of `mass`."""
        return _copy(self, name, mass.device, mass.dtype)

    def soft_labels(self, z: Tensor) -> Tensor:
        """Training targets of p(z): a Gaussian of 0.6 bins about each redshift (N,), as masses (N, K).

        Neighbouring bins learn from each other; a spectroscopic redshift is far more precise than a bin.
        """
        x = torch.log1p(z)[:, None] / self.step - 0.5
        return (-0.5 * ((torch.arange(self.bins, device=z.device) - x) / 0.6) ** 2).softmax(1)

    def bin(self, z: Tensor) -> Tensor:
        """Index of the bin of each redshift; the first or the last for those beyond."""
        return (torch.log1p(z) / self.step).floor().long().clamp(0, self.bins - 1)


def distribution(redshift: Tensor, grid: Grid) -> Tensor:
    """n(z) of redshifts (N,), NaN: not known; masses (K,), smooth, and in no bin 0."""
    x = torch.log1p(redshift[~redshift.isnan()]).unsqueeze(1)
    centres = torch.log1p(grid.centres).to(x)
    near = torch.exp(-0.5 * ((x - centres) / SMOOTHED) ** 2)
    masses = near.sum(0) + 1  # as if there were one more galaxy in every bin
    return masses / masses.sum()


@cache
def _copy(grid: Grid, name: str, device: torch.device, dtype: torch.dtype) -> Tensor:
    return cast(Tensor, getattr(grid, name)).to(device, dtype)


def cumulative(mass: Tensor) -> Tensor:
    """P(redshift <= z) at the edges of the bins: (N, K) -> (N, K + 1)."""
    return torch.nn.functional.pad(mass.cumsum(1), (1, 0))


def entropy(mass: Tensor) -> Tensor:
    """Entropy of p(z), a width for any number of peaks: masses (N, K) -> (N,)."""
    return -torch.xlogy(mass, mass).sum(1)


def recalibrated(mass: Tensor, levels: Tensor) -> Tensor:
    """The p(z) whose CDF is G(F), F being the CDF of `mass`: (N, K) -> (N, K).

    G is a polyline, the CDF of the PIT of galaxies of known redshift, so that their PIT becomes uniform
    (Bordoloi et al. 2010, MNRAS 406, 881). levels (N, L + 1), ascending from 0 to 1, are where each G is 0,
    1/L, ..., 1.
    """
    total = cumulative(mass)
    k = torch.searchsorted(levels[:, 1:-1].contiguous(), total)
    low, high = levels.gather(1, k), levels.gather(1, k + 1)
    share = ((total - low) / (high - low)).clamp(0, 1)
    return ((k + share) / (levels.shape[1] - 1)).diff(dim=1).clamp(min=0)


def cdf(mass: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """P(redshift <= z), with one z per galaxy: (N, K) and (N,) -> (N,)."""
    k = grid.bin(z)[:, None]
    share = (torch.log1p(z)[:, None] / grid.step - k).clamp(0, 1)
    return (cumulative(mass).gather(1, k) + share * mass.gather(1, k))[:, 0]


def quantiles(mass: Tensor, grid: Grid, levels: Tensor) -> Tensor:
    """Redshifts at which the CDF is `levels`: (N, K) and (N, L) -> (N, L)."""
    total = cumulative(mass)
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
    before, least, after = (risk.gather(1, k + shift)[:, 0] for shift in (-1, 0, 1))
    curvature, slope = before - 2 * least + after, (before - after) / 2
    step = torch.where(curvature > 0, slope / curvature, 0.0).nan_to_num(0.0).clamp(-1, 1)
    z = torch.expm1(((k[:, 0] + 0.5 + step) * grid.step).clamp(min=0))
    return z, (least - slope * step + curvature * step**2 / 2).clamp(min=0)  # by rounding it may be -3e-9


def mean(mass: Tensor, grid: Grid) -> Tensor:
    """Mean of p(z), (N,)."""
    return (mass * grid.like("centres", mass)).sum(1)


def spread(mass: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """Root of the second moment of p(z) about z (N,), the width of the bins included."""
    centres = grid.like("centres", mass)
    within = ((1 + centres) * grid.step) ** 2 / 12  # variance of an even density in a bin
    return (mass * ((centres - z[:, None]) ** 2 + within)).sum(1).sqrt()


def confidence(mass: Tensor, grid: Grid, z: Tensor) -> Tensor:
    """Mass within 0.03 (1 + z) of z, (N,)."""
    width = CONF_WIDTH * (1 + z)
    return cdf(mass, grid, z + width) - cdf(mass, grid, (z - width).clamp(min=0))


def modes(mass: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
    """Redshifts of the highest peak and of the highest one elsewhere, (N,) each; NaN if there is none.

    Elsewhere is more than 0.15 (1 + z) away, where confusing the two makes an outlier.
    """
    p = density(mass, grid)
    sides = torch.nn.functional.pad(p, (1, 1), value=-1.0)
    peaks = torch.where((p > sides[:, :-2]) & (p >= sides[:, 2:]), p, -1.0)
    height, first = peaks.max(1, keepdim=True)
    z = grid.like("centres", mass)
    near = (z - z[first]).abs() <= HSC_WIDTH * (1 + z[first])
    other, second = peaks.masked_fill(near, -1.0).max(1)
    return z[first[:, 0]], torch.where(other >= PEAK_RATIO * height[:, 0], z[second], torch.nan)
