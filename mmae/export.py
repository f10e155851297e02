"""Checkpoint -> model bundle: a TorchScript program for redshifts from images alone, and its card.

The only file that knows TorchScript, so that torch.export can take its place.
"""

import copy
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tyro.conf import Positional

from catalogs import atomic
from catalogs.cutout_format import BANDS, SIZE
from catalogs.errors import InputRefused, UsageError
from mmae import __version__, checkpoint, cli
from mmae.model import Himes2025, ModelConfig

PROGRAM, CARD = "redshift.ts", "card.json"
FORMAT, VERSION = "mmae-bundle", 1
AGREE_ROWS = 64
AGREE_LIMIT = 1e-5
"""Largest |dz| allowed between the bundle and the full model, both in float32."""


class ImageRedshift(nn.Module):
    """The redshift of an image whose spectrum is hidden whole: (B, 5, 64, 64) -> (B,).

    A hidden token is the zero vector, so the encoded spectrum is a constant of the weights: it is computed
    once. The decoders are left out.
    """

    spectrum: Tensor

    def __init__(self, model: Himes2025):
        super().__init__()
        self.model = copy.deepcopy(model).eval()
        with torch.no_grad():
            hidden = torch.zeros_like(self.model.spec_embed.pos_embed)
            self.register_buffer("spectrum", self.model.spec_encoder(hidden))  # (1, 32, D)
        for name in ("img_decoder", "spec_decoder", "spec_embed", "spec_encoder"):
            setattr(self.model, name, nn.Identity())

    def forward(self, image: Tensor) -> Tensor:
        img = self.model.img_encoder(self.model.img_embed(image))
        joint = self.model.fuse(img, self.spectrum.expand(image.shape[0], -1, -1))
        return self.model.redshift_head(joint).squeeze(1)


@dataclass(frozen=True)
class Export:
    """Turn a checkpoint into a model bundle: the TorchScript program and its card.

    The bundle predicts redshifts from images alone. It is checked against the full model before it is kept;
    the card says how well they agree, and carries the sha256 of the program, the architecture, the training
    configuration, what the images must be (bands, pixel scale, zero point), and the validation metrics.
    """

    checkpoint: Positional[Path]
    """A run directory (its best checkpoint is taken) or a checkpoint file."""
    out: Path | None = None
    """Bundle to write; by default `bundle` in the run directory."""


def main(config: Export) -> None:
    source = checkpoint.find(config.checkpoint)
    model, state = checkpoint.load_model(source)
    out = config.out or source.parent / "bundle"
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / CARD).is_file()):
        raise UsageError(f"{out} exists and is no model bundle: choose another --out")
    card = write_bundle(out, model, state)
    print(f"checkpoint: {source} (step {state['step']})")
    print(f"agrees with the full model to |dz| <= {card['agreement']['max_abs_dz']:.1e}")
    print(f"wrote {out / PROGRAM} and {out / CARD}")


def write_bundle(out: Path, model: Himes2025, state: dict[str, Any]) -> dict[str, Any]:
    """Script, compare, write; the card, which makes the program count, comes last. Gives the card."""
    program = torch.jit.script(ImageRedshift(model).eval())
    difference = compare(model, program)
    if not difference <= AGREE_LIMIT:
        raise InputRefused(f"the bundle and the full model differ by |dz| = {difference:.1e}: not written")
    out.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(out / PROGRAM) as temporary:
        program.save(str(temporary))
    card = {
        "format": FORMAT,
        "version": VERSION,
        "files": {PROGRAM: atomic.entry(out / PROGRAM)},
        "family": "himes2025",
        "model_config": state["config"]["model"],
        "training_config": state["config"],
        "training_data": state["data"],
        "metrics": state["metrics"],
        "step": state["step"],
        "agreement": {"max_abs_dz": difference, "rows": AGREE_ROWS, "precision": "float32"},
        "code_version": __version__,
        "torch_version": torch.__version__,
    }
    atomic.write_json(out / CARD, card)
    return card


def compare(model: Himes2025, program: nn.Module) -> float:
    """Largest |dz| between the full model and the program on noise of several brightnesses."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(AGREE_ROWS, len(BANDS), SIZE, SIZE, generator=generator)
    image *= torch.logspace(-2, 1, AGREE_ROWS)[:, None, None, None]
    spectrum = torch.zeros(AGREE_ROWS, ModelConfig.spectrum_length)
    config_tokens = model.img_embed.pos_embed.shape[1], model.spec_embed.pos_embed.shape[1]
    seen = torch.zeros(AGREE_ROWS, config_tokens[0], dtype=torch.bool)
    hidden = torch.ones(AGREE_ROWS, config_tokens[1], dtype=torch.bool)
    with torch.inference_mode():
        full = model(image, spectrum, seen, hidden).redshift
        return float((full - program(image)).abs().max())


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose program is the one its card vouches for."""

    path: Path
    card: dict[str, Any]

    @property
    def sha256(self) -> str:
        return str(self.card["files"][PROGRAM]["sha256"])

    @property
    def z_range(self) -> tuple[float, float]:
        low, high = self.card["training_data"]["z_range"]
        return float(low), float(high)

    def load(self, device: torch.device) -> torch.jit.ScriptModule:
        """The program: (B, 5, 64, 64) flux -> (B,) redshifts."""
        return torch.jit.load(str(self.path / PROGRAM), map_location=device).eval()


def open_bundle(path: Path) -> Bundle:
    """Read a bundle's card and check the program against it.

    Raises UsageError where there is no bundle, InputRefused where it is damaged or of an unknown version.
    """
    if not (path / CARD).is_file():
        raise UsageError(f"{path} is no model bundle (no {CARD} in it): make one with `mmae export RUN`")
    try:
        card = json.loads((path / CARD).read_text())
        known = (card["format"], card["version"]) == (FORMAT, VERSION)
        whole = atomic.matches(path / PROGRAM, card["files"][PROGRAM])
    except (ValueError, KeyError, TypeError) as error:
        raise InputRefused(
            f"{path / CARD} is not a model card ({error!r}): export the bundle again"
        ) from error
    if not known:
        raise InputRefused(
            f"{path / CARD} is of another format than {FORMAT} {VERSION}: export the bundle again"
        )
    if not whole:
        raise InputRefused(
            f"{path / PROGRAM} is not the file the card was written for: export the bundle again"
        )
    return Bundle(path, card)


if __name__ == "__main__":
    sys.exit(cli.run(main, Export, sys.argv[1:], "python -m mmae.export"))
