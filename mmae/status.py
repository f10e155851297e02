"""How a run stands, while it runs or after: `mmae status PATH`.

PATH is the run directory of a training, that of a tile (TILE.photoz), or a folder of tiles.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.status", "Status")

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from catalogs.errors import UsageError
from catalogs.place import Place
from catalogs.place_flag import PlaceFlag
from mmae import cli
from mmae.models import checkpoint
from mmae.production import index
from mmae.production.plan import RUN_ENDING, RunFiles, number_of_units
from mmae.training.runlog import read_reports, summary

LISTED = 20
"""Tiles of a folder that get a line of their own: the failed and the unfinished."""


@dataclass(frozen=True)
class Status:
    """Show how a training, a tile or a folder of tiles stands."""

    path: Positional[PlaceFlag]
    """What --out of a training named; TILE.photoz; the folder of the catalogues, or the index in it."""


def main(config: Status) -> None:
    """Raises UsageError where there is no run."""
    print("\n".join(lines(config.path)))


def lines(path: Place) -> Iterator[str]:
    path = path.parent if path.name == index.NAME else path
    if path.name.endswith(RUN_ENDING) and path.is_dir():
        yield from tile_lines(RunFiles(path.parent.resolve(), path.name.removesuffix(RUN_ENDING)))
    elif isinstance(path, Path) and (path / "config.json").is_file():
        yield from training_lines(path)
    elif index.runs(path) or index.path(path).is_file():
        yield from folder_lines(path)
    else:
        raise UsageError(
            f"{path} is not a run directory: name what --out of a training named, a TILE{RUN_ENDING}, "
            "or a folder of catalogues"
        )


# ---------------------------------------------------------------- inference


def tile_lines(files: RunFiles) -> Iterator[str]:
    """Progress of a tile, and the last line of its log."""
    if record := files.record():
        yield f"state        {index.DONE}"
        yield f"catalogue    {files.catalogue}, {record['rows']} objects"
        reasons = ", ".join(f"{reason} {count}" for reason, count in record["reasons"].items())
        yield f"rejects      {files.rejects}, {record['rejects']} objects{f' ({reasons})' if reasons else ''}"
    else:
        done, units = units_done(files)
        yield f"state        {index.UNFINISHED}"
        yield f"units        {done} of {units}"
    if files.log.is_file() and (notes := files.log.read_text().splitlines()):
        minutes = (time.time() - files.log.stat().st_mtime) / 60
        yield f"log          {notes[-1]} ({minutes:.1f} minutes ago)"


def units_done(files: RunFiles) -> tuple[int, int]:
    """How many units of an unfinished tile have a manifest, and how many units it has."""
    plan = files.begun()
    units = number_of_units(plan["rows"], plan["unit_rows"], plan["batch"]) if plan else 0
    return sum(1 for _ in files.parts.glob("unit-*.json")), units


def folder_lines(folder: Place) -> Iterator[str]:
    """How many tiles are done, and which are not."""
    reasons: dict[str, str] = {}
    if index.path(folder).is_file():
        reasons = {row["TILE"]: row["REASON"] for row in index.read(folder) if row["STATE"] == index.FAILED}
    known = {files.tile: files for files in index.runs(folder)} | {
        tile: RunFiles(folder, tile) for tile in reasons
    }
    states: Counter[str] = Counter()
    rows = rejects = 0
    left = []
    for name in sorted(known):
        row = index.row(known[name])
        if row["STATE"] != index.DONE and name in reasons:
            row["STATE"] = index.FAILED
        states[row["STATE"]] += 1
        rows, rejects = rows + row["ROWS"], rejects + row["REJECTS"]
        if row["STATE"] == index.FAILED:
            left.append(f"{name}: {index.FAILED}: {reasons[name]}")
        elif row["STATE"] == index.UNFINISHED:
            left.append(f"{name}: {'{} of {} units'.format(*units_done(known[name]))}")
    yield f"tiles        {len(known)}: " + ", ".join(f"{states[state]} {state}" for state in index.STATES)
    yield f"objects      {rows} in catalogues, {rejects} in rejects"
    yield from left[:LISTED]
    if len(left) > LISTED:
        yield f"... and {len(left) - LISTED} more"


# ---------------------------------------------------------------- training


def training_lines(run: Path) -> Iterator[str]:
    yield from metric_lines(run)
    yield from checkpoint_lines(run)


def metric_lines(run: Path) -> list[str]:
    """The last report of training and of validation, and the best validation."""
    reports = read_reports(run)
    validations = [report for report in reports if report["kind"] == "validation"]
    shown = []
    if training := [report for report in reports if report["kind"] == "train"]:
        losses = {name: value for name, value in training[-1].items() if name not in ("kind", "step")}
        numbers = "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
        shown.append(f"training     step {training[-1]['step']}  {numbers}")
    if validations:
        best = min(validations, key=lambda report: report["loss"])
        shown.append(f"validation   step {validations[-1]['step']}  {summary(validations[-1])}")
        shown.append(f"best         step {best['step']}  {summary(best)}")
    return shown or ["metrics      none yet"]


def checkpoint_lines(run: Path) -> list[str]:
    newest = checkpoint.newest(run)
    if newest is None:
        return ["checkpoint   none yet"]
    saved = checkpoint.load(newest)
    minutes = (time.time() - newest.stat().st_mtime) / 60
    return [f"checkpoint   {newest.name}, epoch {saved['epoch']}, {minutes:.1f} minutes old"]
