"""How far a program is from the model it was made of, and one precision from another."""

import numpy as np
import torch
from torch import Tensor, nn

from mmae.bundles.image_mask import visible_tokens
from mmae.layers.conditions import split_told
from mmae.layers.patches import IMAGE_TOKENS, observed_bands
from mmae.layers.photometry import set_numbers
from mmae.models.families import AnyModel
from mmae.models.output import Estimate

LIMITS = {torch.float64: 1e-10, torch.float32: 1e-4}
"""Largest difference allowed between a program and the full model, in either precision. In float64 it is that
of the algorithm; in float32 that of rounding, which a steep calibration of p(z) amplifies a hundred times."""
CHECKED_ROWS, CHECKED_MASKS = 32, (0.0, 0.25, 0.75)
"""Images on which programs are compared with the full model, and shares of them hidden."""


def disagreement(
    model: AnyModel, program: nn.Module, image: Tensor, conditions: Tensor | None = None
) -> float:
    """Largest difference between the full model and the program, with none and with parts of images hidden.

    In the redshift of the scalar head, in the mass of a bin of p(z), and in the probability of a class.
    """
    rows = len(image)
    spectrum = torch.zeros(rows, model.config.spectrum_length, dtype=image.dtype)
    no_spectrum = torch.ones(rows, model.config.spectrum_tokens, dtype=torch.bool)
    as_they_are = lambda logits, *_: logits  # noqa: E731, the paper's model has no p(z)
    calibrated = getattr(program, "calibrated", as_they_are)
    classified = getattr(program, "classified", as_they_are)
    bands = set_numbers(observed_bands(image))
    if model.config.columns and conditions is not None:
        _, columns = split_told(conditions, image.shape[1], len(model.config.columns))
        bands = bands + 2 ** image.shape[1] * (~columns.isnan()).any(1)
    largest = []
    for ratio in CHECKED_MASKS:
        visible = torch.from_numpy(visible_tokens(np.arange(rows), IMAGE_TOKENS, ratio, draw=0, seed=0))
        hidden = torch.ones(rows, IMAGE_TOKENS, dtype=torch.bool).scatter(1, visible, False)
        with torch.inference_mode():
            full = model(image, spectrum, hidden, no_spectrum, conditions=conditions)
            own = program(image, visible if ratio else None, conditions)
        mass = calibrated(full.logits, bands, full.shallow, full.central)
        spectype = classified(full.spectype, bands)
        largest += [(full.point - own.point).abs().max(), *(mass - own.mass).abs().amax(0)]
        largest += (spectype - own.spectype).abs().amax(0)
    return float(torch.stack(largest).max())  # NaN if any is


def difference(one: Estimate, other: Estimate) -> float:
    """Largest difference of two programs' redshifts, masses of p(z), and probabilities of classes."""
    pairs = ((one.point, other.point), (one.mass, other.mass), (one.spectype, other.spectype))
    return float(torch.stack([(a - b).abs().max() for a, b in pairs if a.numel()]).max())  # NaN if any is


def precision_error(exact: Tensor, reduced: Tensor) -> dict[str, float]:
    """|dz|/(1 + z) of redshifts (N,) against exact ones."""
    error = ((reduced - exact) / (1 + exact)).abs()
    return {"median": float(error.median()), "p99": float(error.quantile(0.99)), "max": float(error.max())}
