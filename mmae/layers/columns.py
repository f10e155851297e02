"""Columns of a catalogue, such as magnitudes and sizes, as features, and what reads p(z) from them.

Magnitudes of a galaxy are nearly equal, and what they tell is in their small differences. So columns are
whitened as photometry is (photometry.py), each first in units of its own scatter. What is not known of an
object is what objects with the same other columns have in the mean.

p(z) with columns has a network of its own: one that corrects what the image says learns next to nothing in
hundreds of steps, as long as the image alone says nearly all.
"""

import torch
from torch import Tensor, nn

from mmae.layers.linear import product
from mmae.layers.photometry import asinh
from mmae.layers.whitening import whitening_of

FLOOR = 1e-4
"""Smallest variance with information, that of 0.01 of the scatter of a column."""
FARTHEST = 8.0
"""Distance from the median, in units of the scatter, at which values are cut off."""
WIDTH = 256
"""Of the network that reads p(z) with columns."""
LEAST_PAIRS = 10
"""Objects of which two columns are known, for their covariance to be told from none."""


class Columns(nn.Module):
    """Whitened columns, and which of them are not known."""

    centre: Tensor
    """(C,) medians"""
    scale: Tensor
    """(C,) 1 / scatter"""
    mean: Tensor
    """(C,) of the standard columns"""
    covariance: Tensor
    """(C, C) of the standard columns"""
    whiten: Tensor
    """(C, C)"""

    def __init__(self, number: int):
        super().__init__()
        self.features, self.floor, self.farthest = 2 * number, FLOOR / 2, FARTHEST
        for name in ("centre", "mean"):
            self.register_buffer(name, torch.zeros(number))
        self.register_buffer("scale", torch.ones(number))
        for name in ("covariance", "whiten"):
            self.register_buffer(name, torch.eye(number))

    def standard(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Columns (B, C) in units of their scatter, 0 where not known; and where they are known: 1 or 0."""
        unknown = values.isnan()
        standard = ((values - self.centre) * self.scale).clamp(-self.farthest, self.farthest) - self.mean
        return standard.masked_fill(unknown, 0.0), (~unknown).to(values.dtype)

    def forward(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Features (B, 2 C) of columns (B, C), NaN: not known; and whether any is known, (B, 1): 1 or 0."""
        standard, known = self.standard(values)
        white = product(self.completed(standard, known), self.whiten.t())
        return torch.cat([asinh(white), 1 - known], 1), known.amax(1, keepdim=True)

    def completed(self, standard: Tensor, known: Tensor) -> Tensor:
        """The expected standard columns (B, C), of a normal distribution, given those that are known.

        Those are taken in one after the other (a Kalman filter without noise), which takes no product of
        matrices, in which the last bits of an object could depend on its place in the batch.
        """
        mean = torch.zeros_like(standard)
        covariance = self.covariance.expand(standard.shape[0], -1, -1)
        for column in range(standard.shape[1]):
            of_it = covariance[:, :, column]
            variance = of_it[:, column].clamp(min=self.floor)
            gain = of_it * (known[:, column] / variance).unsqueeze(1)
            mean = mean + gain * (standard[:, column] - mean[:, column]).unsqueeze(1)
            covariance = covariance - gain.unsqueeze(2) * of_it.unsqueeze(1)
        return mean

    @torch.inference_mode()
    def fit(self, values: Tensor) -> None:
        """Fit medians, scatters and covariance to columns (N, C), NaN: not known."""
        for k, column in enumerate(values.unbind(1)):
            seen = column[~column.isnan()]
            if len(seen) > 1:
                self.centre[k] = seen.median()
                scatter = 1.4826 * (seen - self.centre[k]).abs().median()
                scatter = scatter if scatter > 0 else seen.std()
                self.scale[k] = 1 / scatter if scatter > 0 else 0.0
        standard, known = (x.double() for x in self.standard(values))
        self.mean.copy_(standard.sum(0) / known.sum(0).clamp(min=1))
        standard = (standard - self.mean) * known
        pairs = known.T @ known
        products = (standard.T @ standard / pairs.clamp(min=1)).where(pairs >= LEAST_PAIRS, 0.0)
        variances, axes = torch.linalg.eigh(products)  # some may be below 0: pairs are of different objects
        covariance = axes @ (variances.clamp(min=0) + FLOOR).diag() @ axes.T
        self.covariance.copy_(covariance)
        self.whiten.copy_(whitening_of(covariance))


def column_pdf(features: int, bins: int) -> nn.Sequential:
    """What `together` makes (B, F + K) -> logits (B, K) of p(z), at first all alike."""
    first, second, last = nn.Linear(features + bins, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, bins)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return nn.Sequential(first, nn.GELU(), second, nn.GELU(), last)


def together(of_columns: Tensor, beside: Tensor, logits: Tensor) -> Tensor:
    """What p(z) with columns is read from, (B, F): features of these and of the image, and its p(z) (B, K).

    The p(z) is that by photometry, which reads every set of bands best: so one network of columns serves all
    sets. Its masses are brought to the size of other features.
    """
    return torch.cat([of_columns, beside, 10 * logits.softmax(1)], 1)
