"""One tile of the survey, from its first check to its catalogue.

A tile is opened (checked, planned, locked), workers do its units, and it is finished (merged). The files on
disk decide what is left to do; see plan.py.
"""

import contextlib
import glob
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from operator import itemgetter
from typing import Any

import numpy as np

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.object_path import ObjectPath
from catalogs.place import Place, together
from catalogs.products import photoz
from catalogs.products.coverage import Coverage
from catalogs.products.drift import ColourDrift, Drift
from catalogs.products.photoz import Part, Provenance
from catalogs.products.schema import REJECTS
from catalogs.store.checks import open_group
from catalogs.store.cutouts import open_store
from catalogs.store.format import ImageMetadata, get_array
from mmae import __version__
from mmae.bundles.bundle import Bundle
from mmae.bundles.columns import MC_SEED
from mmae.production.notes import Notes
from mmae.production.plan import Plan, RunFiles, batch_here, check_input, check_redshifts, unit_rows
from mmae.production.predictor import TileTask
from mmae.production.sky_warning import sky_warning
from mmae.production.tile_list import named_stores


@dataclass
class Tile:
    """A store, its run directory and products, and its progress; one thread at a time uses it.

    Implements units.Source.
    """

    path: Place
    files: RunFiles
    objects: int = 0
    """Objects of the store, before it is checked."""
    rows: int = 0
    """Rows of the catalogue, so far."""
    rejects: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    error: Exception | None = None
    """Why it has no catalogue, and will have none in this run."""
    warning: str = ""
    """How its pixels differ from those of the training set."""
    was_finished: bool = False
    before: int = 0
    """Objects that an earlier run had done."""
    listed: bool = False
    """Whether all of its units have been handed out at least once."""
    pending: int = 0
    """Units handed out and not done."""
    owned: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @cached_property
    def notes(self) -> Notes:
        return Notes(self.files.log)

    @property
    def name(self) -> str:
        return self.files.tile

    @property
    def log(self) -> Place:
        return self.files.log

    def count_objects(self) -> int:
        """Count the objects of the store before anything is checked; 0 where it cannot be read."""
        with contextlib.suppress(InputRefused, LookupError, AssertionError, OSError):
            return int(get_array(open_group(self.path), "object_id").shape[0])
        return 0

    def check(self, bundle: Bundle, described: ImageMetadata) -> None:
        """Open the store and plan; raises UsageError or InputRefused, and creates nothing.

        The plan does not have the fingerprint yet, for which a foreign store is read.
        """
        self.store = open_store(self.path, described)
        bundle.input.check(self.store)
        check_redshifts(self.store)
        self.plan = self.make_plan(bundle)
        self.files.refuse_foreign_catalogue()

    def open(self, bundle: Bundle, described: ImageMetadata) -> None:
        """Check the store, become its only writer, freeze the plan.

        Raises UsageError, InputRefused or OSError: then nothing was created, or nothing was changed.
        """
        self.check(bundle, described)
        self.plan = replace(self.plan, store_fingerprint=self.fingerprint())
        self.files.run.mkdir(parents=True, exist_ok=True)
        try:
            self.owned.enter_context(atomic.owned(self.files.run))
        except BlockingIOError:
            raise UsageError(f"{self.files.run} is being written by another process") from None
        self.files.freeze(self.plan, self.store.stamp)
        if self.files.is_finished(self.plan):
            self.was_finished = True
            self.count(self.files.record() or {})
        else:
            self.sweep()
            self.task = self.make_task(bundle, described)
            if differences := bundle.input.differences(self.store):
                print(f"{self.path}: {differences}", flush=True)
            self.warning = sky_warning(self.store, bundle.noise, bundle.input)
            if self.warning:
                print(f"warning: {self.path}: {self.warning}", flush=True)

    def fingerprint(self) -> str:
        """Fingerprint of the store; that of an earlier run where no file was written since."""
        begun = self.files.begun()
        if begun and begun["store_stamp"] == self.store.stamp:
            return str(begun["store_fingerprint"])
        return self.store.fingerprint

    def make_plan(self, bundle: Bundle) -> Plan:
        return Plan(
            rows=self.store.n,
            unit_rows=unit_rows(self.store.n, self.store.shard_rows, batch_here()),
            batch=batch_here(),
            store_fingerprint="",
            bands=" ".join(self.store.bands),
            zero_point=self.store.zero_point,
            pixel_scale=self.store.pixel_scale,
            input_sha256=check_input(self.store),
            model_sha256=bundle.sha256,
            image_mask=bundle.masking.ratio,
            draws=bundle.masking.draws,
            pdf=bundle.keep_pdf,
            code_version=__version__,
            torch_version=version("torch"),
        )

    def make_task(self, bundle: Bundle, described: ImageMetadata) -> TileTask:
        grid: dict[str, Any] = bundle.card["grid"] if bundle.keep_pdf else {"bins": 0, "z_max": 0.0}
        return TileTask(
            plan=self.plan,
            store=self.path.resolve(),
            stamp=self.store.stamp,
            described=described,
            parts=self.files.parts,
            provenance=Provenance(
                model_sha256=bundle.sha256,
                training_set=bundle.card["training_data"]["survey"],
                code_version=__version__,
                input_sha256=self.plan.input_sha256,
                z_range=bundle.z_range,
                image_mask=bundle.masking.ratio,
                draws=bundle.masking.draws,
                mc_seed=MC_SEED,
                bands=bundle.input.bands,
                zero_point=bundle.input.zero_point,
                input_zero_point=self.store.zero_point,
                pixel_scale=bundle.input.pixel_scale,
                input_pixel_scale=self.store.pixel_scale,
                pdf_bins=grid["bins"],
                pdf_z_max=grid["z_max"],
                has_tail=bundle.card["calibration"]["tail"],
                # what is hidden has no colours
                colours=0 if bundle.masking.ratio else bundle.card["calibration"]["colours"],
            ),
        )

    def sweep(self) -> None:
        """Remove what killed processes left half-written, and nothing of a tile whose name begins alike."""
        orphans = [*self.files.run.rglob(f"*{atomic.TEMPORARY}")]
        for product in (self.files.catalogue, self.files.rejects):
            orphans += self.files.folder.glob(f".{glob.escape(product.name)}.*{atomic.TEMPORARY}")
        for orphan in orphans:
            orphan.unlink(missing_ok=True)

    def units(self) -> Iterator[tuple[int, dict | None]]:
        """The units of an unfinished tile, each with its manifest where it was done before.

        Raises InputRefused where one was done that is of other rows, as an earlier version divided the tile.
        """
        if self.was_finished:
            return
        there = {path.name for path in self.files.parts.iterdir()}
        for unit in self.plan.units:
            part, (start, stop) = self.files.part(unit), self.plan.span(unit)
            done = part.finished(self.plan.sha256) if part.manifest.name in there else None
            if done and done["rows"] + done["rejects"] != stop - start:
                raise InputRefused(
                    f"{self.files.run} was begun with other units: remove it to start afresh, or write "
                    "elsewhere with --out"
                )
            yield unit, done

    def count(self, manifest: dict) -> None:
        """Add the counts of a unit, or of a tile that was finished before."""
        self.rows += manifest["rows"]
        self.rejects += manifest["rejects"]
        self.reasons.update(manifest["reasons"])

    def finish(self) -> None:
        """Check that every object is there once, merge the parts, and record that the tile is finished.

        Raises OSError where a part does not hold its objects, InputRefused where the store has changed since
        it was planned.
        """
        if not self.store.is_unchanged(self.plan.store_fingerprint):
            raise InputRefused(
                f"{self.path} was changed while it was read: remove {self.files.run} and start again"
            )
        atomic.check_owned(self.files.run)
        coverage, drift = Coverage(), Drift()
        colours = ColourDrift(self.task.provenance.colours)
        self.rows, self.rejects, self.reasons = 0, 0, Counter()
        for unit in self.plan.units:
            manifest = self.files.part(unit).written(self.plan.sha256)
            self.count(manifest)
            colours.add(**manifest["colours"])

        def check(part: Part, catalogue: np.ndarray) -> None:
            self.check_part(part, catalogue)
            coverage.add(catalogue["HEALPIX29"].astype(np.int64))
            drift.add(catalogue["OOD_SCORE"])

        photoz.merge(
            [self.files.part(unit) for unit in self.plan.units],
            self.plan.sha256,
            (self.rows, self.rejects),
            self.task.provenance,
            self.files.catalogue,
            self.files.rejects,
            colours,
            check,
        )
        counts: dict[str, Any] = {"rows": self.rows, "rejects": self.rejects, "warning": self.warning}
        counts["reasons"] = dict(sorted(self.reasons.items()))
        for sentence in filter(None, (drift.sentence, colours.sentence)):
            print(f"warning: {self.path}: {sentence}", flush=True)
        for name, found in (("drift", drift), ("colour_drift", colours)):
            if found.known:
                counts |= {name: found.distance, f"{name}_by_chance": found.chance}
        self.files.finish(self.plan, counts | {"coverage": coverage.moc()})

    def check_part(self, part: Part, catalogue: np.ndarray) -> None:
        """Raise OSError where a part does not hold the objects of its rows; catalogue: its rows with p(z)."""
        start, stop = self.plan.span(part.unit)
        rejects = part.read(REJECTS, self.plan.sha256)
        written = np.concatenate([catalogue["OBJECT_ID"], rejects["OBJECT_ID"]])
        expected = self.store.column("object_id", start, stop)
        if not np.array_equal(np.sort(written), np.sort(expected)):
            raise OSError(
                f"unit {part.unit} does not hold the objects of rows {start} to {stop}: "
                f"remove {self.files.run}"
            )

    def close(self) -> None:
        """Release the lock of the tile, and its memory; workers that were at its units have ended."""
        if self.pending:
            with contextlib.suppress(OSError):  # the next run does it, and this one has a reason of its own
                self.sweep()
        self.notes.close()
        self.owned.close()
        for name in ("store", "task"):
            self.__dict__.pop(name, None)

    def note(self, text: str) -> None:
        """Write a line to the tile's log."""
        self.notes.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}")


# ---------------------------------------------------------------- the tiles of a run


def named_tiles(catalog: Sequence[str], out: Place | None) -> list[Tile]:
    """The tiles of a run, unfinished ones first; all products go into one folder, under names of their own.

    Raises UsageError before anything is created.
    """
    tiles = [Tile(store, run_files(store, out)) for store in named_stores(catalog)]
    by_name: dict[str, Tile] = {}
    for tile in tiles:
        if (other := by_name.setdefault(tile.name, tile)) is not tile:
            raise UsageError(
                f"{other.path} and {tile.path} would both become {tile.files.catalogue.name}: rename one"
            )
    if len({tile.files.folder for tile in tiles}) > 1:
        raise UsageError("the stores lie in several folders: choose one for all catalogues with --out")
    finished = together(lambda tile: tile.files.finished.exists(), tiles, tiles[0].files.folder)
    return [tile for _, tile in sorted(zip(finished, tiles, strict=True), key=itemgetter(0))]


def run_files(store: Place, out: Place | None) -> RunFiles:
    """Names of the products. Raises UsageError for a folder that cannot be written to."""
    store = store.resolve()
    tile, folder = store.name.removesuffix(".zarr"), (out or store.parent).resolve()
    if not tile or not tile.isprintable() or tile.startswith("."):
        raise UsageError(f"{tile!r} does not serve as a tile name: rename the store")
    if folder == store or store in folder.parents:
        raise UsageError(f"{folder} lies inside the store: choose another --out")
    if isinstance(folder, ObjectPath):
        return RunFiles(folder, tile)  # who writes there first says whether it can be
    nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not nearest.is_dir():
        raise UsageError(f"{nearest} is not a directory: choose another --out")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UsageError(f"{nearest} cannot be written to: choose another --out")
    return RunFiles(folder, tile)
