"""Similarity of a galaxy to the training set, by its joint representation."""

import torch
from torch import Tensor, nn

from mmae.layers.linear import product
from mmae.layers.whitening import whitening

SHRINKAGE = 0.01
"""Fraction of the mean variance added to every direction, for those with hardly any variance."""


TAIL = 0.1
"""Fraction of the distances that the tail is fitted to."""
MIN_TAIL = 20
"""Galaxies in the tail, at the least; with fewer there is none, and no p-value is below 1 / (1 + M)."""


class Typicality(nn.Module):
    """Fraction of galaxies that are at least as far from the training set's centre: a p-value.

    The distance is that of Mahalanobis (Lee et al. 2018). Beyond nine tenths of the galaxies the fraction
    falls off as a power of the distance, with the exponent of Hill (1975), so that a few hundred galaxies
    tell one in ten thousand. NaN until fitted.
    """

    centre: Tensor
    whiten: Tensor
    distances: Tensor
    threshold: Tensor
    """Where the tail begins; infinite where there is none."""
    exponent: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.tail_share = TAIL
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("whiten", torch.zeros(width, width))
        self.register_buffer("distances", torch.zeros(0))
        self.register_buffer("threshold", torch.tensor(torch.inf))
        self.register_buffer("exponent", torch.ones(()))

    def distance(self, joint: Tensor) -> Tensor:
        """Squared distance of representations (B, J): (B,)."""
        return product(joint - self.centre, self.whiten.t()).square().sum(1)

    def forward(self, joint: Tensor) -> Tensor:
        """p-values (B,) of representations (B, J)."""
        number = self.distances.shape[0]
        if number == 0:
            return torch.full_like(joint[:, 0], torch.nan)
        distance = self.distance(joint)
        nearer = torch.searchsorted(self.distances, distance)
        counted = (1 + number - nearer).to(joint.dtype) / (1 + number)
        tail = self.tail_share * (distance / self.threshold) ** -self.exponent
        return torch.where(distance > self.threshold, tail, counted)

    @torch.inference_mode()
    def fit(self, trained: Tensor, others: Tensor) -> None:
        """Fit centre and covariance to the training split (N, J), the p-value to other galaxies (M, J)."""
        floor = SHRINKAGE * float(trained.double().var(0).mean())
        self.centre, self.whiten = whitening(trained, floor)
        self.distances = self.distance(others).sort().values
        in_tail = int(TAIL * len(self.distances))
        if in_tail >= MIN_TAIL:
            self.threshold = self.distances[-in_tail - 1]
            self.exponent = 1 / (self.distances[-in_tail:] / self.threshold).log().mean()
