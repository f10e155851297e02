"""Loss functions; each model defines which it uses, and their weights."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmae.layers.branches import are_free
from mmae.layers.patches import pixels_of
from mmae.layers.pdf import hsc


class Losses(NamedTuple):
    total: Tensor
    """()"""
    parts: Tensor
    """(P,)"""


def combined(parts: Tensor, weights: Mapping[str, float]) -> Losses:
    """Losses (P,) of what a model learns, in the order of their weights by name, and their weighted sum."""
    weighted = [weight * part for weight, part in zip(weights.values(), parts, strict=True)]
    return Losses(torch.stack(weighted).sum(), parts)


def hsc_loss(predicted: Tensor, redshift: Tensor, right: Tensor, known: Tensor) -> Tensor:
    """Mean of `hsc`, times the probability that the redshift is right, where one is known; inputs (B,).

    What is not known is not looked at: a NaN that is left out of a mean is in its gradient.
    """
    return masked_mean(hsc(predicted, redshift.nan_to_num(0.0)) * right, known)


def crossed(logits: Tensor, labels: Tensor, right: Tensor, others: Tensor) -> Tensor:
    """Cross-entropy of p(z), where a redshift may be another galaxy's: (B, ...).

    Minus the mean of ln(r p + (1 - r) n) over the soft labels: with the probability 1 - r it is drawn from
    the redshifts n(z) of others. So a redshift that p(z) excludes pulls at it the less, the surer p(z) is;
    r = 1 is the usual case.

    logits (B, ..., K); labels, of this shape or one that expands to it, sum to 1; right (B,); others (K,),
    the masses of n(z)
    """
    log_p = logits.log_softmax(-1)
    if are_free(right) or (right < 1).any():
        share = right.view(-1, *[1] * (logits.ndim - 1))
        log_p = torch.logaddexp(log_p + share.log(), ((1 - share) * others).log())
    return -(labels * log_p).sum(-1)


def masked_mean(values: Tensor, hidden: Tensor) -> Tensor:
    """Mean of values where `hidden` (same shape, boolean); 0 where there are none."""
    return torch.where(hidden, values, 0.0).sum() / hidden.sum().clamp(min=1)


def image_pixels(mask: Tensor, shape: torch.Size) -> Tensor:
    """Token mask (B, 64), row by row -> pixel mask (B, bands, H, W)."""
    return pixels_of(mask).expand(shape)


def spectrum_pixels(mask: Tensor, length: int, patch: int) -> Tensor:
    """Token mask (B, T) -> pixel mask (B, length); pixels beyond the last token are never hidden."""
    pixels = mask.repeat_interleave(patch, 1)
    return F.pad(pixels, (0, length - pixels.shape[1]))
