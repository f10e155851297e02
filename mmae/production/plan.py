"""The plan of a tile's run, frozen before it starts: which rows, in which units, by which model.

tile.photoz/  plan.json   parts/unit-*   log      tile.photoz.fits   tile.rejects.fits   beside it
"""

import hashlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from catalogs import atomic
from catalogs.errors import InputRefused
from catalogs.place import Place
from catalogs.products.photoz import Part
from catalogs.store.cutouts import CutoutStore
from mmae.hardware import gpus

BATCH, GPU_BATCH = 64, 2048
"""Rows the model computes together, on a core and on a GPU, which 64 would keep busy for less time than it
takes to launch them. It is part of the plan: the last bits of a row depend on it."""
MIN_UNIT, MAX_UNIT, UNITS = 512, 65536, 64
"""A unit is about a 64th of the store, within these bounds: small enough to lose, large enough to forget."""
RUN_ENDING = ".photoz"
"""Ending of a tile's run directory."""
IDS_PER_PASS = 2**22
"""Ids held at once while looking for duplicates: 32 MB, and as much again to sort them."""


@dataclass(frozen=True)
class Plan:
    """Everything that decides the bytes of the catalogue."""

    rows: int
    unit_rows: int
    batch: int
    store_fingerprint: str
    bands: str
    """Of the store, as it says or the user does."""
    zero_point: float
    pixel_scale: float
    input_sha256: str
    model_sha256: str
    image_mask: float
    draws: int
    pdf: bool
    """Whether the whole p(z) is kept."""
    code_version: str
    torch_version: str

    @property
    def sha256(self) -> str:
        return atomic.digest(asdict(self))

    @property
    def units(self) -> range:
        """Unit numbers."""
        return range(number_of_units(self.rows, self.unit_rows, self.batch))

    def span(self, unit: int) -> tuple[int, int]:
        """First row of a unit, and the row after its last."""
        return self._first_row(unit), min(self.rows, self._first_row(unit + 1))

    def _first_row(self, unit: int) -> int:
        starts = (0, self.batch) if self.batch < self.unit_rows else (0,)
        return starts[unit] if unit < len(starts) else (unit - len(starts) + 1) * self.unit_rows


def number_of_units(rows: int, unit_rows: int, batch: int) -> int:
    """Units of a tile; its first batch is one, so that the first rows are there within seconds."""
    return -(-rows // unit_rows) + (batch < min(rows, unit_rows))


def batch_here() -> int:
    """Rows that are computed together by workers like this machine."""
    return GPU_BATCH if gpus() else BATCH


def unit_rows(rows: int, shard_rows: int, batch: int = BATCH) -> int:
    """Rows a unit: whole shards, or halves and quarters of one; independent of the number of workers.

    It is a multiple of BATCH, and has a batch or more where the store has.
    """
    assert shard_rows % BATCH == 0, shard_rows
    target = min(MAX_UNIT, max(MIN_UNIT, batch, rows // UNITS))
    size = shard_rows
    while size > target and size % (2 * BATCH) == 0:
        size //= 2
    return size * max(1, target // size)


def check_input(store: CutoutStore) -> str:
    """Read ids and positions once; returns the sha256 that names this input in the catalogue.

    Raises InputRefused where an id does not fit int64 or stands there twice.
    """
    hashes = {name: hashlib.sha256() for name in ("object_id", "ra", "dec")}
    passes = -(-store.n // IDS_PER_PASS)
    for turn in range(max(1, passes)):
        ids = []
        for start, stop in _strides(store.n):
            block = store.column("object_id", start, stop)
            if block.dtype.kind == "u" and block.size and block.max() > np.iinfo(np.int64).max:
                raise InputRefused(f"{store.path}: object_id {block.max()} does not fit 63 bits")
            block = block.astype("<i8")
            ids.append(block[block % passes == turn])
            if turn == 0:
                hashes["object_id"].update(block.tobytes())
                for name in ("ra", "dec"):
                    hashes[name].update(store.column(name, start, stop).astype("<f8").tobytes())
        _refuse_duplicates(store.path, np.concatenate(ids) if ids else np.zeros(0, np.int64))
    return hashlib.sha256(b"".join(h.digest() for h in hashes.values())).hexdigest()


def check_redshifts(store: CutoutStore) -> None:
    """Raise InputRefused where a redshift is none, as velocities are: they are copied into the catalogue."""
    if store.has_redshifts:
        for start, stop in _strides(store.n):
            store.redshifts(start, stop)


def _strides(rows: int, size: int = 2**20) -> Iterator[tuple[int, int]]:
    for start in range(0, rows, size):
        yield start, min(rows, start + size)


def _refuse_duplicates(path: Place, ids: np.ndarray) -> None:
    ids.sort()
    same = np.flatnonzero(ids[1:] == ids[:-1])
    if len(same):
        raise InputRefused(
            f"{path}: object_id {ids[same[0]]} stands there twice: keep one row of each object"
        )


@dataclass(frozen=True)
class RunFiles:
    """Paths of a tile's run directory and its products."""

    folder: Place
    tile: str

    @property
    def run(self) -> Place:
        return self.folder / f"{self.tile}{RUN_ENDING}"

    @property
    def catalogue(self) -> Place:
        return self.folder / f"{self.tile}.photoz.fits"

    @property
    def rejects(self) -> Place:
        return self.folder / f"{self.tile}.rejects.fits"

    @property
    def parts(self) -> Place:
        return self.run / "parts"

    @property
    def plan(self) -> Place:
        return self.run / "plan.json"

    @property
    def finished(self) -> Place:
        return self.run / "finished.json"

    @property
    def log(self) -> Place:
        return self.run / "log"

    def part(self, unit: int) -> Part:
        return Part(self.parts, unit)

    def refuse_foreign_catalogue(self) -> None:
        """Raise InputRefused for a catalogue that has no run directory."""
        if self.catalogue.exists() and not self.plan.exists():
            raise InputRefused(
                f"{self.catalogue} is of another run: move it away, or write elsewhere with --out"
            )

    def begun(self) -> dict[str, Any] | None:
        """The plan on disk; None where there is none, or it is damaged."""
        return atomic.read_sealed(self.plan)

    def refuse_other_plan(self, plan: dict[str, Any]) -> None:
        """Raise InputRefused where the plan on disk is damaged, or says anything else than this one."""
        if not self.plan.exists():
            return
        old = self.begun()
        if old is None:
            raise InputRefused(f"{self.plan} is damaged: remove {self.run} to start afresh")
        if changed := [name for name in plan if old.get(name) != plan[name]]:
            raise InputRefused(
                f"{self.run} was begun with another {', '.join(changed)}: remove it to start afresh, "
                "or write elsewhere with --out"
            )

    def freeze(self, plan: Plan, store_stamp: str) -> None:
        """Write the plan and the stamp of its store, or check that the plan on disk is the same.

        Raises InputRefused where the run directory belongs to another model, input or version.
        """
        self.refuse_other_plan(asdict(plan))
        if not self.parts.exists():  # of a new run, or lost: then its units are done again
            self.parts.mkdir()
        if not self.plan.exists():
            atomic.write_json(self.plan, atomic.sealed(asdict(plan) | {"store_stamp": store_stamp}))

    def record(self) -> dict[str, Any] | None:
        """The record of the finished tile; None while it is not finished, or where the record is damaged.

        None, too, where it is of products of another name: somebody has renamed the tile.
        """
        record = atomic.read_sealed(self.finished)
        ours = {self.catalogue.name, self.rejects.name}
        return record if record is not None and record["files"].keys() == ours else None

    def is_finished(self, plan: Plan) -> bool:
        """Whether both products exist, match their sha256, and were made by this plan."""
        record = self.record()
        if record is None or record["plan"] != plan.sha256:
            return False
        files = record["files"]
        return all(atomic.matches(path, files[path.name]) for path in (self.catalogue, self.rejects))

    def finish(self, plan: Plan, summary: dict[str, Any]) -> None:
        """Record the products as finished, with a summary for the index and for `mmae status`."""
        files = {path.name: atomic.entry(path) for path in (self.catalogue, self.rejects)}
        record = {"plan": plan.sha256, **summary, "files": files}
        atomic.write_json(self.finished, atomic.sealed(record))
