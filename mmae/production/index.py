"""The index of a folder of catalogues: one row a tile, in a text table (ECSV) for people and for astropy.

It is a view of the tiles' own records (finished.json), which are read anew each time; only the reason of a
failure is kept nowhere else.
"""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from catalogs import atomic
from catalogs.errors import InputRefused
from catalogs.place import Place
from catalogs.store.checks import refusing
from mmae.production.plan import RUN_ENDING, RunFiles
from mmae.production.tiles import Tile

NAME = "index.ecsv"
DRIFTS = ("drift", "drift_by_chance", "colour_drift", "colour_drift_by_chance")
STATES = DONE, UNFINISHED, FAILED = "done", "unfinished", "failed"
COLUMNS: dict[str, tuple[type, str]] = {
    "TILE": (str, "name of the tile"),
    "PATH": (str, "its catalogue, relative to this table"),
    "STATE": (str, f"{DONE}, {UNFINISHED} (begun, or stopped) or {FAILED}"),
    "ROWS": (int, "objects with a redshift"),
    "REJECTS": (int, "objects without, in the tile's rejects file"),
    "SHA256": (str, "of the catalogue"),
    "COVERAGE": (str, "cells of the sky with rows: IVOA MOC, ASCII; HEALPix, nested, ICRS"),
    "REASON": (str, "why there is no catalogue"),
    "DRIFT": (float, "how far its objects together are from those of the training set, from 0 to 1"),
    "DRIFT_BY_CHANCE": (float, "DRIFT that objects like the training set's exceed in one tile of a hundred"),
    "COLOUR_DRIFT": (float, "how far its mean colours are from theirs, in units of their scatter"),
    "COLOUR_DRIFT_BY_CHANCE": (float, "COLOUR_DRIFT that one good tile of a hundred exceeds"),
    "WARNING": (str, "how its pixels differ from those of the training set"),
}


def path(folder: Place) -> Place:
    return folder / NAME


def runs(folder: Place) -> list[RunFiles]:
    """The tiles that were begun in a folder, by name."""
    names = (run.name.removesuffix(RUN_ENDING) for run in folder.glob(f"*{RUN_ENDING}") if run.is_dir())
    return [RunFiles(folder, name) for name in sorted(names)]


def row(files: RunFiles, reason: str = "") -> dict[str, Any]:
    """The row of a tile; only the state of one that is not finished."""
    values = {"TILE": files.tile, "PATH": files.catalogue.name, "ROWS": 0, "REJECTS": 0, "REASON": reason}
    values |= {"STATE": FAILED if reason else UNFINISHED, "SHA256": "", "COVERAGE": "", "WARNING": ""}
    values |= dict.fromkeys(map(str.upper, DRIFTS), np.nan)
    if not reason and (record := files.record()):
        values |= {"STATE": DONE, "SHA256": record["files"][files.catalogue.name]["sha256"]}
        values |= {name.upper(): record[name] for name in ("rows", "rejects", "coverage", "warning")}
        values |= {name.upper(): record[name] for name in DRIFTS if name in record}
    return values


def rows(folder: Place, tiles: Sequence[Tile]) -> Iterator[dict[str, Any]]:
    """Rows of every tile begun in the folder, and of those that failed, in this run or in another one."""
    own = {tile.name: tile.files for tile in tiles}
    earlier = {name: reason for name, reason in failed(folder).items() if name not in own}
    reasons = earlier | {tile.name: " ".join(str(tile.error).split()) for tile in tiles if tile.error}
    known = {name: RunFiles(folder, name) for name in earlier}
    known |= {files.tile: files for files in runs(folder)} | own
    return (row(known[name], reasons.get(name, "")) for name in sorted(known))


def write(folder: Place, tiles: Sequence[Tile]) -> None:
    """Write the index of all tiles in a folder, after a run over some of them."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic.owned(folder, wait=True):  # or another run would not see the failures of this one
        _write(folder, list(rows(folder, tiles)))


def _write(folder: Place, listed: Sequence[dict[str, Any]]) -> None:
    columns = {name: [values[name] for values in listed] for name in COLUMNS}
    table = Table(columns, dtype=[kind for kind, _ in COLUMNS.values()])
    for name, (_, meaning) in COLUMNS.items():
        table[name].description = meaning
    with atomic.replacing(path(folder)) as temporary:
        table.write(temporary, format="ascii.ecsv")


def failed(folder: Place) -> dict[str, str]:
    """Tiles that the index calls failed and that are not done since, and the reasons."""
    if not path(folder).exists():
        return {}
    try:
        table = read(folder)
    except InputRefused as error:
        print(f"{error}; what it said of failures is lost")
        return {}
    rows = ((str(row["TILE"]), str(row["REASON"])) for row in table if row["STATE"] == FAILED)
    return {name: reason for name, reason in rows if not RunFiles(folder, name).record()}


def read(folder: Place) -> Table:
    """The index of a folder. Raises OSError where there is none, InputRefused where it is damaged."""
    with refusing(f"{path(folder)} is damaged", remedy="`mmae infer` writes it anew"):
        with warnings.catch_warnings(action="error"):
            table = Table.read(path(folder).read_text(), format="ascii.ecsv")
        if missing := [name for name in COLUMNS if name not in table.colnames]:
            raise ValueError(f"it lacks {', '.join(missing)}")
        return table
