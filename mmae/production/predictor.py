"""The Ray actor of `mmae infer`: takes a unit by its number, reads its rows, predicts, writes its part.

Pixels never pass through Ray: an actor gets row numbers, and returns a short manifest.
"""

import os
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from catalogs.errors import InputRefused
from catalogs.products import photoz
from catalogs.products.photoz import Part, Provenance
from catalogs.products.schema import Flag
from catalogs.products.screen import screen_estimates, screen_images
from catalogs.products.sky import is_unlike_training
from catalogs.store.cutouts import CutoutStore, open_store, pad
from catalogs.store.format import ImageMetadata
from mmae.bundles import columns
from mmae.bundles.bundle import Bundle, open_bundle
from mmae.bundles.image_mask import Masking
from mmae.hardware import Precision
from mmae.prefetch import Prefetch
from mmae.production.plan import BATCH, Plan

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
class TileTask:
    """What an actor needs to know of a tile; it is small, and comes with every unit."""

    plan: Plan
    store: Path
    stamp: str
    """Of the store as it was planned."""
    described: ImageMetadata
    parts: Path
    provenance: Provenance


class Cutouts(NamedTuple):
    """Cutouts of m rows, ready for the model; see catalogs/products/screen.py."""

    image: np.ndarray
    """(m, 5, 64, 64)"""
    reason: np.ndarray
    flags: np.ndarray


def read(store: CutoutStore, start: int, stop: int) -> Cutouts:
    """Read and screen the rows of a block; runs on a prefetching thread."""
    image, damaged = store.images(start, stop)
    return Cutouts(*screen_images(pad(image), damaged))


def role_of(object_id: np.ndarray, roles: np.ndarray) -> np.ndarray:
    """Roles of objects in the making of the model, (m,) int8, 0: none. roles: (L,) of bundle.ROLES, by id."""
    index = np.searchsorted(roles["object_id"], object_id).clip(max=max(0, len(roles) - 1))
    nearest = roles[index] if len(roles) else np.zeros(len(object_id), roles.dtype)
    return np.where(nearest["object_id"] == object_id, nearest["role"], 0)


def doubt_unlike(values: dict[str, np.ndarray], flags: np.ndarray) -> None:
    """Set risk to 1 and confidence to 0, in place, for objects unlike those the model was trained on.

    A p(z) is calibrated on galaxies like those of the training set, and means nothing of others.
    """
    unlike = (flags & (Flag.ATYPICAL | Flag.UNLIKE_TRAINING_PIXELS)) != 0
    for name, value in (("PHOTOZ_RISK_BEST", 1), ("PHOTOZ_CONF_BEST", 0)):
        if name in values:
            values[name][unlike] = value


class Predictor:
    """A process with one thread (or one GPU), its own copy of the model, and its own handles on the stores.

    Units are computed one after the other. A second one may come while the first is computed: its first rows
    are prefetched, and it is computed while the part of the first is written. Until then it can be recalled.
    """

    def __init__(self, setup: Setup):
        os.umask(setup.umask)
        bundle = open_bundle(setup.bundle, setup.precision, setup.masking)
        if bundle.sha256 != setup.model_sha256:
            raise InputRefused(f"{setup.bundle} was changed while it was being read: start again")
        from mmae.bundles.engine import (
            engine_of_this_process,  # torch: the driver needs this file, but not that
        )

        self.engine = engine_of_this_process(bundle, BATCH)
        self.roles, self.noise = bundle.roles(), bundle.noise
        self.stores: OrderedDict[Path, CutoutStore] = OrderedDict()
        self.opening, self.computing, self.claiming = threading.Lock(), threading.Lock(), threading.Lock()
        self.begun = -1
        self.recalled: set[int] = set()

    def process(self, ticket: int, task: TileTask, unit: int) -> dict | None:
        """Compute a unit and write its part; returns its manifest, or None if the unit was recalled.

        After a crash the same unit gives the same bytes again.
        """
        store, (start, stop) = self.open(task), task.plan.span(unit)
        object_id, ra, dec = (store.column(name, start, stop) for name in ("object_id", "ra", "dec"))
        object_id = object_id.astype(np.int64)
        spans = [(a, min(stop, a + READ_ROWS)) for a in range(start, stop, READ_ROWS)]
        ids = np.split(object_id, range(READ_ROWS, len(object_id), READ_ROWS))
        with Prefetch((self.read(store, *span) for span in spans), most=1) as blocks, self.computing:
            if not self.claim(ticket):
                return None
            predicted = [self.predict(task, *block) for block in zip(blocks, ids, strict=True)]
        table, reason, flags = (np.concatenate(parts) for parts in zip(*predicted, strict=True))
        values = columns.named(table) | self.known(store, start, stop, object_id)
        catalogue, rejects = photoz.rows(object_id, ra, dec, values, flags, reason)
        return Part(task.parts, unit).write(task.plan.sha256, task.provenance, catalogue, rejects)

    def read(self, store: CutoutStore, start: int, stop: int) -> Cutouts:
        """Read and screen rows, and flag those whose sky is unlike that of the training set."""
        image, reason, flags = read(store, start, stop)
        unlike = (reason == "") & is_unlike_training(image, self.noise)
        return Cutouts(image, reason, flags | np.where(unlike, Flag.UNLIKE_TRAINING_PIXELS.value, 0))

    def predict(
        self, task: TileTask, cutouts: Cutouts, object_id: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predictions for a block (m, C), reject reasons and flags (m,); see columns.py and screen.py."""
        table = self.engine.table(cutouts.image, object_id)
        values = columns.named(table)
        point = columns.point_estimate(values)
        reason, estimate_flags = screen_estimates(point, values, cutouts.reason, task.provenance.z_range)
        flags = cutouts.flags | estimate_flags
        doubt_unlike(values, flags)
        return table, reason, flags

    def known(
        self, store: CutoutStore, start: int, stop: int, object_id: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Columns known without the model: the spectroscopic redshift, and the role in training."""
        values = {}
        if store.has_redshifts:
            redshift = store.column("redshift", start, stop)
            values["Z_SPEC"] = np.where(redshift > -1, redshift, np.nan)
        if self.roles is not None:
            values["IN_TRAINING"] = role_of(object_id, self.roles)
        return values

    def claim(self, ticket: int) -> bool:
        """Begin a unit, unless it was recalled; returns whether it has begun."""
        with self.claiming:
            if ticket in self.recalled:
                self.recalled.remove(ticket)
                return False
            self.begun = ticket
            return True

    def recall(self, ticket: int) -> bool:
        """Give a unit back that has not begun; returns whether another actor may have it."""
        with self.claiming:
            if ticket > self.begun:
                self.recalled.add(ticket)
            return ticket > self.begun

    def open(self, task: TileTask) -> CutoutStore:
        """The store of a tile; the last few stay open."""
        with self.opening:
            if task.store not in self.stores:
                store = open_store(task.store, task.described)
                if store.stamp != task.stamp:
                    raise InputRefused(f"{task.store} was changed while it was being read: start again")
                self.stores[task.store] = store
                if len(self.stores) > OPEN_STORES:
                    self.stores.popitem(last=False)
            self.stores.move_to_end(task.store)
            return self.stores[task.store]
