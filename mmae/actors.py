"""The Ray actor: take a unit by its number, read its rows, predict, write its part.

Pixels never pass through Ray: an actor is told which rows, and answers with a short manifest.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from catalogs import photoz
from catalogs.cutout_format import SIZE, Described
from catalogs.cutouts import CutoutStore, open_store, pad
from catalogs.errors import InputRefused
from catalogs.photoz import Part, Provenance
from catalogs.schema import Flag
from catalogs.screen import screen_images, screen_redshifts
from mmae.ahead import Ahead
from mmae.bundle import Bundle, Precision, open_bundle
from mmae.image_mask import Masking
from mmae.plan import BATCH, Plan

OPEN_STORES = 4
READ_ROWS = 512
"""Rows read and screened at a time: 42 MB of float32 pixels; two are in memory, and two of the next unit."""


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


class Cutouts(NamedTuple):
    """Cutouts of m rows, ready for the model; see catalogs/screen.py."""

    image: np.ndarray
    """(m, 5, 64, 64)"""
    reason: np.ndarray
    flags: np.ndarray


def read(store: CutoutStore, start: int, stop: int) -> Cutouts:
    """Rows of one block, judged; on a thread of its own while others are computed."""
    clean, reason, flags = screen_images(*store.images(start, stop))
    padded = Flag.PADDED.value if store.size < SIZE else 0
    return Cutouts(pad(clean), reason, flags | padded)


class Predictor:
    """One process with one thread (or one GPU), its own copy of the model and its own eyes on the stores.

    Units are done one after the other. A second one may come while the first is done: its first rows are
    read meanwhile, and it is computed as soon as the first is, whose part is then being written. Until it
    is, `take_back` can have it.
    """

    def __init__(self, setup: Setup):
        os.umask(setup.umask)
        bundle = open_bundle(setup.bundle, setup.precision, setup.masking)
        if bundle.sha256 != setup.model_sha256:
            raise InputRefused(f"{setup.bundle} was changed while it was being read: start again")
        from mmae.engine import engine_of_this_process  # torch: the driver needs this file, but not that

        self.engine = engine_of_this_process(bundle, BATCH)
        self.stores: OrderedDict[Path, CutoutStore] = OrderedDict()
        self.opening, self.computing, self.claiming = threading.Lock(), threading.Lock(), threading.Lock()
        self.begun = -1
        self.taken_back: set[int] = set()

    def process(self, ticket: int, task: Task, unit: int) -> dict | None:
        """Do one unit; gives its manifest. Done again after a crash, it writes the same bytes again."""
        store, (start, stop) = self.open(task), task.plan.span(unit)
        object_id, ra, dec = (store.column(name, start, stop) for name in ("object_id", "ra", "dec"))
        object_id = object_id.astype(np.int64)
        spans = [(a, min(stop, a + READ_ROWS)) for a in range(start, stop, READ_ROWS)]
        ids = np.split(object_id, range(READ_ROWS, len(object_id), READ_ROWS))
        with Ahead((read(store, *span) for span in spans), most=1) as blocks, self.computing:
            if not self.claim(ticket):
                return None
            judged = [self.predict(task, *block) for block in zip(blocks, ids, strict=True)]
        redshift, reason, flags = (np.concatenate(columns) for columns in zip(*judged, strict=True))
        catalogue, rejects = photoz.rows(object_id, ra, dec, redshift, flags, reason)
        return Part(task.parts, unit).write(task.plan.sha256, task.provenance, catalogue, rejects)

    def predict(
        self, task: Task, cutouts: Cutouts, object_id: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Redshifts, reasons and flags of a block, (m,) each; see catalogs/screen.py."""
        redshift = self.engine.redshifts(cutouts.image, object_id)
        reason, flags = screen_redshifts(redshift, cutouts.reason, task.provenance.z_range)
        return redshift, reason, cutouts.flags | flags

    def claim(self, ticket: int) -> bool:
        """Whether the unit is still ours to do; from now on it is."""
        with self.claiming:
            if ticket in self.taken_back:
                self.taken_back.remove(ticket)
                return False
            self.begun = ticket
            return True

    def take_back(self, ticket: int) -> bool:
        """Whether the unit had not begun; then it will not, and another actor may have it."""
        with self.claiming:
            if ticket > self.begun:
                self.taken_back.add(ticket)
            return ticket > self.begun

    def open(self, task: Task) -> CutoutStore:
        """The store of a tile; those of the last few stay open."""
        with self.opening:
            if task.store not in self.stores:
                store = open_store(task.store, task.described)
                if store.fingerprint != task.plan.store_fingerprint:
                    raise InputRefused(f"{task.store} was changed while it was being read: start again")
                self.stores[task.store] = store
                if len(self.stores) > OPEN_STORES:
                    self.stores.popitem(last=False)
            self.stores.move_to_end(task.store)
            return self.stores[task.store]
