"""Similarity of a galaxy to the training set, by its joint representation."""

import torch
from torch import Tensor, nn

from mmae.models.linear import product
from mmae.models.whitening import whitening

SHRINKAGE = 0.01
"""Fraction of the mean variance added to every direction, for those with hardly any variance."""


class Typicality(nn.Module):
    """Fraction of galaxies that are at least as far from the training set's centre: a p-value.

    The distance is that of Mahalanobis (Lee et al. 2018). NaN until fitted.
    """

    centre: Tensor
    whiten: Tensor
    distances: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("whiten", torch.zeros(width, width))
        self.register_buffer("distances", torch.zeros(0))

    def distance(self, joint: Tensor) -> Tensor:
        """Squared distance of representations (B, J): (B,)."""
        return product(joint - self.centre, self.whiten.t()).square().sum(1)

    def forward(self, joint: Tensor) -> Tensor:
        """p-values (B,) of representations (B, J)."""
        number = self.distances.shape[0]
        if number == 0:
            return torch.full_like(joint[:, 0], torch.nan)
        nearer = torch.searchsorted(self.distances, self.distance(joint))
        return (1 + number - nearer).to(joint.dtype) / (1 + number)

    @torch.inference_mode()
    def fit(self, trained: Tensor, others: Tensor) -> None:
        """Fit centre and covariance to the training split (N, J), the p-value to other galaxies (M, J)."""
        floor = SHRINKAGE * float(trained.double().var(0).mean())
        self.centre, self.whiten = whitening(trained, floor)
        self.distances = self.distance(others).sort().values
