"""The Ray actor of `mmae infer`: reads the rows of a unit, predicts, writes its part of the catalogue.

What passes through Ray is short: row numbers, and the manifest of a part.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalogs import s3
from catalogs.errors import InputRefused
from catalogs.place import Place
from catalogs.products import photoz
from catalogs.products.model_input import Cutouts
from catalogs.products.photoz import Part, Provenance
from catalogs.products.schema import Flag
from catalogs.products.screen import screen_estimates
from catalogs.products.sky import is_unlike_training
from catalogs.store.cutouts import CutoutStore
from catalogs.store.format import ImageMetadata
from mmae.bundles import columns
from mmae.bundles.bundle import Bundle, open_bundle
from mmae.bundles.image_mask import Masking
from mmae.bundles.roles import Roles
from mmae.hardware import Precision
from mmae.production.actor import Actor
from mmae.production.plan import Plan, batch_here
from mmae.production.units import Rows


@dataclass(frozen=True)
class Setup:
    """What every actor of a run is started with."""

    bundle: Path
    model_sha256: str
    precision: Precision
    masking: Masking
    umask: int
    """Of the user; Ray itself runs with a stricter one."""
    batch: int
    """Rows to compute together; the driver's, as it is part of the plan."""
    s3: s3.Environment
    """How the driver reaches S3: the nodes of a cluster need not know."""

    @classmethod
    def of(cls, bundle: Bundle, umask: int) -> "Setup":
        """The precision is the driver's: an actor on other hardware must not choose another."""
        model = bundle.path.resolve(), bundle.sha256, bundle.precision, bundle.masking
        return cls(*model, umask, batch_here(), s3.Environment.here())


@dataclass(frozen=True)
class TileTask:
    """What an actor needs to know of a tile; it is small, and comes with every unit."""

    plan: Plan
    store: Place
    stamp: str
    """Of the store as it was planned."""
    described: ImageMetadata
    parts: Place
    provenance: Provenance


def doubt_unlike(values: dict[str, np.ndarray], flags: np.ndarray) -> None:
    """Set risk to 1 and confidence to 0, in place, for objects unlike those the model was trained on.

    A p(z) is calibrated on galaxies like those of the training set, and means nothing of others.
    """
    unlike = (flags & (Flag.ATYPICAL | Flag.UNLIKE_TRAINING_PIXELS)) != 0
    for name, value in (("PHOTOZ_RISK_BEST", 1), ("PHOTOZ_CONF_BEST", 0)):
        if name in values:
            values[name][unlike] = value


class Predictor(Actor):
    """The actor: a unit becomes a part of the catalogue, and its manifest."""

    def __init__(self, setup: Setup):
        super().__init__()
        self.setup = setup

    def begin(self) -> None:
        setup = self.setup
        os.umask(setup.umask)
        os.environ |= setup.s3
        bundle = open_bundle(setup.bundle, setup.precision, setup.masking)
        if bundle.sha256 != setup.model_sha256:
            raise InputRefused(f"{setup.bundle} was changed while it was being read: start again")
        from mmae.bundles.engine import (
            engine_of_this_process,  # torch: the driver needs this file, but not that
            pinned,
        )

        self.engine = engine_of_this_process(bundle, setup.batch)
        if self.engine.device.type == "cuda":
            self.feed_gpu(pinned, setup.batch)
        table, self.noise, self.input = bundle.roles(), bundle.noise, bundle.input
        self.roles = None if table is None else Roles(table)

    def read(self, store: CutoutStore, start: int, stop: int, crashing: tuple[int, ...] = ()) -> Cutouts:
        """As that of Actor; rows whose sky is unlike that of the training set are flagged."""
        cutouts = super().read(store, start, stop, crashing)
        unlike = (cutouts.reason == "") & is_unlike_training(cutouts.image, self.noise)
        return cutouts._replace(flags=cutouts.flags | np.where(unlike, Flag.UNLIKE_TRAINING_PIXELS.value, 0))

    def compute(
        self,
        task: TileTask,
        store: CutoutStore,
        span: tuple[int, int],
        cutouts: Cutouts,
        object_id: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """Predictions (m, C), p(z) (m, K), reject reasons, flags (m,), observed bands.

        K is 0 where the catalogue keeps no p(z) but its quantiles. See columns.py and screen.py.
        """
        return self.predict(cutouts, object_id, task.provenance.z_range, task.provenance.pdf_bins > 0)

    def predict(
        self, cutouts: Cutouts, object_id: np.ndarray, z_range: tuple[float, float], with_pdf: bool
    ) -> tuple[np.ndarray, ...]:
        """As `compute`, of cutouts that were read and screened."""
        images = cutouts.image, object_id, cutouts.conditions
        if with_pdf:
            table, pdf = self.engine.table_and_pdf(*images)
        else:
            table, pdf = self.engine.table(*images), np.zeros((len(object_id), 0), np.float32)
        values = columns.named(table)
        point = columns.point_estimate(values)
        reason, estimate_flags = screen_estimates(point, values, cutouts.reason, z_range)
        flags = cutouts.flags | estimate_flags
        doubt_unlike(values, flags)
        return table, pdf, reason, flags, cutouts.observed

    def keep(
        self, task: TileTask, store: CutoutStore, rows: Rows, known: dict[str, np.ndarray], done: list[Any]
    ) -> dict:
        """Write the part of a unit; returns its manifest."""
        table, pdf, reason, flags, observed = (np.concatenate(parts) for parts in zip(*done, strict=True))
        values = columns.named(table) | self.known(store, rows, **known)
        catalogue, rejects = photoz.rows(
            **known, columns=values, flags=flags, reason=reason, observed=observed
        )
        part = Part(task.parts, rows.unit)
        kept = reason == ""
        colours = columns.colours(table[kept]) if task.provenance.colours else None
        return part.write(task.plan.sha256, task.provenance, catalogue, rejects, pdf[kept], colours)

    def known(
        self, store: CutoutStore, rows: Rows, object_id: np.ndarray, ra: np.ndarray, dec: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Columns known without the model: the spectroscopic redshift, and the role in training."""
        values = {}
        if store.has_redshifts:
            values["Z_SPEC"] = store.redshifts(rows.start, rows.stop)
        if self.roles is not None:
            values["IN_TRAINING"] = self.roles.of(object_id, ra, dec)
        return values
