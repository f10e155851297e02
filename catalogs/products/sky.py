"""The sky of cutouts beside that of the training set: a model is silently wrong on other units."""

import numpy as np

CORNER, STRIDE = 8, 2
"""Pixels on a side of the four corners in which the sky is measured, and of which one in two is taken."""
NOISE_RATIO = 5.0
"""How many times smaller or larger than in training the noise may be."""
LEVEL = 10.0
"""How far from 0 the sky may be, in units of the noise in training: it was subtracted there."""


def medians(values: np.ndarray) -> np.ndarray:
    """Medians (...) of what is not NaN along the last axis of (..., K) values; NaN where all is.

    Those of np.nanmedian to the bit: numpy sorts with vector instructions, its medians do not.
    """
    ordered = np.sort(values, -1)  # NaN come last
    number = values.shape[-1]
    if not np.isnan(ordered[..., -1]).any():  # the usual case
        return (ordered[..., (number - 1) // 2] + ordered[..., number // 2]) / 2
    known = (~np.isnan(ordered)).sum(-1, keepdims=True)
    lower, upper = (
        np.take_along_axis(ordered, middle, -1)[..., 0]
        for middle in ((known - 1).clip(min=0) // 2, (known // 2).clip(max=number - 1))
    )
    return (lower + upper) / 2


def measure_sky(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Level and noise of the sky of cutouts (N, bands, H, W): (N, bands) each, NaN without data.

    The level is that of the corner where it is closest to 0, the noise the median of the four robust
    scatters, so that a neighbour in a corner does not count.
    """
    near, far = slice(0, CORNER, STRIDE), slice(-CORNER, None, STRIDE)
    corners = np.stack([image[..., y, x] for y in (near, far) for x in (near, far)], 2)
    corners = corners.reshape(*corners.shape[:3], -1)  # (N, bands, 4, 16)
    has_data = np.isfinite(corners).all(-1)
    level = medians(corners)
    noise = 1.4826 * medians(np.abs(corners - level[..., None]))
    closest = np.where(has_data, np.abs(level), np.inf).argmin(-1)[..., None]
    typical = np.sort(np.where(has_data, noise, np.inf), -1)
    middle = (has_data.sum(-1, keepdims=True) - 1).clip(min=0) // 2
    known = has_data.any(-1)
    level = np.where(known, np.take_along_axis(level, closest, -1)[..., 0], np.nan)
    return level, np.where(known, np.take_along_axis(typical, middle, -1)[..., 0], np.nan)


def describe_difference(image: np.ndarray, noise: np.ndarray, bands: tuple[str, ...]) -> str:
    """How the sky of cutouts differs from that of the training set: level and noise by band."""
    level, own_noise = measure_sky(image)
    there = np.isfinite(own_noise).any(0).nonzero()[0]
    return ", ".join(
        f"{bands[k]}: noise {np.nanmedian(own_noise[:, k]) / noise[k]:.2g} x, "
        f"level {np.nanmedian(level[:, k]) / noise[k]:.2g} sigma"
        for k in there
    )


def is_unlike_training(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Whether the sky of cutouts (N, bands, H, W) is unlike that of the training set in any band: (N,).

    noise (bands,): of the training set, in its flux unit.
    """
    level, own_noise = measure_sky(image)
    with np.errstate(invalid="ignore"):  # NaN where there are no data: not known to be unlike
        ratio = own_noise / noise
        unlike = (ratio > NOISE_RATIO) | (ratio < 1 / NOISE_RATIO) | (np.abs(level) > LEVEL * noise)
    return unlike.any(-1)
