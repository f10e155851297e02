"""Ingest with MPI writes the bytes that one process writes, and no rank outlives a failure."""

import shutil
import signal
import time

import h5py
import pytest

from catalogs import ingest
from catalogs.store import format as cutout_format
from catalogs.store.manifest import altered_files
from mmae import cli

GALAXIES, SHARD_ROWS = 230, 64  # 4 shards, the last one short; of two ranks the second owns shards 1 and 3


@pytest.fixture(scope="module")
def galaxies(survey, tmp_path_factory):
    path = tmp_path_factory.mktemp("ingest") / "galaxies.hdf5"
    write_rows(survey / "galaxies.hdf5", path, slice(GALAXIES))
    return path


def write_rows(source, path, rows):
    """Write some of the galaxies of a file to another."""
    with h5py.File(source) as whole, h5py.File(path, "w") as part:
        part.attrs.update(whole.attrs)

        def write(name, node):
            if isinstance(node, h5py.Dataset):
                part[name] = node[rows]

        whole.visititems(write)


@pytest.fixture(scope="module")
def serial(galaxies):
    """Manifest that one process without MPI leaves: it holds the sha256 of every file."""
    store = galaxies.with_name("serial.zarr")
    ingest.main(ingest.Ingest(galaxies, store, SHARD_ROWS))
    return cutout_format.manifest_path(store).read_bytes()


def sentences(done):
    """What our ranks said; MPI adds a line of its own about the abort."""
    return [line for line in done.stderr.splitlines() if line.startswith("python -m jobs.ingest:")]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_write_the_bytes_of_one_process(mpirun, galaxies, serial, tmp_path, ranks):
    store = tmp_path / "a.zarr"
    done = mpirun(ranks, galaxies, store)
    assert done.returncode == cli.OK, done.stderr
    assert cutout_format.manifest_path(store).read_bytes() == serial
    assert not altered_files(store)
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.zarr", "a.zarr.manifest.json"}
    assert done.stdout.count("230 objects, a training store") == 1


PATCHED = """
import os, runpy, signal, sys, time
from pathlib import Path
from mpi4py import MPI
from catalogs.surveys.galaxiesml import GalaxiesML

read = GalaxiesML.rows

def rows(self, start, stop):
    if MPI.COMM_WORLD.Get_rank() == 1 and start == {start}:
        {fault}
    return read(self, start, stop)

GalaxiesML.rows = rows
runpy.run_module("jobs.ingest", run_name="__main__")
"""
DIES = """
        while len(list(Path(sys.argv[2] + ".partial").glob("shard-*.json"))) < 3:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def left_by_a_kill(mpirun, galaxies, tmp_path_factory):
    """Folder with a store of which the second of two ranks died in shard 3, when shards 0 to 2 were done."""
    folder = tmp_path_factory.mktemp("killed")
    store, program = folder / "a.zarr", folder / "dies.py"
    program.write_text(PATCHED.format(start=3 * SHARD_ROWS, fault=DIES.strip()))
    started = time.monotonic()
    done = mpirun(2, galaxies, store, start=(program,))
    program.unlink()
    assert done.returncode != cli.OK
    assert f"EXIT CODE: {signal.SIGKILL.value}" in done.stdout + done.stderr  # it was the kill that ended it
    assert time.monotonic() - started < 20
    assert [entry.name for entry in folder.iterdir()] == ["a.zarr.partial"]
    return folder


@pytest.fixture
def killed(left_by_a_kill, tmp_path):
    """That store in a folder of the test's own."""
    shutil.copytree(left_by_a_kill, tmp_path, dirs_exist_ok=True)
    return tmp_path / "a.zarr"


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_any_number_of_ranks_completes_what_a_dead_one_left(mpirun, galaxies, serial, killed, ranks):
    shard = killed.with_name("a.zarr.partial") / "store/image/c/1/0/0/0"
    before = shard.stat()
    again = mpirun(ranks, galaxies, killed)
    assert again.returncode == cli.OK, again.stderr
    assert again.stdout.count("resuming: 3 of 4 shards are done") == 1
    assert (killed / "image/c/1/0/0/0").stat().st_mtime_ns == before.st_mtime_ns
    assert cutout_format.manifest_path(killed).read_bytes() == serial
    assert not altered_files(killed)
    assert {entry.name for entry in killed.parent.iterdir()} == {"a.zarr", "a.zarr.manifest.json"}


def test_a_shard_that_was_damaged_meanwhile_is_written_again(mpirun, galaxies, serial, killed):
    with (killed.with_name("a.zarr.partial") / "store/flux/c/1/0").open("r+b") as file:
        file.write(b"rot")
    again = mpirun(2, galaxies, killed)
    assert "resuming: 2 of 4 shards are done" in again.stdout
    assert cutout_format.manifest_path(killed).read_bytes() == serial


def test_another_input_is_not_mixed_in(mpirun, survey, killed, tmp_path):
    other = tmp_path / "other.hdf5"
    write_rows(survey / "galaxies.hdf5", other, slice(256 - GALAXIES, None))
    ingest.main(ingest.Ingest(other, tmp_path / "serial.zarr", SHARD_ROWS))
    again = mpirun(2, other, killed)
    assert again.stdout.count("starting over") == 1
    manifests = [cutout_format.manifest_path(tmp_path / name) for name in ("a.zarr", "serial.zarr")]
    assert manifests[0].read_bytes() == manifests[1].read_bytes()


def test_what_a_rank_says_on_the_way_is_heard(mpirun, galaxies, tmp_path):
    program = tmp_path / "warns.py"
    program.write_text(PATCHED.format(start=SHARD_ROWS, fault='print("careful", file=sys.stderr)'))
    done = mpirun(2, galaxies, tmp_path / "a.zarr", start=(program,))
    assert done.returncode == cli.OK
    assert done.stderr.count("careful") == 1


def test_an_input_that_all_ranks_refuse_is_refused_once(mpirun, tmp_path):
    source = tmp_path / "notes.txt"
    source.write_text("hello")
    done = mpirun(2, source, tmp_path / "a.zarr")
    assert done.returncode == cli.REFUSED
    (sentence,) = sentences(done)
    assert "does not open as HDF5" in sentence
    assert list(tmp_path.iterdir()) == [source]


def test_a_name_that_is_taken_is_a_usage_error_for_all(mpirun, galaxies, tmp_path):
    (tmp_path / "a.zarr").mkdir()
    done = mpirun(2, galaxies, tmp_path / "a.zarr")
    assert done.returncode == cli.USAGE
    (sentence,) = sentences(done)
    assert "exists already" in sentence


def test_a_fault_that_one_rank_meets_ends_all_and_says_why(mpirun, galaxies, tmp_path):
    source = tmp_path / "bad.hdf5"
    source.write_bytes(galaxies.read_bytes())
    with h5py.File(source, "a") as file:
        file["spectrum/wave"][100] += 1  # of shard 1, which rank 1 reads
    done = mpirun(2, source, tmp_path / "a.zarr")
    assert done.returncode == cli.REFUSED
    (sentence,) = sentences(done)
    assert "spectrum 100 has another wavelength grid" in sentence
    assert not (tmp_path / "a.zarr").exists()
