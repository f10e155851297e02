"""What stands behind a p(z): the galaxies with redshifts that have its colours and magnitudes.

A model answers for every image. Where no galaxy with a redshift is like it, nothing has ever told the model
what it should have said, and no calibration can know how wrong it is.
"""

import torch
from torch import Tensor, nn

from mmae.layers.linear import product

NEIGHBOURS = 8
"""Galaxies that stand behind a p(z)."""
USUAL = 0.99
"""Share of galaxies like those with redshifts whose neighbours are at the usual distance at most."""
LEAST = 100
"""Galaxies from which the usual distance is told, at the least."""


class Backing(nn.Module):
    """Distance to the galaxies with redshifts, in units of that within which 99 % of those like them are.

    Magnitudes are those of `Photometry.central`. Only bands that an object has count, and among galaxies that
    have them all. NaN where the usual distance is not known.
    """

    known: Tensor
    """(M, bands), magnitudes of galaxies with redshifts; 0 in bands that are not there"""
    absent: Tensor
    """(M, bands), 1 where they are not"""
    usual: Tensor
    """(2, 2^bands), the usual distance by the number of the set of bands, of images as they are and with the
    most noise"""

    def __init__(self, bands: int):
        super().__init__()
        self.neighbours = NEIGHBOURS
        self.register_buffer("known", torch.zeros(0, bands))
        self.register_buffer("absent", torch.zeros(0, bands))
        self.register_buffer("usual", torch.full((2, 2**bands), torch.nan))

    def forward(self, magnitudes: Tensor, there: Tensor, sets: Tensor, shallow: Tensor) -> Tensor:
        """Distances (B,) of objects with magnitudes (B, bands) in the bands (B, bands), 1: there, 0: not.

        sets (B,): the numbers of these sets; shallow (B,): from `ImagePdf.way`.
        """
        if self.neighbours > self.known.shape[0]:
            return torch.full_like(shallow, torch.nan)
        seen = magnitudes * there
        square = (seen * seen).sum(1, keepdim=True) - 2 * product(seen, self.known)
        square = square + product(there, self.known * self.known)
        square = square.masked_fill(product(there, self.absent) > 0.5, torch.inf)
        nearest = square.clamp(min=0).topk(self.neighbours, 1, largest=False)[0].amax(1).sqrt()
        deep, shallowest = self.usual.index_select(1, sets).unbind(0)
        return (nearest / (deep + (shallowest - deep) * shallow)).nan_to_num(torch.nan, torch.nan)

    @torch.inference_mode()
    def remember(self, magnitudes: Tensor) -> None:
        """Take the magnitudes (M, bands) of galaxies with redshifts, NaN: not there; 1 is usual then."""
        self.known, self.absent = magnitudes.nan_to_num(0.0), magnitudes.isnan().to(magnitudes.dtype)
        self.usual = torch.ones_like(self.usual)

    @staticmethod
    def usual_of(distance: Tensor) -> Tensor:
        """The usual distance of galaxies (N,) that are like those with redshifts; NaN where they are few."""
        known = distance[distance.isfinite()]
        return known.quantile(USUAL) if len(known) >= LEAST else torch.tensor(torch.nan)
