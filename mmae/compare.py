"""`mmae compare A.fits B.fits`: what changed between two catalogues of the same objects, and why."""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.compare", "Compare")

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import InputRefused
from catalogs.output import check_output_folder
from catalogs.products.finished import native, open_finished, reasons_of, rejects_beside
from catalogs.store.cutouts import open_store
from catalogs.surveys.desi import locate
from mmae import cli
from mmae.scores.catalogue import brightness, comparison
from mmae.scores.catalogue.comparison import COLUMNS, ID, Shared

CARDS = {"PZMODEL": "model", "PZCODE": "program", "PZTRAIN": "training set", "PZINPUT": "ids and positions"}
MOVED, DIFFERENCES = "moved.ecsv", "differences.ecsv"
SHORT = 16
"""Letters of a sha256 that tell it from others."""


@dataclass(frozen=True)
class Compare:
    """Compare two catalogues of the same objects: of two models, two versions, or two reductions of a tile.

    Says which objects are in one alone, and why where they were rejected; how far redshifts moved,
    dz = (z_B - z_A) / (1 + z_A), for all and in ranges of redshift, and of magnitude with --images; which
    flags changed; and for redshifts that moved by over 0.15 the first of these that holds: other bands were
    used; other flags of the image; the other of two peaks of p(z); p(z) was wide; or else model, calibration
    or pixels.
    """

    first: Positional[Path]
    """Catalogue A, that `mmae infer` wrote."""

    second: Positional[Path]
    """Catalogue B."""

    images: Path | None = None
    """Cutout store of the objects, to measure how bright they are."""

    out: Path | None = None
    """Folder for moved.ecsv (every object that moved, and why) and differences.ecsv (the table in ranges of
    redshift and magnitude); without it B.comparison beside B.fits."""


class Side(NamedTuple):
    """One of the catalogues."""

    path: Path
    header: fits.Header
    rows: np.ndarray
    """(N,) with the columns COLUMNS"""
    rejects: dict[int, str]
    """Reasons by id."""

    @property
    def bands(self) -> list[str]:
        """Names of the bits of BANDMASK."""
        names = (self.header.get(f"PZBAND{bit}") for bit in range(64))
        return [name for name in names if name is not None]


def main(config: Compare) -> None:
    """Write two tables; UsageError or InputRefused, and nothing written, when that cannot be done."""
    out = config.out or config.second.parent / f"{config.second.stem}.comparison"
    check_output_folder(out)
    sides = read(config.first), read(config.second)
    both, lost, gained = comparison.shared(sides[0].rows, sides[1].rows, (sides[0].bands, sides[1].bands))
    if not len(both.dz):
        raise InputRefused(f"{config.first} and {config.second} have no object in common")
    magnitudes = magnitudes_of(config.images, both) if config.images else None
    differences, movers = comparison.differences(both, magnitudes), comparison.movers(both)
    out.mkdir(parents=True, exist_ok=True)
    for name, table in ((DIFFERENCES, differences), (MOVED, movers)):
        with atomic.replacing(out / name) as temporary:
            table.write(temporary, format="ascii.ecsv")
    print("\n".join([*provenance(*sides), *objects(sides, len(both.dz), lost, gained)]))
    print("\n".join(["", *_formatted(differences)]))
    if len(flags := comparison.changed_flags(both)):
        print("\n".join(["", *_formatted(flags)]))
    print(f"\n{len(movers)} redshifts moved by over 0.15 (1 + z):")
    for cause in comparison.causes(both):
        print(f"{cause.rows.sum():>8} {cause.name}")
    print(f"wrote {DIFFERENCES} and {MOVED} to {out}")


def read(path: Path) -> Side:
    """A catalogue, and the rejects beside it; raises as `open_finished`."""
    tile = open_finished(path)
    none = np.zeros(0, tile.rows.dtype)  # of a tile whose objects were all rejected
    rows = np.concatenate([native(block, COLUMNS) for block in (none, *tile.blocks())])
    rejects: dict[int, str] = {}
    for block in rejects_beside(path):
        rejects |= zip(block[ID].tolist(), reasons_of(block), strict=True)
    return Side(path, tile.header, rows, rejects)


def magnitudes_of(images: Path, both: Shared) -> tuple[str, np.ndarray]:
    """A band, and AB magnitudes in it of the objects of both, (m,), NaN where it was not measured.

    Raises InputRefused for a store with none of the objects.
    """
    store = open_store(images)
    seen = brightness.measure(store)
    place = locate(both.first[ID], store.column("object_id")[seen.rows])
    if not (place >= 0).any():
        raise InputRefused(f"{images} has none of the objects: name the store that was inferred on")
    magnitude = np.full(len(both.dz), np.nan)
    magnitude[place[place >= 0]] = seen.magnitude[place >= 0]
    return seen.band, magnitude


def provenance(first: Side, second: Side) -> list[str]:
    """The files and what they were made with; said once where it is the same."""
    lines = [
        f"{letter}: {side.path.name}, {len(side.rows)} objects, sha256 {atomic.sha256(side.path)[:SHORT]}"
        for letter, side in (("A", first), ("B", second))
    ]
    for card, text in CARDS.items():
        a, b = (str(side.header.get(card, "not told"))[:SHORT] for side in (first, second))
        lines.append(f"   {text}: {a}, the same" if a == b else f"   {text}: {a} and {b}")
    if first.bands != second.bands:
        lines.append(f"   bands: {' '.join(first.bands)} and {' '.join(second.bands)}")
    return lines


def objects(sides: tuple[Side, Side], common: int, lost: np.ndarray, gained: np.ndarray) -> list[str]:
    """How many are in both, and in one alone, by the reason for which the other rejected them."""
    lines = [f"{common:>8} objects in both"]
    for letter, ids, other in (("A", lost, sides[1]), ("B", gained, sides[0])):
        reasons = Counter(other.rejects.get(number, "") for number in ids.tolist())
        said = ", ".join(
            f"{count} rejected for {reason}" for reason, count in reasons.most_common() if reason
        )
        lines.append(f"{len(ids):>8} in {letter} alone{f' ({said})' if said else ''}")
    return lines


def _formatted(table: Table) -> list[str]:
    shown = table.copy()
    for name in shown.colnames:
        if shown[name].dtype.kind == "f":
            shown[name].format = ".4f"
    return list(shown.pformat(max_lines=-1, max_width=-1, align="<"))
