"""A galaxy, hidden and rebuilt, as in the paper's figures 1 and 2."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from catalogs.bands import HSC
from catalogs.store.preview import ZERO_POINT, composite
from mmae.models.batch import Batch
from mmae.scores.lines import LINES
from mmae.scores.reconstruction import Reconstruction

GREY = 140
"""Grey level of hidden patches, from 0 (black) to 255 (white)."""


def figure(
    name: str,
    wave: np.ndarray,
    truth: Batch,
    rebuilt: Reconstruction,
    bands: Sequence[str] = HSC,
    zero_point: float = ZERO_POINT,
) -> Figure:
    """One galaxy as in the paper's figures 1 and 2: three images above, the spectrum below.

    wave : (L,) angstrom. truth, rebuilt : without the batch dimension; images in these bands,
    flux at that zero point.
    """
    hidden = rebuilt.image_hidden[0].numpy()
    unseen = rebuilt.image_hidden | truth.image.isnan()
    filled = torch.where(unseen, rebuilt.image, truth.image)
    true_panel, filled_panel = composite(torch.stack([truth.image, filled]).numpy(), bands, zero_point)
    panels = {
        "image": true_panel,
        "what the model sees": np.where(hidden[..., None], GREY, true_panel),
        "rebuilt where hidden": filled_panel,
    }
    plot = Figure(figsize=(9, 6), layout="constrained")
    axes = plot.subplot_mosaic([list(panels), ["spectrum"] * 3], height_ratios=[1.3, 1])
    z, z_model = float(truth.redshift), float(rebuilt.redshift)
    plot.suptitle(f"{name}    $z$ = {z:.4f}    $z$ by the model = {z_model:.4f}")
    for title, pixels in panels.items():
        axes[title].imshow(pixels, origin="lower", interpolation="nearest")
        axes[title].set(xticks=[], yticks=[])
        axes[title].set_title(title, fontsize="medium")
    draw_spectrum(axes["spectrum"], wave, truth, rebuilt)
    return plot


def draw_spectrum(axes: Axes, wave: np.ndarray, truth: Batch, rebuilt: Reconstruction) -> None:
    """Draw the true spectrum, the rebuilt one where it was hidden (grey), and the main lines."""
    hidden, full_height = rebuilt.spectrum_hidden.numpy(), axes.get_xaxis_transform()
    axes.fill_between(
        wave, 0, 1, where=hidden, step="mid", color="0.9", lw=0, transform=full_height, label="hidden"
    )
    axes.plot(wave, truth.spectrum, color="0.3", lw=0.8, drawstyle="steps-mid", label="true")
    flux = np.where(hidden, rebuilt.spectrum, np.nan)
    axes.plot(wave, flux, color="C3", lw=1.6, drawstyle="steps-mid", label="rebuilt")
    for name, line in LINES.items():
        observed = line.rest * (1 + float(truth.redshift))
        if wave[0] <= observed <= wave[-1]:
            axes.axvline(observed, color="C0", lw=0.8, ls=":")
            axes.text(
                observed, 1.02, name, transform=full_height, color="C0", fontsize=8, rotation=90, ha="center"
            )
    axes.set(xlim=(wave[0], wave[-1]), xlabel="observed wavelength [Å]", ylabel="(flux − mean) / rms")
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.1), ncols=3, fontsize="small", frameon=False)
