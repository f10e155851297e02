"""Outputs of a model: in training, and at inference from images."""

from typing import NamedTuple

from torch import Tensor


class Output(NamedTuple):
    image: Tensor
    """(B, bands, 64, 64) flux at the zero point of the training set"""
    spectrum: Tensor
    """(B, L) normalised, at the resolution of the model"""
    joint: Tensor
    """(B, J) joint representation of image and spectrum"""
    point: Tensor
    """(B,) redshift of the scalar head"""
    logits: Tensor
    """(B, K) logits of p(z), K = 0 for a model without p(z)"""
    photometric: Tensor
    """(B, S, K) logits of p(z) from photometry alone, of networks of sets of bands; S = 0 but in training"""
    weights: Tensor
    """(B, S) of these in the loss; 0 where a band of the set is absent"""
    spectype: Tensor
    """(B, 3) logits of star, galaxy and quasar, in this order; (B, 0) for a model without classes"""
    shallow: Tensor
    """(B,) how shallow the image is (conditions.shallowness); 0 for a model without p(z)"""
    central: Tensor
    """(B, bands) magnitudes in the middle of the visible image (photometry.py); (B, 0) without p(z)"""
    columns: Tensor
    """(B, C) columns of a catalogue, rebuilt, in units of their scatter; C = 0 for a model without"""


class Estimate(NamedTuple):
    """Estimates from images, spectra hidden."""

    point: Tensor
    """(B,) redshift of the scalar head"""
    mass: Tensor
    """(B, K) p(z), mass in the bins of the model's grid; K = 0 for a model without p(z)"""
    joint: Tensor
    """(B, J) joint representation"""
    typical: Tensor
    """(B,) fraction of galaxies that are less typical of the training set; NaN where it is not known"""
    backing: Tensor
    """(B,) distance to galaxies with redshifts (likeness/backing.py); NaN where it is not known"""
    central: Tensor
    """(B, bands) magnitudes in the middle of the image (photometry.py); (B, 0) for a model without p(z)"""
    colours: Tensor
    """(B, F) photometry, white in the training set (likeness/colours.py); F = 0 for a model without"""
    spectype: Tensor
    """(B, 3) probabilities of star, galaxy and quasar; (B, 0) for a model without classes"""
    shallow: Tensor
    """(B,) how shallow the image is (conditions.shallowness); NaN for a model without p(z)"""
