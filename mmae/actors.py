"""The Ray actor: take a unit by its number, read its rows, predict, write its part.

Pixels never pass through Ray: an actor is told which rows, and answers with a short manifest.
"""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from catalogs import photoz
from catalogs.cutout_format import SIZE, Described
from catalogs.cutouts import open_store, pad
from catalogs.errors import InputRefused
from catalogs.photoz import Part, Provenance
from catalogs.schema import Flag
from catalogs.screen import screen_images, screen_redshifts
from mmae.engine import Engine
from mmae.export import open_bundle
from mmae.plan import Plan

READ_ROWS = 512
"""Rows read and screened at a time: 42 MB of float32 pixels, of which two are in memory."""


@dataclass(frozen=True)
class Task:
    """What every actor of a run needs to know; small, and the same for all."""

    plan: Plan
    store: Path
    described: Described
    bundle: Path
    parts: Path
    provenance: Provenance
    umask: int
    """Of the user; Ray itself runs with a stricter one."""


class Predictor:
    """One process with one thread (or one GPU), its own copy of the model and its own eyes on the store."""

    def __init__(self, task: Task):
        self.task = task
        os.umask(task.umask)
        bundle = open_bundle(task.bundle)
        self.store = open_store(task.store, task.described)
        if bundle.sha256 != task.plan.model_sha256 or self.store.fingerprint != task.plan.store_fingerprint:
            raise InputRefused(
                f"{task.store} or {task.bundle} was changed while it was being read: start again"
            )
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if cuda else "cpu")
        if not cuda:
            torch.set_num_threads(1)
        self.engine = Engine(bundle, self.device, task.plan.batch)

    def process(self, unit: int) -> dict:
        """Do one unit; gives its manifest. Done again after a crash, it writes the same bytes again."""
        start, stop = self.task.plan.span(unit)
        blocks = [self.predict(image, damaged) for image, damaged in self.read_ahead(start, stop)]
        redshift, reason, flags = (np.concatenate(columns) for columns in zip(*blocks, strict=True))
        object_id, ra, dec = (self.store.column(name, start, stop) for name in ("object_id", "ra", "dec"))
        catalogue, rejects = photoz.rows(object_id.astype(np.int64), ra, dec, redshift, flags, reason)
        part = Part(self.task.parts, unit)
        return part.write(self.task.plan.sha256, self.task.provenance, catalogue, rejects)

    def read_ahead(self, start: int, stop: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Blocks of images and which rows of them are damaged; the next is read while one is used."""
        spans = [(a, min(stop, a + READ_ROWS)) for a in range(start, stop, READ_ROWS)]
        with ThreadPoolExecutor(1) as reader:
            pending = reader.submit(self.store.images, *spans[0])
            for span in [*spans[1:], None]:
                block = pending.result()
                if span:
                    pending = reader.submit(self.store.images, *span)
                yield block

    def predict(self, image: np.ndarray, damaged: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Redshifts, reasons and flags of a block, (m,) each; see catalogs/screen.py."""
        clean, reason, flags = screen_images(image, damaged)
        redshift = self.engine.redshifts(pad(clean))
        reason, more = screen_redshifts(redshift, reason, self.task.provenance.z_range)
        padded = Flag.PADDED.value if self.store.size < SIZE else 0
        return redshift, reason, flags | more | padded
