"""`mmae ingest` is killed, and resumed by the same command."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from catalogs import ingest
from catalogs.mock.objects import TRAINING, draw
from catalogs.mock.survey import write_galaxies
from catalogs.store import format as cutout_format
from catalogs.store.manifest import altered_files
from catalogs.surveys.galaxiesml import GalaxiesML
from mmae import cli

GALAXIES, SHARD_ROWS = 230, 64  # 4 shards

KILLED_IN_SHARD_2 = f"""
import os, signal, sys
from catalogs.surveys.galaxiesml import GalaxiesML
from mmae import cli

read = GalaxiesML.rows

def rows(self, start, stop):
    if start == 2 * {SHARD_ROWS}:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, start, stop)

GalaxiesML.rows = rows
cli.run_command("ingest", sys.argv[1:])
"""


def run(source, store):
    return cli.run_command("ingest", [str(source), str(store), f"--shard-rows={SHARD_ROWS}"])


def names(folder):
    return {entry.name for entry in folder.iterdir()}


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "galaxies.hdf5"
    write_galaxies(path, GALAXIES, [draw(5, TRAINING, range(GALAXIES))])
    return path


@pytest.fixture
def galaxies(drawn, tmp_path):
    """A copy to be edited."""
    return Path(shutil.copy(drawn, tmp_path))


@pytest.fixture
def killed(galaxies, tmp_path):
    store = tmp_path / "out" / "a.zarr"
    command = [sys.executable, "-c", KILLED_IN_SHARD_2, galaxies, store, f"--shard-rows={SHARD_ROWS}"]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert names(store.parent) == {"a.zarr.partial"}
    return store


def uninterrupted_manifest(galaxies, tmp_path):
    store = tmp_path / "uninterrupted.zarr"
    ingest.main(ingest.Ingest(galaxies, store, SHARD_ROWS))
    return cutout_format.manifest_path(store).read_bytes()


def test_a_killed_ingest_is_resumed(galaxies, killed, tmp_path, capsys):
    assert run(galaxies, killed) == cli.OK
    assert "resuming: 2 of 4 shards are done" in capsys.readouterr().out
    assert cutout_format.manifest_path(killed).read_bytes() == uninterrupted_manifest(galaxies, tmp_path)
    assert not altered_files(killed)
    assert names(killed.parent) == {"a.zarr", "a.zarr.manifest.json"}


def edit_pixels(path):
    with h5py.File(path, "a") as file:
        file["image"][3, 2] += 1


def edit_ids(path):
    """Exchange two ids, keeping size and modification time."""
    status = path.stat()
    with h5py.File(path, "a") as file:
        file["targetid"][0], file["targetid"][1] = file["targetid"][1], file["targetid"][0]
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size


@pytest.mark.parametrize("change", [edit_pixels, edit_ids, os.utime])
def test_an_input_that_changed_is_not_mixed_in(galaxies, killed, tmp_path, capsys, change):
    change(galaxies)
    assert run(galaxies, killed) == cli.OK
    assert "is of another input" in capsys.readouterr().out
    assert cutout_format.manifest_path(killed).read_bytes() == uninterrupted_manifest(galaxies, tmp_path)


def test_an_input_that_changes_during_ingest_is_refused(galaxies, tmp_path, capsys, monkeypatch):
    read = GalaxiesML._image

    def read_and_touch(self, start, stop):
        if start == 2 * SHARD_ROWS:
            os.utime(galaxies)
        return read(self, start, stop)

    monkeypatch.setattr(GalaxiesML, "_image", read_and_touch)
    assert run(galaxies, tmp_path / "a.zarr") == cli.REFUSED
    assert "was changed while it was being read" in capsys.readouterr().err
    assert names(tmp_path) == {"galaxies.hdf5"}
