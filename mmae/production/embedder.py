"""The Ray actor of `mmae embed`: rows of a store by their numbers in, their embeddings out.

Pixels never pass through Ray, embeddings do: they are a hundredth of the bytes.
"""

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from catalogs import atomic, s3
from catalogs.errors import InputRefused
from catalogs.place import Place
from catalogs.products.model_input import Cutouts, ModelInput
from catalogs.store.cutouts import CutoutStore
from catalogs.store.format import ImageMetadata
from mmae.bundles.bundle import CARD, open_bundle
from mmae.bundles.engine import Engine, device_of_this_process, engine_of_this_process, filled, pinned
from mmae.hardware import FP32, Precision
from mmae.layers.gpu import sent
from mmae.layers.patches import IMAGE_TOKENS
from mmae.models import checkpoint
from mmae.models.batch import check_spectra, pooled
from mmae.models.families import config_of
from mmae.production.actor import Actor
from mmae.production.units import Rows


class ImageEncoder:
    """The program of a bundle: what it makes of images alone."""

    made_of: ClassVar[str] = "image"

    def __init__(self, path: Path, precision: Precision | None, batch: int):
        self.bundle, self.batch = open_bundle(path, precision), batch
        card = self.bundle.card
        self.path, self.precision, self.sha256 = path, self.bundle.precision, self.bundle.sha256
        self.trained_on: dict[str, Any] = card["training_data"]
        self.input = self.bundle.input
        self.width = config_of(card["family"], card["model_config"]).joint_dim

    @cached_property
    def engine(self) -> Engine:
        return engine_of_this_process(self.bundle, self.batch)

    @property
    def device(self) -> torch.device:
        return self.engine.device

    def check(self, store: CutoutStore) -> None:
        """Any store has images."""

    def joint(self, store: CutoutStore, start: int, stop: int, cutouts: Cutouts) -> np.ndarray:
        """Rows start:stop, whose cutouts are read already: (m, J) float32."""
        object_id = store.column("object_id", start, stop).astype(np.int64)
        return self.engine.joint(cutouts.image, object_id, cutouts.conditions)


class PairEncoder:
    """The whole model of a checkpoint: what it makes of images and spectra, with nothing hidden.

    Of a galaxy without a spectrum it is what it makes of the image alone: a spectrum that is not there is 0,
    and would be taken for one that was observed.
    """

    made_of: ClassVar[str] = "image and spectrum"
    precision: ClassVar[Precision] = FP32

    def __init__(self, path: Path, batch: int):
        self.path, self.batch = checkpoint.find(path), batch
        self.model, state = checkpoint.load_model(self.path)
        self.sha256 = atomic.sha256(self.path)
        self.trained_on: dict[str, Any] = state["data"]
        self.input = ModelInput.of(self.trained_on, self.model.config.least_bands)
        self.width = self.model.config.joint_dim

    @cached_property
    def device(self) -> torch.device:
        device = device_of_this_process()
        self.model.to(device)
        return device

    def check(self, store: CutoutStore) -> None:
        """Raises InputRefused where a store has no spectra such as the model takes."""
        if not store.has_spectra:
            raise InputRefused(
                f"{store.path} has no spectra: to embed images alone, name a bundle with --model"
            )
        check_spectra(store)

    @torch.inference_mode()
    def joint(self, store: CutoutStore, start: int, stop: int, cutouts: Cutouts) -> np.ndarray:
        """As that of ImageEncoder; the batches have one shape, or a row would depend on others."""
        config, size = self.model.config, self.batch
        stored = store.column("spectrum", start, stop)
        has_spectrum = np.asarray(stored.any(1))
        columns = cutouts.image, pooled(stored, config).astype(np.float32), cutouts.conditions
        whole = torch.zeros(size, IMAGE_TOKENS, dtype=torch.bool)
        unasked = torch.zeros(size, device=self.device)  # or it would look for the redshift of each spectrum
        joint = np.empty((stop - start, self.width), np.float32)
        for a in range(0, stop - start, size):
            batch = (torch.from_numpy(filled(rows[a : a + size], size)) for rows in columns)
            images, spectra, conditions = (sent(part, self.device) for part in batch)
            seen = has_spectrum[a : a + size]
            for which in np.unique(seen):
                no_spectrum = torch.full((size, config.spectrum_tokens), not which)
                output = self.model(images, spectra, whole, no_spectrum, unasked, conditions)
                joint[a : a + size][seen == which] = output.joint.cpu().numpy()[: len(seen)][seen == which]
        return joint


def open_encoder(path: Path, precision: Precision | None, batch: int) -> ImageEncoder | PairEncoder:
    """The encoder in a bundle; or in a checkpoint, or the best of a run directory. batch: rows together."""
    is_bundle = (path / CARD).is_file()
    return ImageEncoder(path, precision, batch) if is_bundle else PairEncoder(path, batch)


@dataclass(frozen=True)
class Setup:
    """What an actor needs to begin."""

    model: Path
    precision: Precision
    sha256: str
    """Of the model, as the driver read it."""
    batch: int
    """Rows computed together."""
    s3: s3.Environment

    @classmethod
    def of(cls, encoder: ImageEncoder | PairEncoder) -> "Setup":
        """That of actors like the driver."""
        model = encoder.path.resolve(), encoder.precision, encoder.sha256
        return cls(*model, encoder.batch, s3.Environment.here())


@dataclass(frozen=True)
class Task:
    """What an actor needs to know of a store; small, it comes with every unit."""

    store: Place
    described: ImageMetadata
    stamp: str
    """Of the store as it was checked."""


class Embedder(Actor):
    """The actor: rows become their embeddings."""

    def __init__(self, setup: Setup):
        super().__init__()
        self.setup = setup

    def begin(self) -> None:
        setup = self.setup
        os.environ |= setup.s3
        self.encoder = open_encoder(setup.model, setup.precision, setup.batch)
        if self.encoder.sha256 != setup.sha256:
            raise InputRefused(f"{setup.model} was changed while it was being read: start again")
        self.input = self.encoder.input
        if self.encoder.device.type == "cuda":
            self.feed_gpu(pinned, setup.batch)

    def compute(
        self, task: Task, store: CutoutStore, span: tuple[int, int], cutouts: Cutouts, object_id: np.ndarray
    ) -> np.ndarray:
        """(m, J); NaN where the cutout, or what came of it, cannot be used."""
        joint = self.encoder.joint(store, *span, cutouts)
        joint[(cutouts.reason != "") | ~np.isfinite(joint).all(1)] = np.nan
        return joint

    def keep(
        self, task: Task, store: CutoutStore, rows: Rows, columns: dict[str, np.ndarray], done: list[Any]
    ) -> dict[str, np.ndarray]:
        """The columns of the product."""
        return columns | {"embedding": np.concatenate(done)}
