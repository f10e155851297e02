"""The Ray actor: take a unit by its number, read its rows, predict, write its part.

Pixels never pass through Ray: an actor is told which rows, and answers with a short manifest.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from catalogs import photoz
from catalogs.cutout_format import SIZE, Described
from catalogs.cutouts import CutoutStore, open_store, pad
from catalogs.errors import InputRefused
from catalogs.photoz import Part, Provenance
from catalogs.schema import Flag
from catalogs.screen import screen_images, screen_redshifts
from mmae.engine import Engine
from mmae.export import Bundle, Precision, open_bundle
from mmae.masking import Masking
from mmae.plan import BATCH, Plan

OPEN_STORES = 4
READ_ROWS = 512
"""Rows read and screened at a time: 42 MB of float32 pixels, of which two are in memory."""


@dataclass(frozen=True)
class Setup:
    """What every actor of a run is started with."""

    bundle: Path
    model_sha256: str
    precision: Precision
    masking: Masking
    umask: int
    """Of the user; Ray itself runs with a stricter one."""

    @classmethod
    def of(cls, bundle: Bundle, umask: int) -> "Setup":
        """The precision is the driver's: an actor on other hardware must not choose another."""
        return cls(bundle.path.resolve(), bundle.sha256, bundle.precision, bundle.masking, umask)


@dataclass(frozen=True)
class Task:
    """What an actor needs to know of a tile; small, it comes with every unit."""

    plan: Plan
    store: Path
    described: Described
    parts: Path
    provenance: Provenance


class Predictor:
    """One process with one thread (or one GPU), its own copy of the model and its own eyes on the stores.

    Units are done one after the other, in the order of their tickets; `take_back` is answered meanwhile.
    """

    def __init__(self, setup: Setup):
        os.umask(setup.umask)
        bundle = open_bundle(setup.bundle, setup.precision, setup.masking)
        if bundle.sha256 != setup.model_sha256:
            raise InputRefused(f"{setup.bundle} was changed while it was being read: start again")
        cuda = torch.cuda.is_available()
        self.device = torch.device("cuda" if cuda else "cpu")
        if not cuda:
            torch.set_num_threads(1)
        self.engine = Engine(bundle, self.device, BATCH)
        self.stores: OrderedDict[Path, CutoutStore] = OrderedDict()
        self.lock = threading.Lock()
        self.begun = -1
        self.taken_back: set[int] = set()

    def process(self, ticket: int, task: Task, unit: int) -> dict | None:
        """Do one unit; gives its manifest. Done again after a crash, it writes the same bytes again."""
        with self.lock:
            if ticket in self.taken_back:
                self.taken_back.remove(ticket)
                return None
            self.begun = ticket
        self.serve(task)
        start, stop = task.plan.span(unit)
        object_id, ra, dec = (self.store.column(name, start, stop) for name in ("object_id", "ra", "dec"))
        object_id = object_id.astype(np.int64)
        ids = np.split(object_id, range(READ_ROWS, len(object_id), READ_ROWS))
        blocks = zip(self.read_ahead(start, stop), ids, strict=True)
        judged = [self.predict(image, damaged, some) for (image, damaged), some in blocks]
        redshift, reason, flags = (np.concatenate(columns) for columns in zip(*judged, strict=True))
        catalogue, rejects = photoz.rows(object_id, ra, dec, redshift, flags, reason)
        return Part(task.parts, unit).write(task.plan.sha256, task.provenance, catalogue, rejects)

    def take_back(self, ticket: int) -> bool:
        """Whether the unit had not begun; then it will not, and another actor may have it."""
        with self.lock:
            if ticket > self.begun:
                self.taken_back.add(ticket)
            return ticket > self.begun

    def serve(self, task: Task) -> None:
        """Turn to a tile; the stores of the last few stay open."""
        if task.store not in self.stores:
            store = open_store(task.store, task.described)
            if store.fingerprint != task.plan.store_fingerprint:
                raise InputRefused(f"{task.store} was changed while it was being read: start again")
            self.stores[task.store] = store
            if len(self.stores) > OPEN_STORES:
                self.stores.popitem(last=False)
        self.stores.move_to_end(task.store)
        self.task, self.store = task, self.stores[task.store]

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

    def predict(
        self, image: np.ndarray, damaged: np.ndarray, object_id: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Redshifts, reasons and flags of a block, (m,) each; see catalogs/screen.py."""
        clean, reason, flags = screen_images(image, damaged)
        redshift = self.engine.redshifts(pad(clean), object_id)
        reason, more = screen_redshifts(redshift, reason, self.task.provenance.z_range)
        padded = Flag.PADDED.value if self.store.size < SIZE else 0
        return redshift, reason, flags | more | padded
