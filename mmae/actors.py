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
from catalogs.screen import screen_estimates, screen_images
from mmae import columns
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


def role_of(object_id: np.ndarray, roles: np.ndarray) -> np.ndarray:
    """What objects were to the model, (m,) int8, 0: nothing. roles: (L,) of bundle.ROLES, by id."""
    at = np.searchsorted(roles["object_id"], object_id).clip(max=max(0, len(roles) - 1))
    found = roles[at] if len(roles) else np.zeros(len(object_id), roles.dtype)
    return np.where(found["object_id"] == object_id, found["role"], 0)


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
        self.roles = bundle.roles()
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
        table, reason, flags = (np.concatenate(parts) for parts in zip(*judged, strict=True))
        said = columns.named(table) | self.known(store, start, stop, object_id)
        catalogue, rejects = photoz.rows(object_id, ra, dec, said, flags, reason)
        return Part(task.parts, unit).write(task.plan.sha256, task.provenance, catalogue, rejects)

    def predict(
        self, task: Task, cutouts: Cutouts, object_id: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What the model says of a block (m, C), reasons and flags (m,); see columns.py and screen.py."""
        table = self.engine.table(cutouts.image, object_id)
        said = columns.named(table)
        z_range = task.provenance.z_range
        reason, flags = screen_estimates(columns.judged(said), said, cutouts.reason, z_range)
        return table, reason, cutouts.flags | flags

    def known(
        self, store: CutoutStore, start: int, stop: int, object_id: np.ndarray
    ) -> dict[str, np.ndarray]:
        """What is known of objects without the model: their redshift, and what they were to it."""
        known = {}
        if store.has_redshifts:
            redshift = store.column("redshift", start, stop)
            known["Z_SPEC"] = np.where(redshift > -1, redshift, np.nan)
        if self.roles is not None:
            known["IN_TRAINING"] = role_of(object_id, self.roles)
        return known

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
