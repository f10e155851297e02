"""`mmae hats`: finished catalogues as one HATS catalogue, which LSDB opens."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hats.pixel_math.healpix_shim as healpix
import numpy as np
from astropy.table import Table
from hats.catalog.dataset.collection_properties import CollectionProperties
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import UsageError
from catalogs.products import hats_rows, hats_writer
from catalogs.products.finished import Finished, open_all
from catalogs.products.partitions import Partitions
from catalogs.ranges import check_range

TILES = "tiles.ecsv"
NAME = re.compile(r"[A-Za-z0-9._-]+")
"""What hats-import takes for a name."""
MOST_ROWS, WIDEST = 10**8, 3600.0


@dataclass(frozen=True)
class Hats:
    """Write finished catalogues as one HATS catalogue, for LSDB and whatever reads Parquet.

    Writes a folder, a HATS collection: rows sorted by HEALPix in Parquet files of a part of the sky each, and
    the margins of these. Columns have the names, units, UCDs and meanings of the FITS catalogue, but for
    those that Rubin's photo-z catalogues name otherwise (PHOTOZ_MEDIAN: mmae_z_median, ...). p(z) is the
    nested column mmae_ens_quant_20: locs, 20 redshifts, at which its CDF is quants. What is missing is null.
    Model, training set and code are in hats.properties, by the keywords of the FITS headers; the sha256 of
    each catalogue in tiles.ecsv.

    Objects without a position are not in it, and counted. One that is in two of the catalogues, as where
    tiles overlap, is in it twice. Memory is that of a partition a core, 0.3 GB for a million rows; while it
    works, the disk holds the rows a second time.

    To read it: `lsdb.open_catalog(OUT)`.
    """

    catalogues: Positional[tuple[Path, ...]]
    """Catalogues of `mmae infer`, TILE.photoz.fits, of one model."""
    out: Path
    """Folder to write; its name is the name of the catalogue."""
    rows: int = 1_000_000
    """Rows of a partition at most."""
    margin: float = 10.0
    """Width of the margins, arcsec: LSDB matches to that radius across partitions; 0: write none."""

    def __post_init__(self) -> None:
        if not self.catalogues:
            raise UsageError("no catalogue was named: name those of `mmae infer`, TILE.photoz.fits")
        check_range("--rows", self.rows, 1, MOST_ROWS)
        check_range("--margin", self.margin, 0, WIDEST)
        if not NAME.fullmatch(self.out.name):
            raise UsageError(f"--out {self.out}: its name must be of letters, digits, dots, _ and - only")


def main(config: Hats) -> None:
    if config.out.exists():
        raise UsageError(f"{config.out} exists: remove it, or choose another --out")
    tiles = open_all(config.catalogues)
    shown = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        disable=not sys.stdout.isatty(),
    )
    with shown as progress:
        found, counts = hats_writer.divide(tiles, config.rows, progress)
        check_margin(config, found)
        with atomic.making_folder(config.out) as folder:
            catalogue = folder / config.out.name
            dealt = folder / "rows"
            dealt.mkdir()
            hats_writer.deal(tiles, found, dealt, progress)
            described = hats_rows.arrow_schema(tiles[0].flags)
            hats_writer.write_partitions(dealt, found, catalogue, described, progress)
            dealt.rmdir()
            hats_writer.write_metadata(catalogue, found, counts, tiles[0].flags, properties(tiles))
            margin = write_margin(config, folder)
            write_tiles(tiles, folder / TILES)
            collect(folder, config.out.name, margin)
    report(config, tiles, found)


def check_margin(config: Hats, found: Partitions) -> None:
    """Raise UsageError where a partition may be smaller than its margin, or no row has a position."""
    if not len(found.order):
        raise UsageError("no object has a position, by which HATS is sorted: use the FITS catalogues")
    order = int(found.order.max())
    if config.margin and healpix.margin2order(np.array(config.margin / 60)) <= order:
        raise UsageError(
            f"partitions of --rows {config.rows} are of HEALPix order {order}, smaller than a margin of "
            f"{config.margin:g} arcsec: allow more --rows, or a smaller --margin (0: none)"
        )


def write_margin(config: Hats, folder: Path) -> str:
    """Write the margins; returns their name, "" where there shall be none."""
    if not config.margin:
        return ""
    name = f"{config.out.name}_{config.margin:g}arcsec"
    hats_writer.write_margin(folder / config.out.name, folder / name, config.margin)
    return name


def properties(tiles: Sequence[Finished]) -> dict[str, Any]:
    """What hats.properties says of where the rows come from."""
    same: dict[str, Any] = {name: value for name, value in tiles[0].provenance.items() if name != "PZINPUT"}
    for name in list(same):
        if any(tile.provenance.get(name) != same[name] for tile in tiles):
            same[name] = f"see {TILES}"
    known = {"obs_title": "Photometric redshifts by mmae", "prov_progenitor": f"FITS catalogues of {TILES}"}
    return known | same | tiles[0].flags


def write_tiles(tiles: Sequence[Finished], path: Path) -> None:
    """A row a catalogue: its name, rows and sha256, and what it says of its input."""
    cards = sorted(set().union(*(tile.provenance for tile in tiles)))
    known = [
        {"CATALOGUE": tile.path.name, "ROWS": tile.n, "SHA256": atomic.sha256(tile.path)} | tile.provenance
        for tile in tiles
    ]
    # what the header of a tile lacks, such as the drift of one without rows, is masked
    Table(known, names=["CATALOGUE", "ROWS", "SHA256", *cards]).write(path, format="ascii.ecsv")


def collect(folder: Path, name: str, margin: str) -> None:
    """Make the folder a collection: the catalogue, and its margins."""
    collection: dict[str, Any] = {"name": name, "hats_primary_table_url": name}
    if margin:
        collection |= {"all_margins": [margin], "default_margin": margin}
    CollectionProperties(**collection).to_properties_file(folder)


def report(config: Hats, tiles: Sequence[Finished], found: Partitions) -> None:
    rows, all_rows = int(found.rows.sum()), sum(tile.n for tile in tiles)
    print(f"wrote {config.out}: {rows} objects (catalogues: {len(tiles)}, partitions: {len(found.order)})")
    if all_rows > rows:
        print(f"objects that are not in it, as they have no position: {all_rows - rows}")
    if over := int((found.rows > config.rows).sum()):
        print(f"partitions with over {config.rows} rows, which are at one place on the sky: {over}")
    print(f"to read it: lsdb.open_catalog({str(config.out)!r})")
