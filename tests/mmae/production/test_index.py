"""The index of a folder: rows of every run over it, whichever came last."""

from concurrent.futures import ProcessPoolExecutor

from mmae.production import index
from mmae.production.plan import RunFiles
from mmae.production.tiles import Tile


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
