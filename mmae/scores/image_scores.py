"""Scores of rebuilt images: errors of hidden pixels, and of the galaxy measured on the filled image.

A filled image is the true image with its hidden pixels replaced by the rebuilt ones. Measurements on it are
compared to the same measurements on the true image, so that PSF, noise and neighbours are the same in both.
"""

import math
from typing import NamedTuple

import numpy as np

from catalogs.bands import HSC
from catalogs.store.format import SIZE

G_BAND, I_BAND = HSC.index("hsc_g"), HSC.index("hsc_i")
CENTRE = SIZE // 2
"""Row and column of the galaxy, pixels."""
APERTURE = 12.0
"""Radius of the aperture of total fluxes, pixels: 2 arcsec of HSC."""
WEIGHT = 6.0
"""Sigma of the round Gaussian weight of the moments, pixels: it keeps the outer noise from dominating."""

Y, X = (axis.ravel() - CENTRE for axis in np.indices((SIZE, SIZE)))
RADIUS = np.hypot(X, Y)
RADII = np.arange(0.5, APERTURE + 0.25, 0.5)
COVERAGE = np.clip(RADII[:, None] - RADIUS + 0.5, 0, 1)
"""Fraction of each pixel within each radius, (24, 4096), as if its edge were tangential."""


class Galaxy(NamedTuple):
    """Measurements of galaxies; each (B,) float64, NaN where there is no positive flux."""

    flux: np.ndarray
    """i-band flux in the aperture, in the unit of the image."""
    colour: np.ndarray
    """g - i in the aperture, mag."""
    radius: np.ndarray
    """i-band half-light radius, pixels."""
    e1: np.ndarray
    """Ellipticity (Qxx - Qyy) / (Qxx + Qyy) of the i band, Q being second moments under WEIGHT."""
    e2: np.ndarray
    """2 Qxy / (Qxx + Qyy)"""


def measure(image: np.ndarray) -> Galaxy:
    """Measure the galaxies at the centres of images (B, 5, 64, 64)."""
    pixels = image.reshape(len(image), len(HSC), -1).astype(np.float64)
    flux = np.where((sums := pixels @ COVERAGE[-1]) > 0, sums, np.nan)  # (B, 5)
    growth = pixels[:, I_BAND] @ COVERAGE.T
    e1, e2 = ellipticity(pixels[:, I_BAND])
    return Galaxy(
        flux[:, I_BAND], -2.5 * np.log10(flux[:, G_BAND] / flux[:, I_BAND]), half_light_radius(growth), e1, e2
    )


def half_light_radius(growth: np.ndarray) -> np.ndarray:
    """Radius at which curves of growth (B, R) first reach half their last value, pixels; (B,)."""
    half = growth[:, -1] / 2
    known = half > 0
    after = np.argmax(growth >= half[:, None], axis=1)
    inner = np.where(after > 0, np.take_along_axis(growth, after[:, None] - 1, 1)[:, 0], 0.0)
    outer = np.take_along_axis(growth, after[:, None], 1)[:, 0]
    start = np.where(after > 0, RADII[after - 1], 0.0)
    step = np.divide(half - inner, outer - inner, out=np.zeros_like(half), where=known)
    return np.where(known, start + step * (RADII[after] - start), np.nan)


def ellipticity(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """e1 and e2 of images (B, 4096), (B,) each, from moments under a Gaussian weight in the aperture."""
    weighted = pixels * np.exp(-0.5 * (RADIUS / WEIGHT) ** 2) * (RADIUS <= APERTURE)
    xx, yy, xy = (weighted @ moment for moment in (X * X, Y * Y, X * Y))
    size = np.where(xx + yy > 0, xx + yy, np.nan)
    return (xx - yy) / size, 2 * xy / size


def magnitude(flux: np.ndarray, zero_point: float) -> np.ndarray:
    """AB magnitudes; NaN stays NaN."""
    return zero_point - 2.5 * np.log10(flux)


def pixel_scores(
    rebuilt: np.ndarray, truth: np.ndarray, hidden: np.ndarray, noise: np.ndarray
) -> dict[str, np.ndarray]:
    """Errors over the hidden pixels of each galaxy, (B,) each; NaN where nothing is hidden.

    rebuilt, truth, hidden (B, 5, 64, 64); noise of the sky, (5,) or that of each image, (B, 5).

    - rms error, median error: root mean square, and 1.4826 median|error|, over all bands, in units of the
      sky noise; a perfect model, which cannot know the noise, has 1
    - PSNR: 20 log10(peak / rms error) of the i band, with the peak of the true image, hidden or not, dB
    """
    error = np.ma.array((rebuilt - truth) / noise[..., None, None], mask=~hidden)
    peak = np.where((top := truth[:, I_BAND].max((1, 2))) > 0, top, np.nan)
    i_rms = np.sqrt((error[:, I_BAND] ** 2).mean((1, 2))).filled(np.nan) * noise[..., I_BAND]
    flat = np.abs(error).reshape(len(truth), -1)
    return {
        "rms error": np.sqrt((flat**2).mean(1)).filled(np.nan),
        "median error": 1.4826 * np.ma.median(flat, axis=1).filled(np.nan),
        "PSNR": 20 * np.log10(peak / i_rms),
    }


def galaxy_scores(rebuilt: Galaxy, truth: Galaxy) -> dict[str, np.ndarray]:
    """Errors of galaxies measured on filled images, (B,) each; infinite where the measurement failed.

    flux error: |f / f0 - 1|; colour error: |g - i| in mag; radius error: |r / r0 - 1|; shape error: |e - e0|.
    """
    scores = {
        "flux error": np.abs(rebuilt.flux / truth.flux - 1),
        "colour error": np.abs(rebuilt.colour - truth.colour),
        "radius error": np.abs(rebuilt.radius / truth.radius - 1),
        "shape error": np.hypot(rebuilt.e1 - truth.e1, rebuilt.e2 - truth.e2),
    }
    true = (truth.flux, truth.colour, truth.radius, truth.e1)
    return {
        name: np.where(np.isnan(score) & np.isfinite(known), math.inf, score)
        for (name, score), known in zip(scores.items(), true, strict=True)
    }
