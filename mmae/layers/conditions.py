"""What is known of an image beside its pixels: its depth, the seeing, and the extinction by the Galaxy.

Depth is the noise of the sky in each band. Where it is not told it is measured, in the patches at the border.
"""

import torch
from torch import Tensor, nn

from mmae.layers.patches import SIDE

SHALLOWEST = 3.0
"""Factor by which the noise may exceed that of the training images: they are made so much noisier."""
LEAST_SCATTER = 0.02
"""Smallest scatter of ln FWHM, and of E(B - V) in mag, with information."""
TAILS = (0.01, 0.99)
"""Quantiles of the noise of the training images between which depth is told."""


def unknown(image: Tensor) -> Tensor:
    """Conditions (B, 2 * bands + 1) of images (B, bands, 64, 64) of which nothing but they is known."""
    shape = (image.shape[0], 2 * image.shape[1] + 1)
    return torch.full(shape, torch.nan, dtype=image.dtype, device=image.device)


def split_told(told: Tensor, bands: int, columns: int) -> tuple[Tensor, Tensor]:
    """Conditions (B, 2 * bands + 1), and the columns of a catalogue (B, C) that may stand after them.

    These are NaN, not known, where nothing does.
    """
    of_image = 2 * bands + 1
    if told.shape[1] > of_image:
        return told[:, :of_image], told[:, of_image:]
    absent = torch.full((told.shape[0], columns), torch.nan, dtype=told.dtype, device=told.device)
    return told, absent


def border() -> Tensor:
    """Numbers of the patches at the border of an image, (28,)."""
    side = torch.arange(SIDE**2).view(SIDE, SIDE)
    inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    inside[1:-1, 1:-1] = True
    return side[~inside]


def sky_noise(pixels: Tensor, weights: Tensor, border: Tensor, of_patch: int = 64) -> Tensor:
    """Noise of the sky (B, bands) in patches (B, 64, bands * 64) of images; NaN where it cannot be seen.

    The median of the standard deviations of the patches at the border, so that a neighbour or two do not
    count; of those with data in half of their pixels.
    weights, of the shape and type of the pixels, or (B, 64, 64) for all bands: 1 = seen, 0 = not, and the
    pixel is 0.
    """
    sky = pixels.index_select(1, border).unflatten(2, (-1, of_patch))  # (B, 28, bands, 64)
    seen = weights.index_select(1, border).unflatten(2, (-1, of_patch))
    number = seen.sum(3)
    mean = (sky * seen).sum(3) / number.clamp(min=1)
    variance = ((sky - mean.unsqueeze(3)).square() * seen).sum(3) / (number - 1).clamp(min=1)
    usable = (number >= of_patch // 2).expand_as(variance)  # (B, 28, bands)
    ordered = variance.sqrt().masked_fill(~usable, torch.inf).sort(1)[0]
    several = usable.sum(1)
    median = ordered.gather(1, (several - 1).clamp(min=0).floor_divide(2).unsqueeze(1)).squeeze(1)
    return median.masked_fill(several == 0, torch.nan)


def features_of(sets: Tensor) -> Tensor:
    """Which features of `Conditions` are of the bands of sets (S, bands), or of none: (S, 3 * bands + 2)."""
    always = torch.ones_like(sets[:, :1])
    return torch.cat([sets, sets, always, sets, always], 1)


def shallowness(depth: Tensor, absent: Tensor, most: float) -> Tensor:
    """How shallow images are, (B,): 0 as those of the training set or deeper, 1 by the factor e^most or more.

    depth (B, bands): logarithm of the noise, as the first features of `Conditions`; absent (B, bands), 1: the
    band is not there.
    """
    there = 1 - absent
    mean = (depth * there).sum(1) / there.sum(1).clamp(min=1)
    return (mean / most).clamp(0, 1)


class Conditions(nn.Module):
    """Logarithms of noise and seeing, and the extinction, in units of their scatter in the training set.

    What was never told in training is not told later: nothing was learned of it. Images deeper than those of
    the training set count as the deepest of these, shallower ones up to a factor as what they are.
    """

    border: Tensor
    lowest: Tensor
    """(bands,), of the logarithm of the noise, in units of that of the training set"""
    highest: Tensor
    centre: Tensor
    """(bands + 1,): mean ln FWHM by band, and mean E(B - V)"""
    scale: Tensor
    """(bands + 1,): 1 / scatter; 0 for what was never told"""

    def __init__(self, bands: int):
        super().__init__()
        self.features = 3 * bands + 2
        self.register_buffer("border", border(), persistent=False)
        self.register_buffer("lowest", torch.zeros(bands))
        self.register_buffer("highest", torch.zeros(bands))
        self.register_buffer("centre", torch.zeros(bands + 1))
        self.register_buffer("scale", torch.zeros(bands + 1))

    def forward(self, pixels: Tensor, weights: Tensor, noise: Tensor, told: Tensor) -> tuple[Tensor, Tensor]:
        """Noise of images (B, bands), and features of all conditions (B, 3 * bands + 2).

        pixels (B, 64, bands * 64) in units of `noise` (bands,), that of the training set, as is the noise
        returned; weights: 1 = seen, 0 = not; told (B, 2 * bands + 1): see ModelInput, NaN: not
        known.
        """
        depth = self.depth(pixels, weights, noise, told)
        depth = torch.maximum(torch.minimum(depth, self.highest), self.lowest)
        depth = depth.masked_fill(depth.isnan(), 0.0)
        others = (self.others(told) - self.centre) * self.scale
        untold = others.isnan()
        others = others.masked_fill(untold, 0.0).clamp(-3, 3)
        absent = untold.to(depth.dtype) * (self.scale > 0).to(depth.dtype)
        return depth.exp(), torch.cat([depth, others, absent], 1)

    def depth(self, pixels: Tensor, weights: Tensor, noise: Tensor, told: Tensor) -> Tensor:
        """Logarithm of the noise in units of that of the training set, (B, bands); NaN: not known."""
        given = told[:, : noise.shape[0]] / noise
        measured = sky_noise(pixels, weights, self.border)
        return torch.where(given.isnan(), measured, given).log()

    def others(self, told: Tensor) -> Tensor:
        """ln FWHM by band, and E(B - V): (B, bands + 1)."""
        bands = told.shape[1] // 2
        return torch.cat([told[:, bands:-1].log(), told[:, -1:]], 1)

    @torch.inference_mode()
    def fit(self, pixels: Tensor, weights: Tensor, noise: Tensor, told: Tensor) -> None:
        """Fit to the training set; arguments as for `forward`."""
        depth = self.depth(pixels, weights, noise, told)
        depth = depth.masked_fill(depth.isinf(), torch.nan)
        for k, band in enumerate(depth.unbind(1)):
            known = band[~band.isnan()]
            if len(known):
                low, high = known.quantile(known.new_tensor(TAILS))
                self.lowest[k], self.highest[k] = low, high + torch.tensor(SHALLOWEST).log()
        for k, values in enumerate(self.others(told).unbind(1)):
            known = values[~values.isnan()]
            if len(known) > 1:
                self.centre[k], self.scale[k] = known.mean(), 1 / known.std().clamp(min=LEAST_SCATTER)
