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

ROWS = [600, 601]
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


@pytest.fixture(scope="module")
def store(survey):
    return survey / "rubin_tile.zarr"


@pytest.fixture
def run(store, bundle, tmp_path):
    """`run(command, folder, rows)`: what a command wrote, with actors that die over these rows."""
    (tmp_path / "sitecustomize.py").write_text(DEADLY)
    marks = open_store(store).images(0, 2048)[0][:, 0, 0, 0]
    assert np.isin(marks, marks[ROWS]).sum() == len(ROWS)

    def run(command, folder, rows):
        environment = {"PYTHONPATH": str(tmp_path), "MARKS": " ".join(map(repr, marks[rows].tolist()))}
        flags = ("--catalog", store, "--model", bundle, "--out", tmp_path / folder, "--workers", 2)
        done = subprocess.run(
            [sys.executable, "-m", f"mmae.{command}", *map(str, flags)],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == cli.OK, done.stderr
        return tmp_path / folder, done.stdout

    return run


@pytest.mark.slow
def test_objects_that_kill_actors_are_rejected_and_the_tile_is_finished(run, store):
    undisturbed, _ = run("infer", "undisturbed", [])
    folder, shown = run("infer", "deadly", ROWS)
    assert "wrote" in shown
    assert "CRASHES 2" in shown
    log = (folder / "rubin_tile.photoz/log").read_text()
    assert "rows of unit 1 that kill workers: 600, 601\n" in log
    ids = open_store(store).column("object_id")[ROWS]
    rejects = Table.read(folder / "rubin_tile.rejects.fits", hdu=1)
    assert rejects["OBJECT_ID"].tolist() == ids.tolist()
    assert rejects["REASON"].tolist() == ["CRASHES"] * 2
    whole, kept = (
        Table.read(path / "rubin_tile.photoz.fits", hdu=1).as_array() for path in (undisturbed, folder)
    )
    assert kept.tobytes() == whole[~np.isin(whole["OBJECT_ID"], ids)].tobytes()


@pytest.mark.slow
def test_their_embeddings_are_nan_and_the_others_are_not(run):
    undisturbed, _ = run("embed", "undisturbed", [])
    folder, shown = run("embed", "deadly", ROWS[:1])
    assert "1 are NaN" in shown
    found, expected = (
        zarr.open_group(path / "rubin_tile.embeddings.zarr", mode="r")["embedding"][:]
        for path in (folder, undisturbed)
    )
    expected[ROWS[0]] = np.nan
    np.testing.assert_array_equal(found, expected)
