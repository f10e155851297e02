"""Models of either family as after training, and images for them; in float64, where equal means equal."""

import torch

from mmae.models.families import build

NOISE = [0.037, 0.057, 0.077, 0.156, 0.287]
"""Of an HSC-like sky, a band each."""


def shaken(config):
    """A model none of whose weights is 0 or 1."""
    torch.manual_seed(11)
    model = build(config).double().eval()
    model.fit(images(64) * 0.05, NOISE)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def images(rows=6):
    """From faint to brighter than any galaxy."""
    generator = torch.Generator().manual_seed(5)
    image = torch.randn(rows, 5, 64, 64, generator=generator, dtype=torch.float64)
    return image * torch.logspace(-3, 3, rows)[:, None, None, None]
