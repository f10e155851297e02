"""Models of either family with random weights, and images for them; in float64, for exact comparisons."""

import math

import torch

from mmae.layers.conditions import unknown
from mmae.models.families import build

NOISE = [0.037, 0.057, 0.077, 0.156, 0.287]
"""Sky noise of each band, as in HSC."""


def shaken(config):
    """A model with no weight at 0 or 1."""
    torch.manual_seed(11)
    model = build(config).double().eval()
    image = images(64) * 0.05
    model.fit(image, unknown(image), NOISE, torch.full((len(image),), math.nan))
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def images(rows=6):
    """Images from faint to brighter than any galaxy."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(rows, 5, 64, 64, generator=generator, dtype=torch.float64)
    return image * torch.logspace(-3, 3, rows)[:, None, None, None]
