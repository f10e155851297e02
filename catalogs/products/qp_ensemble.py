"""`mmae qp`: finished catalogues as an ensemble of p(z) that qp reads, and RAIL.

The file is laid out as qp writes HDF5: tables `data` (p(z)), `ancil` (the other columns) and `meta`.
"""

import itertools
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import qp
from rich.progress import track
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.products import schema
from catalogs.products.finished import Finished, open_all
from catalogs.products.pdf_grid import density_of_bins
from catalogs.products.quantiles import LEVELS, density_on, polyline
from catalogs.products.schema import CATALOGUE
from catalogs.ranges import check_range

PDF = "PDF_QUANT"
NAMES = {"PHOTOZ_MODE": "zmode", "PHOTOZ_MEAN": "zmean", "PHOTOZ_MEDIAN": "zmedian", "PHOTOZ_BEST": "zbest"}
"""Columns that have other names in RAIL."""
ENDINGS = (".hdf5", ".h5", ".hf5", ".hd5")
"""Of files that qp takes for HDF5."""
ROWS = 1 << 14
"""Rows turned into p(z) at a time: 40 MB of a grid of 301 points."""
FINEST, FARTHEST = 100_000, 100.0


@dataclass(frozen=True)
class Qp:
    """Write the p(z) of finished catalogues as an ensemble, for qp and RAIL.

    Writes one HDF5 file: `qp.read(FILE)`. Each p(z) is its 20 quantiles, and two ends (levels 0 and 1) that
    continue the first and the last step; or with --grid its density at redshifts that all share. All
    other columns of the catalogues are in its ancil table, under their names there, but for zmode, zmean,
    zmedian and zbest, as RAIL calls PHOTOZ_MODE, _MEAN, _MEDIAN and _BEST. Those of the headers' keywords
    that all catalogues share (model, training set, code) are attributes of the file.

    qp (1.1) gives the quantiles back as they are: its ppf at their levels. Between them it lays a quadratic
    spline, which need not rise and can leave 0 to 1, and its pdf is not normalized: for metrics, and whatever
    needs pdf or cdf, use --grid.

    Objects without p(z) are not in it, and counted. One that is in two of the catalogues, as where tiles
    overlap, is in it twice.
    """

    catalogues: Positional[tuple[Path, ...]]
    """Catalogues of `mmae infer`, TILE.photoz.fits, of one model."""
    out: Path
    """File to write, *.hdf5."""
    grid: int = 0
    """Points from 0 to --z-max at which to give the density, such as 301; 0: give the quantiles. The density
    is that of the whole p(z) where a catalogue has it (`mmae infer --pdf`), else that between quantiles."""
    z_max: float = 0.0
    """End of the grid, beyond which p(z) is cut off; 0: where the farthest p(z) ends."""

    def __post_init__(self) -> None:
        if not self.catalogues:
            raise UsageError("no catalogue was named: name those of `mmae infer`, TILE.photoz.fits")
        check_range("--grid", self.grid, 0, FINEST)
        check_range("--z-max", self.z_max, 0, FARTHEST)
        if self.grid == 1:
            raise UsageError("--grid 1 is no grid: give 2 points at least")
        if self.z_max and not self.grid:
            raise UsageError("--z-max is the end of a --grid: give its number of points, too")
        if self.out.suffix not in ENDINGS:
            raise UsageError(f"--out {self.out} must end in .hdf5, by which qp knows its files")


def main(config: Qp) -> None:
    if config.out.exists():
        raise UsageError(f"{config.out} exists: remove it, or choose another --out")
    tiles = open_all(config.catalogues)
    n, farthest = extent(tiles)
    if not n:
        raise InputRefused(f"no object of {tiles[0].path} has a p(z): its model gives a redshift alone")
    z_max = config.z_max or farthest
    grid = np.linspace(0, z_max, config.grid) if config.grid else None
    beyond = []
    config.out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(config.out) as temporary, h5py.File(temporary, "w") as file:
        start = 0
        for rows, pdf in track(blocks(tiles, grid), "writing", disable=not sys.stdout.isatty()):
            beyond.append(write(file, rows, pdf, grid, n, start))
            start += len(rows)
        describe(file, tiles, grid)
    report(config, tiles, n, sum(beyond), z_max)


def extent(tiles: Sequence[Finished]) -> tuple[int, float]:
    """Number of rows with p(z), and the redshift up to which they reach."""
    n, ends = 0, [0.0]
    for tile in tiles:
        for block in tile.blocks(ROWS):
            if len(rows := block[known(block)]):
                n += len(rows)
                ends.append(float(tile.edges[-1] if tile.pdf else polyline(checked(rows))[-1].max()))
    return n, max(ends)


def blocks(
    tiles: Sequence[Finished], grid: np.ndarray | None
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The rows of all that have a p(z), some at a time, and its density at a grid; None without one."""
    for tile in tiles:
        nothing = itertools.repeat(None, math.ceil(tile.n / ROWS))
        whole = tile.pdf_blocks(ROWS) if tile.pdf and grid is not None else nothing
        for block, mass in zip(tile.blocks(ROWS), whole, strict=True):  # to the end, where sums are checked
            kept = known(block)
            rows = block[kept]
            if grid is None:
                yield rows, None
            elif mass is None:
                yield rows, density_on(checked(rows), grid)
            else:
                yield rows, density_of_bins(mass[kept], tile.edges, grid)


def checked(rows: np.ndarray) -> np.ndarray:
    """Their quantiles, (m, 20). Raises InputRefused for what are none."""
    try:
        polyline(rows[PDF])
    except ValueError as error:
        raise InputRefused(f"{PDF} {error}: make the catalogue again") from error
    return rows[PDF]


def known(rows: np.ndarray) -> np.ndarray:
    """Which rows have a p(z)."""
    return np.isfinite(rows[PDF]).all(1)


def write(
    file: h5py.File,
    rows: np.ndarray,
    density: np.ndarray | None,
    grid: np.ndarray | None,
    n: int,
    start: int,
) -> int:
    """Write rows from `start` on, of `n` in all; returns the number with over 1 % of p(z) beyond the grid."""
    line = polyline(checked(rows))
    if grid is None or density is None:
        columns = {"data/locs": line.T.astype(np.float32)}
    else:
        columns = {"data/yvals": density.astype(np.float32)}
        if (gone := ~np.isfinite(columns["data/yvals"]).all(1)).any():
            raise InputRefused(
                f"p(z) of object {rows['OBJECT_ID'][gone][0]} is all beyond z = {grid[-1]:g}: "
                "give a larger --z-max"
            )
    for column in schema.columns(CATALOGUE):
        if column.name != PDF:
            values = rows[column.name]
            columns[f"ancil/{ancil_name(column.name)}"] = values.astype(values.dtype.newbyteorder("="))
    for name, values in columns.items():
        dataset = file.get(name)
        if dataset is None:
            dataset = file.create_dataset(name, (n, *values.shape[1:]), values.dtype)
        dataset[start : start + len(values)] = values
    return 0 if grid is None else int((np.quantile(line, 0.99, axis=0) > grid[-1]).sum())


def ancil_name(column: str) -> str:
    return NAMES.get(column, column)


def describe(file: h5py.File, tiles: Sequence[Finished], grid: np.ndarray | None) -> None:
    """Write what all p(z) share, as qp has it, and where they come from."""
    empty = np.linspace(0, 1, len(LEVELS) if grid is None else len(grid)) + np.zeros((2, 1))
    made: qp.Ensemble
    if grid is None:
        made = qp.Ensemble(qp.quant_gen, {"quants": LEVELS, "locs": empty})
    else:
        made = qp.Ensemble(qp.interp_gen, {"xvals": grid, "yvals": empty})
    for name, values in made.build_tables(encode=True, ext="hdf5")["meta"].items():
        file[f"meta/{name}"] = values
    for column in schema.columns(CATALOGUE):
        if column.name != PDF:
            said: dict[str, Any] = {"description": column.comment, "ucd": column.ucd}
            said |= {"unit": column.unit} if column.unit else {}
            said |= {"null": schema.NULL} if column.nullable else {}
            file[f"ancil/{ancil_name(column.name)}"].attrs.update(said)
    first, *others = (tile.provenance for tile in tiles)
    shared = {name: value for name, value in first.items() if all(o.get(name) == value for o in others)}
    file.attrs.update({name: value for name, value in shared.items() if name != "PZINPUT"})
    file.attrs.update(tiles[0].flags)
    file.attrs["catalogues"] = [f"{tile.path.name} {atomic.sha256(tile.path)}" for tile in tiles]


def report(config: Qp, tiles: Sequence[Finished], n: int, beyond: int, z_max: float) -> None:
    what = f"density at {config.grid} redshifts up to {z_max:.3g}" if config.grid else "20 quantiles"
    print(f"wrote {config.out}: p(z) of {n} objects (catalogues: {len(tiles)}), {what}")
    if without := sum(tile.n for tile in tiles) - n:
        print(f"objects that are not in it, as they have no p(z): {without}")
    if beyond:
        print(f"objects with over 1 % of p(z) beyond z = {z_max:.3g}, which was cut off (--z-max): {beyond}")
    print(f"to read it: qp.read({str(config.out)!r})")
