"""`mmae reconstruct`: hidden parts of images and spectra, rebuilt, as figures (paper, section 5.1).

Masks are boolean, True = hidden.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.preview import composite
from mmae import checkpoint, cli
from mmae.data import TEST, Batch, TrainingSet
from mmae.families import AnyConfig, AnyModel
from mmae.lines import LINES
from mmae.losses import image_pixels, spectrum_pixels
from mmae.masking import random_mask
from mmae.patches import IMAGE_TOKENS

GREY = 140
"""Of hidden patches, from 0 (black) to 255 (white)."""


@dataclass(frozen=True)
class Reconstruct:
    """Rebuild hidden images and spectra with a trained model, and draw them.

    Takes galaxies of the test split, which the model has not seen, hides a part of image and spectrum, and
    draws one figure a galaxy: the image whole, hidden and rebuilt; the spectrum, normalised and pooled as the
    model takes it, with the rebuilt one on top. The table at the end gives the rms error over hidden pixels:
    of the image in the flux unit of the store, of the spectrum in units of its own rms.

    The paper's figure 1: the defaults. Its figure 2: --image-mask 0 --spectrum-mask 1.
    """

    checkpoint: Positional[Path]
    """A run directory (its best checkpoint is taken) or a checkpoint file."""
    data: Positional[Path]
    """Training store (`mmae ingest`)."""
    out: Path | None = None
    """Folder for the figures, ID.png each; by default `reconstructions` in the run directory."""
    objects: int = 6
    """Galaxies to draw, chosen at random."""
    image_mask: float = 0.75
    """Share of image tokens hidden."""
    spectrum_mask: float = 0.75
    """Share of spectrum tokens hidden."""
    seed: int = 0
    """Of the choice of galaxies and of the masks."""

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.image_mask, self.spectrum_mask)):
            raise UsageError("masks are shares from 0 to 1")
        if self.objects < 1 or self.seed < 0:
            raise UsageError("objects must be at least 1, the seed at least 0")


class Reconstruction(NamedTuple):
    """What the model makes of partly hidden galaxies, everywhere, and where they were hidden."""

    image: Tensor
    """(B, 5, 64, 64) float32"""
    image_hidden: Tensor
    """(B, 5, 64, 64) bool, True = hidden"""
    spectrum: Tensor
    """(B, L) float32"""
    spectrum_hidden: Tensor
    """(B, L) bool, True = hidden"""
    redshift: Tensor
    """(B,) float32"""


def main(config: Reconstruct) -> None:
    source = checkpoint.find(config.checkpoint)
    model, state = checkpoint.load_model(source)
    data = TrainingSet(config.data, model.config)
    out = config.out or source.parent / "reconstructions"
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file: pass a folder with --out")

    rows = choose(data, config.objects, config.seed)
    batch = data.read(rows)
    rebuilt = reconstruct(model, batch.image, batch.spectrum, *draw_masks(len(rows), model.config, config))
    out.mkdir(parents=True, exist_ok=True)
    for k, object_id in enumerate(data.object_id[rows]):
        truth, guess = Batch(*(part[k] for part in batch)), Reconstruction(*(part[k] for part in rebuilt))
        with atomic.replacing(out / f"{object_id}.png") as temporary:
            plot = figure(str(object_id), data.wave, truth, guess)
            plot.savefig(temporary, format="png", dpi=150, bbox_inches="tight")

    print(f"checkpoint: {source} (step {state['step']})")
    Console().print(error_table(data.object_id[rows], batch, rebuilt))
    print(f"wrote {len(rows)} figures, OBJECT_ID.png each, to {out}")


def choose(data: TrainingSet, objects: int, seed: int) -> np.ndarray:
    """Row numbers of galaxies of the test split: as many as asked for, or all there are, in random order."""
    rows = data.rows(TEST)
    if not len(rows):
        raise InputRefused(f"{data.store.path} has no galaxy in the test split: take a larger one")
    return np.random.default_rng(seed).permutation(rows)[:objects]


def draw_masks(galaxies: int, model: AnyConfig, config: Reconstruct) -> tuple[Tensor, Tensor]:
    """Image mask (B, 64) and spectrum mask (B, T)."""
    generator = torch.Generator().manual_seed(config.seed)
    return (
        random_mask(galaxies, IMAGE_TOKENS, config.image_mask, generator),
        random_mask(galaxies, model.spectrum_tokens, config.spectrum_mask, generator),
    )


# ---------------------------------------------------------------- rebuilding


@torch.inference_mode()
def reconstruct(
    model: AnyModel, image: Tensor, spectrum: Tensor, image_mask: Tensor, spectrum_mask: Tensor
) -> Reconstruction:
    """Hide parts of galaxies and let the model rebuild them.

    Parameters
    ----------
    image : (B, 5, 64, 64) float32, bands g r i z y, flux at zero point 27
    spectrum : (B, L) float32, normalised and pooled (catalogs.spectra)
    image_mask, spectrum_mask : (B, 64) and (B, T) bool, tokens, True = hidden
    """
    output = model.eval()(image, spectrum, image_mask, spectrum_mask)
    return Reconstruction(
        image=output.image,
        image_hidden=image_pixels(image_mask, image.shape),
        spectrum=output.spectrum,
        spectrum_hidden=spectrum_pixels(spectrum_mask, spectrum.shape[1], model.config.spectrum_patch),
        redshift=model.redshift(output),
    )


def hidden_rms(rebuilt: Tensor, truth: Tensor, hidden: Tensor) -> Tensor:
    """Root mean square error of each galaxy over its hidden pixels: 3 x (B, ...) -> (B,); NaN without any."""
    squares = torch.where(hidden, (rebuilt - truth) ** 2, 0.0)
    return (squares.flatten(1).sum(1) / hidden.flatten(1).sum(1)).sqrt()


def error_table(object_id: np.ndarray, truth: Batch, rebuilt: Reconstruction) -> Table:
    table = Table(box=box.SIMPLE)
    for name in ("object", "z", "z model", "image rms", "spectrum rms"):
        table.add_column(name, justify="right", no_wrap=True)
    columns = (
        truth.redshift,
        rebuilt.redshift,
        hidden_rms(rebuilt.image, truth.image, rebuilt.image_hidden),
        hidden_rms(rebuilt.spectrum, truth.spectrum, rebuilt.spectrum_hidden),
    )
    for name, numbers in zip(object_id, torch.stack(columns, 1).tolist(), strict=True):
        table.add_row(str(name), *("-" if math.isnan(x) else f"{x:.3f}" for x in numbers))
    return table


# ---------------------------------------------------------------- drawing


def figure(name: str, wave: np.ndarray, truth: Batch, rebuilt: Reconstruction) -> Figure:
    """One galaxy as in the paper's figures 1 and 2: three images above, the spectrum below.

    wave : (L,) angstrom. truth, rebuilt : as elsewhere, without the first dimension.
    """
    hidden = rebuilt.image_hidden[0].numpy()
    filled = torch.where(rebuilt.image_hidden, rebuilt.image, truth.image)
    true, both = composite(torch.stack([truth.image, filled]).numpy())
    panels = {
        "image": true,
        "what the model sees": np.where(hidden[..., None], GREY, true),
        "rebuilt where hidden": both,
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
    """True spectrum, hidden spans grey, rebuilt where hidden; main lines at their observed wavelengths."""
    hidden, full_height = rebuilt.spectrum_hidden.numpy(), axes.get_xaxis_transform()
    axes.fill_between(
        wave, 0, 1, where=hidden, step="mid", color="0.9", lw=0, transform=full_height, label="hidden"
    )
    axes.plot(wave, truth.spectrum, color="0.3", lw=0.8, drawstyle="steps-mid", label="true")
    shown = np.where(hidden, rebuilt.spectrum, np.nan)
    axes.plot(wave, shown, color="C3", lw=1.6, drawstyle="steps-mid", label="rebuilt")
    for name, line in LINES.items():
        observed = line.rest * (1 + float(truth.redshift))
        if wave[0] <= observed <= wave[-1]:
            axes.axvline(observed, color="C0", lw=0.8, ls=":")
            axes.text(
                observed, 1.02, name, transform=full_height, color="C0", fontsize=8, rotation=90, ha="center"
            )
    axes.set(xlim=(wave[0], wave[-1]), xlabel="observed wavelength [Å]", ylabel="(flux − mean) / rms")
    axes.legend(loc="upper right", bbox_to_anchor=(1, -0.1), ncols=3, fontsize="small", frameon=False)


if __name__ == "__main__":
    sys.exit(cli.run(main, Reconstruct, sys.argv[1:], "python -m mmae.reconstruct"))
