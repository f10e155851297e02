"""Preview page: each object's cutouts and spectrum with its properties."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from catalogs import atomic
from catalogs.mock.cameras import Camera
from catalogs.mock.image import Artefact
from catalogs.mock.instruments import WAVE
from catalogs.mock.objects import Objects
from catalogs.store.preview import composite

ROWS = 16
"""Largest number of objects on the page."""
SMOOTHING = 9
"""Pixels of the spectrum averaged into one."""
LINES = {
    "Lyα": 1215.67,
    "C IV": 1549.1,
    "C III]": 1908.7,
    "Mg II": 2799.1,
    "[O II]": 3728.8,
    "K": 3934.8,
    "H": 3969.6,
    "Hβ": 4862.7,
    "[O III]": 5008.2,
    "Mg b": 5176.6,
    "Na D": 5894.6,
    "Hα": 6564.6,
}
"""Rest wavelengths of the lines that are marked, A in vacuum."""


def signal_to_noise(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Median S/N per pixel of spectra (..., P) over their valid pixels; 0 if none is valid."""
    ratio = np.where(ivar > 0, flux * np.sqrt(ivar), np.nan)
    empty = np.asarray((ivar <= 0).all(-1))
    return np.where(empty, 0, np.nanmedian(np.where(empty[..., None], 0, ratio), -1))


def draw_page(objects: Objects, camera: Camera, path: Path) -> None:
    """Write a PNG of the first objects: composite, every band, spectrum, properties."""
    rows, images = min(ROWS, len(objects.redshift)), 1 + len(camera.bands)
    figure = Figure(figsize=(8 + 2 * images, 1.7 * rows), layout="constrained", dpi=80)
    axes = figure.subplots(rows, images + 1, squeeze=False, width_ratios=[1] * images + [6])
    for k, colour in enumerate(composite(objects.image[:rows], camera.bands, camera.zero_point)):
        axes[k, 0].imshow(colour, origin="lower")
        for band, axis in enumerate(axes[k, 1:images]):
            draw_band(axis, objects.image[k, band], camera.sky_sigma[band])
            axis.set_title(f"{camera.filters[band]} {objects.magnitudes[k, band]:.2f}", fontsize=8, pad=2)
        axes[k, 0].set_title(describe(objects, k), fontsize=8, pad=2)
        for axis in axes[k, :images]:
            axis.set(xticks=[], yticks=[])
        draw_spectrum(axes[k, images], objects.flux[k], objects.ivar[k], objects.redshift[k])
    with atomic.replacing(path) as temporary:
        figure.savefig(temporary, format="png")


def describe(objects: Objects, k: int) -> str:
    kind = "quasar" if objects.kind[k] == "QSO" else f'{objects.radius[k]:.1f}"'
    artefact = Artefact(objects.artefact[k])
    line = "" if artefact is Artefact.NONE else f"\n{artefact.name.lower().replace('_', ' ')}"
    return f"z {objects.redshift[k]:.3f}  {kind}{line}"


def draw_band(axis: Axes, image: np.ndarray, sigma: float) -> None:
    """Draw one band: asinh of the flux in units of the sky noise, up to a bright galaxy; NaN is red."""
    axis.set_facecolor("red")
    axis.imshow(np.arcsinh(image / sigma / 2), origin="lower", cmap="gray", vmin=-1, vmax=5)


def draw_spectrum(axis: Axes, flux: np.ndarray, ivar: np.ndarray, redshift: float) -> None:
    """Draw weighted means of neighbouring pixels, the noise, and the expected positions of lines."""
    size = len(WAVE) // SMOOTHING * SMOOTHING
    wave, weight, weighted = (a[:size].reshape(-1, SMOOTHING) for a in (WAVE, ivar, flux * ivar))
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth, sigma = weighted.sum(1) / weight.sum(1), weight.sum(1) ** -0.5
    axis.plot(wave.mean(1), smooth, lw=0.6)
    axis.plot(wave.mean(1), sigma, lw=0.5, color="gray")
    top = max(np.nanpercentile(smooth, 99.7) * 1.25, 1e-3) if np.isfinite(smooth).any() else 1
    axis.set(xlim=(WAVE[0], WAVE[-1]), ylim=(min(0, np.nanpercentile(smooth, 1)), top))
    axis.tick_params(labelsize=7)
    for name, rest in LINES.items():
        if WAVE[0] < rest * (1 + redshift) < WAVE[-1]:
            axis.axvline(rest * (1 + redshift), color="C1", lw=0.4)
            axis.text(rest * (1 + redshift), top, name, fontsize=7, va="top", color="C1")
    label = f"S/N {signal_to_noise(flux, ivar):.1f}"
    axis.text(0.99, 0.9, label, transform=axis.transAxes, ha="right", fontsize=8)
