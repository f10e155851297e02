"""Spectra: the light that enters a fibre, at DESI's resolution, with noise and lost pixels."""

import numpy as np

from catalogs.mock.cameras import Camera
from catalogs.mock.image import fibre_fractions
from catalogs.mock.instruments import (
    FIBRE_SKY,
    PIECES,
    PIXELS,
    RESOLUTION,
    SKY_LINE_PROFILES,
    SPECTRUM_SIGMA,
    STEP,
    WAVE,
)
from catalogs.mock.population import Source
from catalogs.surveys.desi import ARMS

KERNEL_RADIUS = 5
"""Half width of the kernel, pixels."""
KERNEL = np.exp(-0.5 * (np.arange(-KERNEL_RADIUS, KERNEL_RADIUS + 1) * STEP * 2.355 / RESOLUTION) ** 2)
"""Line spread function at DESI's resolution, not normalised."""
LOST_ARM = 0.003
"""Share of spectra that lack one of the three arms."""


def fibre_spectrum(source: Source, shape: np.ndarray, camera: Camera) -> np.ndarray:
    """Noiseless spectrum, 1e-17 erg/s/cm2/A on WAVE: (7783,).

    `shape` are the transforms of the source, on the pixels of the camera.
    """
    seds = np.stack([component.sed for component in source.components])
    _, red = PIECES
    light = np.einsum("k,kp->p", fibre_fractions(shape, camera), seds[:, red][:, : PIXELS + KERNEL_RADIUS])
    return np.convolve(np.pad(light, (KERNEL_RADIUS, 0), mode="edge"), KERNEL / KERNEL.sum(), mode="valid")


def observe_spectrum(rng: np.random.Generator, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flux and inverse variance of a noiseless spectrum, (7783,) float32 each.

    Exposures and conditions scatter the noise by 0.25 in ln, calibration tilts the flux by 3 %, the sky is
    subtracted to a third of its noise at each strong line, a few ranges of pixels are lost to cosmic rays.
    """
    sigma = SPECTRUM_SIGMA * rng.lognormal(0, 0.25) * np.sqrt(1 + np.maximum(light, 0) / FIBRE_SKY)
    tilt = 1 + 0.03 * rng.standard_normal() * np.linspace(-1, 1, PIXELS)
    residual = 0.35 * rng.standard_normal(len(SKY_LINE_PROFILES)) @ SKY_LINE_PROFILES
    flux = light * tilt + sigma * (rng.standard_normal(PIXELS) + residual)
    ivar = sigma**-2
    for start in rng.integers(PIXELS, size=rng.poisson(6)):
        ivar[start : start + rng.integers(1, 12)] = 0
    if rng.random() < LOST_ARM:
        low, high = list(ARMS.values())[rng.integers(len(ARMS))]
        ivar[(low <= WAVE) & (high >= WAVE)] = 0
    return np.where(ivar > 0, flux, 0).astype(np.float32), ivar.astype(np.float32)
