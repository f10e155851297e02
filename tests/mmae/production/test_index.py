"""The index of a folder: rows of every run over it, whichever came last."""

from concurrent.futures import ProcessPoolExecutor

from mmae.production import index
from mmae.production.plan import Plan, RunFiles
from mmae.production.tiles import Tile
from mmae.status import lines


def tile(folder, name, error=None):
    return Tile(folder / f"{name}.zarr", RunFiles(folder, name), error=error)


def test_two_runs_over_a_folder_keep_each_others_rows(tmp_path):
    index.write(tmp_path, [tile(tmp_path, "a", ValueError("no such\nband"))])
    RunFiles(tmp_path, "c").run.mkdir()
    index.write(tmp_path, [tile(tmp_path, "b", OSError("disk full"))])
    states = {row["TILE"]: row["STATE"] for row in index.read(tmp_path)}
    assert states == {"a": "failed", "b": "failed", "c": "unfinished"}
    assert index.failed(tmp_path) == {"a": "no such band", "b": "disk full"}
    index.write(tmp_path, [tile(tmp_path, "a")])  # in a run of its own it fails no more
    states = {row["TILE"]: row["STATE"] for row in index.read(tmp_path)}
    assert states == {"a": "unfinished", "b": "failed", "c": "unfinished"}


def test_a_record_of_another_name_is_not_of_this_tile(tmp_path):
    """Somebody has renamed a finished tile, and all that is of it."""
    old, new = RunFiles(tmp_path, "old"), RunFiles(tmp_path, "new")
    plan = Plan(0, 64, 64, *["x"] * 11)
    old.run.mkdir()
    for product in (old.catalogue, old.rejects):
        product.touch()
    old.finish(plan, {"rows": 3, "rejects": 0, "coverage": "", "warning": ""})
    assert index.row(old)["STATE"] == index.DONE
    old.run.rename(new.run)
    old.catalogue.rename(new.catalogue)
    old.rejects.rename(new.rejects)
    assert not new.is_finished(plan)
    assert index.row(new)["STATE"] == index.UNFINISHED


def test_the_status_of_a_tile_whose_log_is_empty(tmp_path):
    files = RunFiles(tmp_path, "tile")
    files.run.mkdir()
    files.log.touch()
    assert list(lines(files.run)) == ["state        unfinished", "units        0 of 0"]


def write_failures(folder, run):
    for number in range(4):
        index.write(folder, [tile(folder, f"{run}{number}", OSError("disk full"))])


def test_runs_that_write_at_once_keep_each_others_rows(tmp_path):
    with ProcessPoolExecutor(4) as pool:
        list(pool.map(write_failures, [tmp_path] * 4, "abcd"))
    assert len(index.failed(tmp_path)) == 16


def test_leftovers_of_a_tile_whose_name_begins_alike_are_left_alone(tmp_path):
    own, other = (tmp_path / f".{name}.photoz.fits.0a1b.partial" for name in ("tile", "tile.v2"))
    own.touch()
    other.touch()
    tile(tmp_path, "tile").sweep()
    assert not own.exists()
    assert other.exists()
