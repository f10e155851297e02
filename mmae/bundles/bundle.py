"""A model bundle: programs for redshifts from images, and the card that vouches for them.

A program is there twice, as TorchScript and as torch.export records it, which Python 3.14 needs. Made by
export.py. Torch is imported where it is used: the driver of inference opens bundles and leaves the
arithmetic to its actors, and would be 150 MB larger and seconds later with it.
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.products.model_input import ModelInput
from mmae.bundles.image_mask import WHOLE, Masking
from mmae.bundles.operators import check_archive, check_program
from mmae.hardware import BF16, FP32, Precision, has_bf16

if TYPE_CHECKING:
    import torch

PROGRAMS = {FP32: "redshift.fp32.ts", BF16: "redshift.bf16.ts"}
"""In TorchScript."""
RECORDED = {FP32: "redshift.fp32.pt2", BF16: "redshift.bf16.pt2"}
"""As torch.export records them."""
SCRIPTED = sys.version_info < (3, 14)
"""Whether TorchScript is there: torch supports it up to Python 3.13."""
CARD = "card.json"
ROLES_FILE = "roles.npy"
ROLES = np.dtype([("object_id", "<i8"), ("role", "i1"), ("ra", "<f8"), ("dec", "<f8")])
TRAINED_ON, CHOSEN_BY = 1, 2
"""Roles of a galaxy: training, or validation, which chooses the epoch and calibrates p(z)."""
FORMAT, VERSION = "mmae-bundle", 10
BOUND = {"median": 1e-4, "p99": 2e-3}
"""Bound of |dz|/(1 + z) against fp32, beyond which a precision is not offered."""

DECISIVE = ("family", "model_config", "grid", "calibration", "least_bands")
"""Entries of a card that decide an answer, beside its files."""
DECISIVE_DATA = ("bands", "pixel_scale", "zero_point", "noise", "flux_percentiles", "z_range")
"""Entries of its training data that do."""


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose programs match its card, with the precision, masking and products to make."""

    path: Path
    card: dict[str, Any]
    precision: Precision
    masking: Masking
    keep_pdf: bool = False
    """Whether catalogues shall have the whole p(z) beside its quantiles."""

    @property
    def sha256(self) -> str:
        """Identity: sha256 over all that decides an answer in this precision.

        That is its program and the one in fp32, which computes what bf16 loses, as TorchScript and recorded;
        the roles; grid, calibration, and the bands and statistics of the images.
        """
        used = {each[precision] for each in (PROGRAMS, RECORDED) for precision in (self.precision, FP32)}
        used.add(ROLES_FILE)
        files = {name: entry["sha256"] for name, entry in self.card["files"].items() if name in used}
        data = {name: self.card["training_data"][name] for name in DECISIVE_DATA}
        return atomic.digest({"files": files, "data": data, **{name: self.card[name] for name in DECISIVE}})

    @property
    def z_range(self) -> tuple[float, float]:
        low, high = self.card["training_data"]["z_range"]
        return float(low), float(high)

    @property
    def input(self) -> ModelInput:
        """The images that the model takes."""
        return ModelInput.of(self.card["training_data"], self.card["least_bands"])

    @property
    def own_light(self) -> bool:
        """Whether its model leaves out the light of other sources."""
        return bool(self.card["model_config"].get("own_light", False))

    @property
    def noise(self) -> np.ndarray:
        """Noise of the sky in the training set, (bands,), in its flux unit."""
        return np.array(self.card["training_data"]["noise"])

    def roles(self) -> np.ndarray | None:
        """Galaxies that the model was made with, (N,) of ROLES by id; None where they are not known."""
        return np.load(self.path / ROLES_FILE) if ROLES_FILE in self.card["files"] else None

    @property
    def scripted(self) -> bool:
        """Whether its programs run as TorchScript here, which can also hide parts of images."""
        return SCRIPTED and PROGRAMS[FP32] in self.card["files"]

    @property
    def precisions(self) -> list[Precision]:
        """The precisions that it offers here."""
        return [each for each, name in self._programs.items() if name in self.card["files"]]

    @property
    def _programs(self) -> dict[Precision, str]:
        return PROGRAMS if self.scripted else RECORDED

    def galaxies(self) -> np.ndarray:
        """Magnitudes (M, bands) of the galaxies with redshifts that it keeps (likeness/backing.py).

        NaN: not there. M = 0 for a model that keeps none. Raises as `load`.
        """
        import torch

        state = self.load(torch.device("cpu")).state_dict()
        known, absent = (
            next((values for key, values in state.items() if key.endswith(f"backing.{name}")), None)
            for name in ("known", "absent")
        )
        if known is None or absent is None:
            return np.zeros((0, len(self.input.bands)))
        return np.asarray(known.masked_fill(absent > 0, torch.nan).numpy())

    def load(self, device: "torch.device", precision: Precision | None = None) -> "torch.nn.Module":
        """The program: (B, bands, 64, 64) flux, and the visible tokens if not all are -> output.Estimate.

        Raises InputRefused for one that could do more than arithmetic.
        """
        path = self.path / self._programs[precision or self.precision]
        if not self.scripted:
            from mmae.bundles import recorded

            return recorded.runnable(recorded.open_recorded(path), device)

        import torch

        # no fusion: after some calls it would change the last bits
        torch.jit.set_fusion_strategy([("STATIC", 0)])
        check_archive(path)
        program = torch.jit.load(str(path), map_location=device).eval()
        check_program(path, program)
        return program


def open_bundle(path: Path, precision: Precision | None = None, masking: Masking = WHOLE) -> Bundle:
    """Read a bundle's card and check its files against it; by default in the precision that is best here.

    Raises UsageError where there is no bundle, or it does not offer the precision; InputRefused where it is
    damaged or of an unknown version.
    """
    if not (path / CARD).is_file():
        raise UsageError(f"{path} is no model bundle (no {CARD} in it): make one with `mmae export RUN`")
    card = atomic.read_sealed(path / CARD)
    if card is None:
        raise InputRefused(
            f"{path / CARD} is not a model card as it was written (damaged, edited, or of an older version): "
            "export the bundle again"
        )
    if (card["format"], card["version"]) != (FORMAT, VERSION):
        raise InputRefused(
            f"{path / CARD} is of another format than {FORMAT} {VERSION}: export the bundle again"
        )
    for name, entry in card["files"].items():
        if not atomic.matches(path / name, entry):
            raise InputRefused(
                f"{path / name} is not the file the card was written for: export the bundle again"
            )
    bundle = Bundle(path, card, precision or FP32, masking)
    if not bundle.precisions:
        raise InputRefused(f"{path} has TorchScript alone, which Python 3.14 is without: export it again")
    if masking != WHOLE and not bundle.scripted:
        raise UsageError("to hide parts of images takes TorchScript: use a Python before 3.14")
    offers_bf16 = BF16 in bundle.precisions
    if precision == BF16 and not offers_bf16:
        raise UsageError(f"{path} offers fp32 only: {bf16_report(card)}")
    return replace(bundle, precision=precision or (BF16 if offers_bf16 and has_bf16() else FP32))


def bf16_report(card: dict[str, Any]) -> str:
    """One line: how far bf16 is from fp32, and whether it is offered."""
    measured = card["reduced_precision"]
    figures = "median {median:.1e}, 99 % {p99:.1e}, largest {max:.1e}".format_map(measured[BF16])
    bound = "bound: median {median:g}, 99 % {p99:g}".format_map(BOUND)
    verdict = "offered" if {PROGRAMS[BF16], RECORDED[BF16]} & card["files"].keys() else "not offered"
    return f"bf16 against fp32 on {measured['images']}: |dz|/(1 + z) {figures}; {verdict} ({bound})"
