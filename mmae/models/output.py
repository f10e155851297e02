"""What a model says of galaxies: everything in training, what can be drawn from images in use."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    image: Tensor
    """(B, 5, 64, 64) flux at the zero point of the training set"""
    spectrum: Tensor
    """(B, L) normalised, at the resolution of the model"""
    joint: Tensor
    """(B, J), image and spectrum as one vector"""
    point: Tensor
    """(B,) redshift of the scalar head"""
    logits: Tensor
    """(B, K) of p(z), K = 0 where the model gives none"""


class Estimate(NamedTuple):
    """Of images, spectra hidden."""

    point: Tensor
    """(B,) redshift of the scalar head"""
    mass: Tensor
    """(B, K) p(z), mass in the bins of the model's grid; K = 0 where it gives none"""
    joint: Tensor
    """(B, J)"""
    typical: Tensor
    """(B,) share of galaxies that are less like the training set; NaN where that is not known"""
