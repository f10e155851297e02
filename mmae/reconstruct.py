"""`mmae reconstruct`: figures of rebuilt images and spectra (paper, section 5.1).

Masks are boolean, True = hidden.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.reconstruct", "Reconstruct")

from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import UsageError
from catalogs.output import check_output_folder
from catalogs.place_flag import PlaceFlag
from catalogs.ranges import SEEDS, check_range
from mmae import cli
from mmae.layers.patches import IMAGE_TOKENS
from mmae.models import checkpoint
from mmae.models.batch import Batch
from mmae.models.families import AnyConfig
from mmae.models.masking import random_mask
from mmae.scores.reconstruction import Reconstruction, error_table, reconstruct
from mmae.scores.reconstruction_figure import figure
from mmae.training.data import TrainingSet, sample_test_rows

MAX_OBJECTS = 1000
"""On one figure."""


@dataclass(frozen=True)
class Reconstruct:
    """Rebuild hidden images and spectra with a trained model, and draw them.

    Takes galaxies of the test split, which the model has not seen, hides a part of image and spectrum, and
    draws one figure per galaxy: the image, the visible part of it, and the rebuilt one; the spectrum,
    normalised and pooled as for the model, with the rebuilt one on top. The table at the end gives the rms
    error over hidden pixels: of the image in the flux unit of the model, of the spectrum in units of its rms.

    The paper's figure 1: the defaults. Its figure 2: --image-mask 0 --spectrum-mask 1.
    """

    checkpoint: Positional[Path]
    """A run directory (its best checkpoint is taken) or a checkpoint file."""
    data: Positional[PlaceFlag]
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
    """Seed of the choice of galaxies and of the masks."""

    def __post_init__(self) -> None:
        if not all(0 <= share <= 1 for share in (self.image_mask, self.spectrum_mask)):
            raise UsageError("masks are shares from 0 to 1")
        check_range("--objects", self.objects, 1, MAX_OBJECTS)
        check_range("--seed", self.seed, *SEEDS)


def main(config: Reconstruct) -> None:
    source = checkpoint.find(config.checkpoint)
    model, state = checkpoint.load_model(source)
    out = config.out or source.parent / "reconstructions"
    check_output_folder(out)
    data = TrainingSet(config.data, model.config, state["data"], complete=True)
    rows = sample_test_rows(data, config.objects, config.seed)
    batch = data.read(rows)
    masks = draw_masks(len(rows), model.config, config)
    rebuilt = reconstruct(model, batch.image, batch.spectrum, *masks, batch.conditions)
    out.mkdir(parents=True, exist_ok=True)
    for k, object_id in enumerate(data.object_id[rows]):
        truth = Batch(*(tensor[k] for tensor in batch))
        reconstruction = Reconstruction(*(tensor[k] for tensor in rebuilt))
        with atomic.replacing(out / f"{object_id}.png") as temporary:
            plot = figure(
                str(object_id), data.wave, truth, reconstruction, data.input.bands, data.input.zero_point
            )
            plot.savefig(temporary, format="png", dpi=150, bbox_inches="tight")

    print(f"checkpoint: {source} (step {state['step']})")
    Console().print(error_table(data.object_id[rows], batch, rebuilt))
    print(f"wrote {len(rows)} figures, OBJECT_ID.png each, to {out}")


def draw_masks(galaxies: int, model: AnyConfig, config: Reconstruct) -> tuple[Tensor, Tensor]:
    """Image mask (B, 64) and spectrum mask (B, T)."""
    generator = torch.Generator().manual_seed(config.seed)
    return (
        random_mask(galaxies, IMAGE_TOKENS, config.image_mask, generator),
        random_mask(galaxies, model.spectrum_tokens, config.spectrum_mask, generator),
    )
