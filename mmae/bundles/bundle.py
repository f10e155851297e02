"""A model bundle: TorchScript programs for redshifts from images, and the card that vouches for them.

Made by export.py. Torch is imported where it is used: the driver of inference opens bundles and leaves the
arithmetic to its actors, and would be 150 MB larger and seconds later with it.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from mmae.bundles.image_mask import WHOLE, Masking
from mmae.hardware import BF16, FP32, Precision, has_bf16

if TYPE_CHECKING:
    import torch

PROGRAMS = {FP32: "redshift.fp32.ts", BF16: "redshift.bf16.ts"}
CARD = "card.json"
ROLES_FILE = "roles.npy"
ROLES = np.dtype([("object_id", "<i8"), ("role", "i1")])
TRAINED_ON, CHOSEN_BY = 1, 2
"""Roles of a galaxy: training, or validation, which chooses the epoch and calibrates p(z)."""
FORMAT, VERSION = "mmae-bundle", 4
BOUND = {"median": 1e-4, "p99": 2e-3}
"""Bound of |dz|/(1 + z) against fp32, beyond which a precision is not offered."""

DECISIVE = ("family", "model_config", "grid", "calibration")
"""Entries of a card that decide an answer, beside its files."""
DECISIVE_DATA = ("bands", "pixel_scale", "zero_point", "noise", "flux_percentiles", "z_range")
"""Entries of its training data that do."""
SEAL = "card_sha256"


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose programs match its card, with the precision and masking to use."""

    path: Path
    card: dict[str, Any]
    precision: Precision
    masking: Masking

    @property
    def sha256(self) -> str:
        """Identity: sha256 over all that decides an answer in this precision.

        That is its program and the one in fp32, which computes what bf16 loses; the roles; grid, calibration,
        and the bands and statistics of the images.
        """
        used = {PROGRAMS[self.precision], PROGRAMS[FP32], ROLES_FILE}
        files = {name: entry["sha256"] for name, entry in self.card["files"].items() if name in used}
        data = {name: self.card["training_data"][name] for name in DECISIVE_DATA}
        return atomic.digest({"files": files, "data": data, **{name: self.card[name] for name in DECISIVE}})

    @property
    def z_range(self) -> tuple[float, float]:
        low, high = self.card["training_data"]["z_range"]
        return float(low), float(high)

    def roles(self) -> np.ndarray | None:
        """Galaxies that the model was made with, (N,) of ROLES by id; None where they are not known."""
        return np.load(self.path / ROLES_FILE) if ROLES_FILE in self.card["files"] else None

    def load(self, device: "torch.device", precision: Precision | None = None) -> "torch.jit.ScriptModule":
        """The program: (B, 5, 64, 64) flux, and the visible tokens if not all are -> output.Estimate."""
        import torch

        # no fusion: after some calls it would change the last bits
        torch.jit.set_fusion_strategy([("STATIC", 0)])
        program = self.path / PROGRAMS[precision or self.precision]
        return torch.jit.load(str(program), map_location=device).eval()


def open_bundle(path: Path, precision: Precision | None = None, masking: Masking = WHOLE) -> Bundle:
    """Read a bundle's card and check its files against it; by default in the precision that is best here.

    Raises UsageError where there is no bundle, or it does not offer the precision; InputRefused where it is
    damaged or of an unknown version.
    """
    if not (path / CARD).is_file():
        raise UsageError(f"{path} is no model bundle (no {CARD} in it): make one with `mmae export RUN`")
    try:
        card = json.loads((path / CARD).read_text())
        known = (card["format"], card["version"]) == (FORMAT, VERSION)
        edited = known and card.get(SEAL) != sealed(card)[SEAL]
        changed = [
            path / name for name, entry in card["files"].items() if not atomic.matches(path / name, entry)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputRefused(
            f"{path / CARD} is not a model card ({error!r}): export the bundle again"
        ) from error
    if not known:
        raise InputRefused(
            f"{path / CARD} is of another format than {FORMAT} {VERSION}: export the bundle again"
        )
    if edited:
        raise InputRefused(f"{path / CARD} was edited after its export: export the bundle again")
    if changed:
        raise InputRefused(f"{changed[0]} is not the file the card was written for: export the bundle again")
    offers_bf16 = PROGRAMS[BF16] in card["files"]
    if precision == BF16 and not offers_bf16:
        raise UsageError(f"{path} offers fp32 only: {bf16_report(card)}")
    return Bundle(path, card, precision or (BF16 if offers_bf16 and has_bf16() else FP32), masking)


def sealed(card: dict[str, Any]) -> dict[str, Any]:
    """The card with a sha256 over its other entries, so that an edited one is known."""
    content = {name: value for name, value in card.items() if name != SEAL}
    return content | {SEAL: atomic.digest(content)}


def bf16_report(card: dict[str, Any]) -> str:
    """One line: how far bf16 is from fp32, and whether it is offered."""
    measured = card["reduced_precision"]
    figures = "median {median:.1e}, 99 % {p99:.1e}, largest {max:.1e}".format_map(measured[BF16])
    bound = "bound: median {median:g}, 99 % {p99:g}".format_map(BOUND)
    verdict = "offered" if PROGRAMS[BF16] in card["files"] else "not offered"
    return f"bf16 against fp32 on {measured['images']}: |dz|/(1 + z) {figures}; {verdict} ({bound})"
