"""Figures of real galaxies: true, masked and rebuilt."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from real_data import Cutouts
from real_data_scores import coarse

from catalogs.bands import HSC
from catalogs.store.preview import composite
from catalogs.store.spectra import STORED_POOL, pool
from mmae.models.batch import pooled
from mmae.models.families import AnyModel
from mmae.scores.lines import LINES
from mmae.scores.rebuilding import Truth, filled_spectrum
from mmae.scores.reconstruction import Reconstruction
from mmae.scores.reconstruction_figure import GREY
from mmae.scores.spectrum_scores import COARSE, coarse_noise

GALAXIES, SPECTRA = 8, 6
I_BAND = HSC.index("hsc_i")
MAX_RESIDUAL = 5.0
"""Range of residuals in the figure, in units of the noise."""
PANELS = ("true", "seen", "rebuilt", "(rebuilt − true) / noise")


def images_figure(these: Cutouts, rebuilt: Reconstruction) -> Figure:
    """Galaxies from the brightest to the faintest, at equal steps in rank, four panels each, two per row."""
    chosen = np.argsort(these.magnitude)[np.linspace(0, len(these.magnitude) - 1, GALAXIES).astype(int)]
    truth, hidden = these.truth.image[chosen], rebuilt.image_hidden.numpy()[chosen]
    filled = np.where(hidden, rebuilt.image.numpy()[chosen], truth)
    true, rebuilt_colour = composite(truth), composite(filled)
    seen = np.where(hidden[:, 0, ..., None], GREY, true)
    residual = (filled - truth)[:, I_BAND] / these.noise[chosen, I_BAND, None, None]
    residual = np.where(hidden[:, I_BAND], residual, np.nan)
    plot = Figure(figsize=(12, 6), layout="compressed")
    grid = plot.subplots(GALAXIES // 2, 8)
    for k, axes in enumerate(grid.reshape(GALAXIES, 4)):
        for panel, pixels in zip(axes, (true[k], seen[k], rebuilt_colour[k]), strict=False):
            panel.imshow(pixels, origin="lower", interpolation="nearest")
        scale = draw_residual(axes[3], residual[k])
        axes[0].set_ylabel(f"$i$ = {these.magnitude[chosen[k]]:.1f}", fontsize="small")
        for panel, title in zip(axes, PANELS, strict=True):
            panel.set(xticks=[], yticks=[])
            if k < 2:
                panel.set_title(title, fontsize="small")
    bar = plot.colorbar(scale, ax=grid, shrink=0.5, pad=0.02, aspect=30)
    bar.set_label("residual in $i$ / sky noise", fontsize="small")
    plot.suptitle("Real HSC images of COSMOS; the model was trained on mock data alone", fontsize="medium")
    return plot


def draw_residual(axes: Axes, residual: np.ndarray) -> AxesImage:
    axes.set_facecolor("0.85")  # where nothing was hidden
    return axes.imshow(
        residual,
        origin="lower",
        interpolation="nearest",
        cmap="RdBu_r",
        vmin=-MAX_RESIDUAL,
        vmax=MAX_RESIDUAL,
    )


def spectra_figure(
    wave: np.ndarray,
    truth: Truth,
    kinds: list[str],
    rebuilt: tuple[Reconstruction, Reconstruction],
    model: AnyModel,
) -> Figure:
    """The spectra of least noise in the order of redshift; below each, residuals on pixels of 24 A.

    wave : (L,) angstrom, of the model. rebuilt : with the image of the twin, and without an image.
    """
    chosen = np.argsort(np.nanmedian(truth.noise, 1))[:SPECTRA]
    chosen = chosen[np.argsort(truth.redshift[chosen])]
    plot = Figure(figsize=(13, 9), layout="constrained")
    parts = plot.subfigures(SPECTRA // 2, 2)
    for number, (k, part) in enumerate(zip(chosen, parts.flat, strict=True)):
        above, below = part.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        draw_spectrum(above, wave, k, truth, rebuilt, model)
        draw_residuals(below, wave, k, truth, rebuilt[0], model)
        above.text(0.01, 1.03, f"{kinds[k]}, $z$ = {truth.redshift[k]:.4f}", transform=above.transAxes)
        if number >= SPECTRA - 2:
            below.set_xlabel("observed wavelength [Å]")
        part.align_ylabels()
    plot.suptitle("Real DESI spectra; the model was trained on mock data alone", fontsize="medium")
    handles = parts.flat[0].axes[0].get_legend_handles_labels()
    plot.legend(*handles, loc="outside lower center", ncols=5, fontsize="small", frameon=False)
    return plot


def draw_spectrum(
    axes: Axes,
    wave: np.ndarray,
    k: int,
    truth: Truth,
    rebuilt: tuple[Reconstruction, Reconstruction],
    model: AnyModel,
) -> None:
    true = pooled(truth.spectrum[k], model.config)
    noise = np.sqrt(pooled(truth.noise[k] ** 2, model.config) * STORED_POOL / model.config.spectrum_pool)
    hidden, height = rebuilt[0].spectrum_hidden[k].numpy(), axes.get_xaxis_transform()
    axes.fill_between(
        wave, 0, 1, where=hidden, step="mid", color="0.92", lw=0, transform=height, label="hidden"
    )
    band = {"step": "mid", "color": "C0", "alpha": 0.4, "lw": 0, "label": "true ± noise"}
    axes.fill_between(wave, true - noise, true + noise, **band)
    axes.plot(wave, true, color="0.25", lw=0.5, drawstyle="steps-mid", label="true")
    labels = (("rebuilt beside the twin's image", "C3"), ("rebuilt without an image", "C1"))
    for reconstruction, (label, colour) in zip(rebuilt, labels, strict=True):
        flux = np.where(hidden, reconstruction.spectrum[k].numpy(), np.nan)
        axes.plot(wave, flux, color=colour, lw=1.2, label=label)
    low, high = np.percentile(true, (0.3, 99.7))
    axes.set(xlim=(wave[0], wave[-1]), ylim=(low - 0.7, high + 1.2), ylabel="(flux − mean) / rms")
    draw_lines(axes, wave, truth.redshift[k])


def draw_lines(axes: Axes, wave: np.ndarray, redshift: float) -> None:
    height = axes.get_xaxis_transform()
    for name, line in LINES.items():
        observed = line.rest * (1 + redshift)
        if wave[0] + 50 < observed < wave[-1]:
            axes.axvline(observed, color="C2", lw=0.8, ls=":")
            style = {"rotation": 90, "va": "top", "ha": "right", "transform": height}
            axes.text(observed, 0.97, name, color="C2", fontsize=8, **style)


def draw_residuals(
    axes: Axes, wave: np.ndarray, k: int, truth: Truth, rebuilt: Reconstruction, model: AnyModel
) -> None:
    filled = coarse(filled_spectrum(rebuilt, truth, model)[k], model)
    hidden = coarse(rebuilt.spectrum_hidden[k].numpy(), model) == 1
    residual = (filled - pool(truth.spectrum[k], COARSE)) / coarse_noise(truth.noise)[k]
    axes.plot(coarse(wave, model), np.where(hidden, residual, np.nan), ".", color="C3", ms=3)
    axes.axhspan(-1, 1, color="C0", alpha=0.3, lw=0)
    axes.set_yscale("symlog", linthresh=10)
    ticks = (-100, -10, 0, 10, 100)
    axes.set_yticks(ticks, [f"{tick}".replace("-", "−") for tick in ticks], fontsize="x-small")
    axes.set(ylabel="residual\n/ noise", ylim=(-300, 300))
