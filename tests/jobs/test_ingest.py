"""Ingest with MPI writes the bytes that one process writes, and no rank outlives a failure."""

import os
import signal
import subprocess
import sys
import time

import h5py
import pytest

from catalogs import cutout_format, cutouts, ingest, mock
from mmae import cli

GALAXIES, SHARD_ROWS = 230, 64  # 4 shards, the last one short; of two ranks the second owns shards 1 and 3


@pytest.fixture(scope="module")
def galaxies(tmp_path_factory):
    path = tmp_path_factory.mktemp("ingest") / "galaxies.hdf5"
    mock.write_galaxies(path, GALAXIES, seed=5)
    return path


@pytest.fixture(scope="module")
def serial(galaxies):
    """Manifest that one process without MPI leaves: it holds the sha256 of every file."""
    store = galaxies.with_name("serial.zarr")
    ingest.main(ingest.Ingest(galaxies, store, SHARD_ROWS))
    return cutout_format.manifest_path(store).read_bytes()


@pytest.fixture(scope="session")
def mpirun(program):
    def run(ranks, *arguments, start=("-m", "jobs.ingest")):
        """Run to the end, or for a minute; each rank runs what `start` names."""
        command = [program("mpirun"), "-n", ranks, sys.executable, "-m", "mpi4py", *start, *arguments]
        return subprocess.run(
            [*map(str, command), f"--shard-rows={SHARD_ROWS}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )

    return run


def sentences(done):
    """What our ranks said; MPI adds a line of its own about the abort."""
    return [line for line in done.stderr.splitlines() if line.startswith("python -m jobs.ingest:")]


@pytest.mark.parametrize("ranks", [2, 3])
def test_ranks_write_the_bytes_of_one_process(mpirun, galaxies, serial, tmp_path, ranks):
    store = tmp_path / "a.zarr"
    done = mpirun(ranks, galaxies, store)
    assert done.returncode == cli.OK, done.stderr
    assert cutout_format.manifest_path(store).read_bytes() == serial
    assert cutouts.verify(store) == []
    assert {entry.name for entry in tmp_path.iterdir()} == {"a.zarr", "a.zarr.manifest.json"}
    assert done.stdout.count("230 objects, a training store") == 1


DIES_IN_ITS_SECOND_SHARD = f"""
import os, runpy, signal
from mpi4py import MPI
from catalogs.galaxiesml import GalaxiesML

read = GalaxiesML.rows

def rows(self, start, stop):
    if MPI.COMM_WORLD.Get_rank() == 1 and start > {SHARD_ROWS}:
        os.kill(os.getpid(), signal.SIGKILL)
    return read(self, start, stop)

GalaxiesML.rows = rows
runpy.run_module("jobs.ingest", run_name="__main__")
"""


def test_a_killed_rank_ends_all_and_the_next_run_completes(mpirun, galaxies, serial, tmp_path):
    store, program = tmp_path / "a.zarr", tmp_path / "dies.py"
    program.write_text(DIES_IN_ITS_SECOND_SHARD)
    started = time.monotonic()
    done = mpirun(2, galaxies, store, start=(program,))
    assert done.returncode != cli.OK
    assert f"EXIT CODE: {signal.SIGKILL.value}" in done.stdout + done.stderr  # it was the kill that ended it
    assert time.monotonic() - started < 20
    assert not store.exists()
    assert not cutout_format.manifest_path(store).exists()

    again = mpirun(2, galaxies, store)
    assert again.returncode == cli.OK, again.stderr
    assert cutout_format.manifest_path(store).read_bytes() == serial
    assert not list(tmp_path.glob("*.partial"))


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
