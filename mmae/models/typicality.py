"""How much a galaxy is like those the model was trained on, by its joint representation."""

import torch
from torch import Tensor, nn

from mmae.models.linear import product
from mmae.models.whitening import whitening

SHRINKAGE = 0.01
"""Share of the mean variance that is added to every direction, for those the sample hardly has."""


class Typicality(nn.Module):
    """The share of galaxies that are as far from the training set's centre, or farther: a p-value.

    Far is the Mahalanobis distance (Lee et al. 2018). NaN until it is fitted.
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
        """Squared, of representations (B, J): (B,)."""
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
        """Centre and shape from galaxies of the training split (N, J); distances of others (M, J)."""
        floor = SHRINKAGE * float(trained.double().var(0).mean())
        self.centre, self.whiten = whitening(trained, floor)
        self.distances = self.distance(others).sort().values
