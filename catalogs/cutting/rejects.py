"""Objects that do not become rows of a store, each with its reason: OUT.rejects.ecsv."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Self

import numpy as np
from astropy.table import Table

from catalogs import atomic
from catalogs.cutting.objects import Objects
from catalogs.store.format import beside


class Reason(StrEnum):
    """Why an object is rejected."""

    NO_POSITION = "NO_POSITION"
    OFF_COADDS = "OFF_COADDS"
    NO_FILE = "NO_FILE"
    NO_IMAGE = "NO_IMAGE"
    DAMAGED = "DAMAGED"
    PIXEL_SCALE = "PIXEL_SCALE"
    ZERO_POINT = "ZERO_POINT"
    OFF_FILE = "OFF_FILE"
    REFUSED = "REFUSED"


MEANINGS = {
    Reason.NO_POSITION: "the table has no position",
    Reason.OFF_COADDS: "it lies on no coadd",
    Reason.NO_FILE: "it has no file in any band",
    Reason.NO_IMAGE: "it has no image in any of the bands",
    Reason.DAMAGED: "a file of it is damaged",
    Reason.PIXEL_SCALE: "a file has another pixel scale than the store",
    Reason.ZERO_POINT: "a file has another zero point than the store",
    Reason.OFF_FILE: "its position is not on its file",
    Reason.REFUSED: "a file of it is ambiguous",
}


@dataclass
class Rejects:
    """Rejected rows of a table of objects."""

    rows: list[int] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    """A sentence each that names the file; "" where the reason says all."""

    def add(self, row: int, reason: Reason, detail: str = "") -> None:
        self.rows.append(int(row))
        self.reasons.append(reason)
        self.details.append(" ".join(detail.split()))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Those of several ranks, in the order of the table."""
        entries = sorted(
            entry for part in parts for entry in zip(part.rows, part.reasons, part.details, strict=True)
        )
        return cls(*map(list, zip(*entries, strict=True))) if entries else cls()

    def said(self) -> str:
        """How many for each reason, in words."""
        counts = {reason: self.reasons.count(reason) for reason in Reason}
        return ", ".join(
            f"{count:,} {reason} ({MEANINGS[reason]})" for reason, count in counts.items() if count
        )


def rejects_path(store: Path) -> Path:
    return beside(store, ".rejects.ecsv")


def write_rejects(store: Path, objects: Objects, rejects: Rejects) -> None:
    """Write the table beside a store: object_id, ra, dec, reason, detail. Without rejects there is none."""
    path, rows = rejects_path(store), np.array(rejects.rows, np.int64)
    if not rejects.rows:
        path.unlink(missing_ok=True)  # of an earlier run that was not finished
        return
    table = Table(
        {
            "object_id": objects.object_id[rows],
            "ra": objects.ra[rows],
            "dec": objects.dec[rows],
            "reason": [str(reason) for reason in rejects.reasons],
            "detail": rejects.details,
        }
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as temporary:
        table.write(temporary, format="ascii.ecsv")
