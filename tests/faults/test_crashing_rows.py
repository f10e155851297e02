"""Objects that kill whoever reads them, by a segmentation fault: they are rejected, the others are done."""

import os
import subprocess
import sys

import numpy as np
import pytest
import zarr
from astropy.table import Table

from catalogs.store.cutouts import open_store
from mmae import cli

N, ROWS = 544, [516, 517]
"""Rows of the tile, and those that kill. They are of its third unit, which is short: each halving of it, in
search of them, takes workers, and each of these the seconds of an import of torch."""
DEADLY = """
import os, sys
if any("default_worker.py" in word for word in sys.orig_argv):
    import ctypes
    import numpy as np
    from catalogs.products import model_input

    marks, screen = np.array(os.environ["MARKS"].split(), np.float32), model_input.screen_images

    def deadly(image, *others):
        if np.isin(image[:, 0, 0, 0], marks).any():
            ctypes.string_at(0)
        return screen(image, *others)

    model_input.screen_images = deadly
"""
"""A `sitecustomize` that makes the actors of a run, and no other process, die over images so marked."""


@pytest.fixture
def run(draw_tile, bundle, tmp_path):
    """`run(command, rows)`: what a command wrote of a tile, with actors that die over these rows."""
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    tile = draw_tile(tmp_path / "rubin_tile.zarr", 0, N)
    marks = open_store(tile).images(0, N)[0][:, 0, 0, 0]
    assert np.isin(marks, marks[ROWS]).sum() == len(ROWS)

    def run(command, rows):
        environment = {"PYTHONPATH": str(tmp_path), "MARKS": " ".join(map(repr, marks[rows].tolist()))}
        flags = ("--catalog", tile, "--model", bundle, "--workers", 2)
        done = subprocess.run(
            [sys.executable, "-m", f"mmae.{command}", *map(str, flags)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == cli.OK, done.stderr
        return done.stdout

    return run


@pytest.mark.slow
def test_objects_that_kill_actors_are_rejected_and_the_tile_is_finished(run, catalogue, tmp_path):
    """The others are those of the whole tile, which no row kills."""
    shown = run("infer", ROWS)
    assert "wrote" in shown
    assert "CRASHES 2" in shown
    log = (tmp_path / "rubin_tile.photoz/log").read_text()
    assert f"rows of unit 2 that kill workers: {ROWS[0]}, {ROWS[1]}\n" in log
    ids = open_store(tmp_path / "rubin_tile.zarr").column("object_id")
    rejects = Table.read(tmp_path / "rubin_tile.rejects.fits", hdu=1)
    assert rejects["OBJECT_ID"].tolist() == ids[ROWS].tolist()
    assert rejects["REASON"].tolist() == ["CRASHES"] * 2
    whole, kept = (
        Table.read(path / "rubin_tile.photoz.fits", hdu=1).as_array() for path in (catalogue, tmp_path)
    )
    assert kept.tobytes() == whole[:N][~np.isin(ids, ids[ROWS])].tobytes()


@pytest.mark.slow
def test_their_embeddings_are_nan_and_the_others_are_not(run, embeddings, tmp_path):
    assert "1 are NaN" in run("embed", ROWS[:1])
    found, whole = (
        zarr.open_group(path / "rubin_tile.embeddings.zarr", mode="r")["embedding"][:]
        for path in (tmp_path, embeddings)
    )
    expected = whole[:N]
    expected[ROWS[0]] = np.nan
    np.testing.assert_array_equal(found, expected)
