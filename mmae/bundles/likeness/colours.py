"""Photometry in units in which that of the training set is white: its mean over a tile tells of a wrong one.

Of n objects like those of the training set the mean is 0 to within 1 / sqrt(n) in every direction, and that
of a colour which galaxies hardly differ in tells of a zero point that is off by hundredths of a magnitude.
"""

import torch
from torch import Tensor, nn

from mmae.layers.linear import product
from mmae.layers.whitening import whitening

FLOOR = 1e-4
"""Smallest variance of a feature with information."""


class Colours(nn.Module):
    centre: Tensor
    whiten: Tensor
    """(F, F); the identity until fitted"""

    def __init__(self, features: int):
        super().__init__()
        self.features = features
        self.register_buffer("centre", torch.zeros(features))
        self.register_buffer("whiten", torch.eye(features))

    def forward(self, measured: Tensor) -> Tensor:
        """White features (B, F) of those of `Photometry`, (B, F and more)."""
        return product(measured[:, : self.features] - self.centre, self.whiten)

    @torch.inference_mode()
    def fit(self, colours: Tensor) -> None:
        """Fit to features (N, F) of galaxies of the training set, as they are before this."""
        self.centre, whiten = whitening(colours, FLOOR)
        self.whiten = whiten.T.contiguous()
