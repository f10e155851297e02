"""Cutting with MPI writes the bytes of one process, and goes on after a kill."""

import shutil
import signal
import subprocess
import sys

import h5py
import numpy as np
import pytest
from survey_files import noise, positions, sky, write_image, write_table

from catalogs.store import format as cutout_format
from catalogs.store.cutouts import open_store
from catalogs.store.manifest import altered_files
from mmae import cli

OBJECTS, SHARD_ROWS = 230, 64  # 4 shards, the last one short
JOB = ("-m", "jobs.cutouts")
WAYS = ("coadds", "files", "set")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def field(tmp_path_factory):
    """Two overlapping patches in two bands, objects on and beside them, and cutouts of some of these."""
    folder = tmp_path_factory.mktemp("field")
    heads = {"a": sky((100, 120), reference=(60.5, 50.5)), "b": sky((100, 120), reference=(-20.5, 50.5))}
    for k, (patch, header) in enumerate(heads.items()):
        for band in "gr":
            image = noise((100, 120), 2 * k + (band == "r"))
            write_image(folder / f"{band}-{patch}.fits", image, header, MAGZERO=27.0)
    x, y = np.random.default_rng(0).uniform([[-5], [0]], [[200], [100]], (2, OBJECTS))
    ids, (ra, dec) = np.arange(OBJECTS), positions(heads["a"], x, y)
    write_table(folder / "objects.csv", ids, ra, dec, redshift=x / 100)
    (folder / "stamps").mkdir()
    for k in range(0, OBJECTS, 2):  # each other one has none
        header = sky((16, 16), (ra[k], dec[k]))
        write_image(folder / f"stamps/{k}.fits", noise((16, 16), k), header, MAGZERO=27.0 + (k == 40))
    for part, rows in enumerate((slice(0, 100), slice(100, OBJECTS))):
        (folder / "set").mkdir(exist_ok=True)
        with h5py.File(folder / "set" / f"{part}.hdf5", "w") as file:
            file["object_id"], file["ra"], file["dec"] = ids[rows], ra[rows], dec[rows]
            file["image_array"] = noise((OBJECTS, 2, 16, 16))[rows]
            file["image_band"] = np.array([["des-g", "des-r"]] * OBJECTS, "S5")[rows]
            file["image_scale"] = np.where(ids == 150, 0.3, 0.262)[rows, None].repeat(2, 1)
    return folder


def arguments(folder, store, way):
    ways = {
        "coadds": ["objects.csv", "--coadds", folder / "{band}-*.fits", "--bands", "g", "r"],
        "files": ["objects.csv", "--files", folder / "stamps/{object_id}.fits", "--bands", "g"],
        "set": ["set", "--zero-point=22.5"],
    }
    objects, *flags = ways[way]
    return [folder / objects, store, *flags, "--size=16"]


def run(folder, store, way):
    command = [*arguments(folder, store, way), f"--shard-rows={SHARD_ROWS}"]
    return cli.run_command("cutouts", list(map(str, command)))


@pytest.fixture(scope="module")
def serial(field, tmp_path_factory):
    """Manifest (it has the sha256 of every file) and rejects that one process leaves, by way in."""
    left = {}
    for way in WAYS:
        store = tmp_path_factory.mktemp(way) / "a.zarr"
        assert run(field, store, way) == cli.OK
        left[way] = outcome(store)
    return left


def outcome(store):
    assert not altered_files(store)
    rejects = store.with_name("a.zarr.rejects.ecsv")
    assert {path.name for path in store.parent.iterdir()} == {
        *("a.zarr", "a.zarr.manifest.json", "a.zarr.rejects.ecsv"),
    }
    return cutout_format.manifest_path(store).read_bytes(), rejects.read_bytes()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("ranks", [1, 4])  # two go on after a kill, below
def test_ranks_write_the_bytes_of_one_process(mpirun, field, serial, tmp_path, ranks, way):
    store = tmp_path / "a.zarr"
    done = mpirun(ranks, *arguments(field, store, way), start=JOB)
    assert done.returncode == cli.OK, done.stderr
    assert outcome(store) == serial[way]
    assert done.stdout.count(f"wrote {store}: ") == 1


DIES_IN_SHARD_2 = f"""
import os, signal, sys
from catalogs.cutting.coadds import CoaddStamps
from catalogs.cutting.files import FileStamps
from catalogs.cutting.sets import SetStamps
from mmae import cli

def dying(cut):
    def patched(self, start, stop):
        if start == {SHARD_ROWS}:
            os.kill(os.getpid(), signal.SIGKILL)
        return cut(self, start, stop)
    return patched

for source in (CoaddStamps, FileStamps, SetStamps):
    source.cut = dying(source.cut)
cli.run_command("cutouts", sys.argv[1:])
"""


@pytest.fixture(scope="module", params=WAYS)
def left_by_a_kill(request, field, tmp_path_factory):
    """Folder with a store of which a shard was done when its writer was killed, and its way in."""
    folder, way = tmp_path_factory.mktemp("killed"), request.param
    store = folder / "a.zarr"
    command = [*arguments(field, store, way), f"--shard-rows={SHARD_ROWS}"]
    done = subprocess.run([sys.executable, "-c", DIES_IN_SHARD_2, *map(str, command)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not store.exists()
    assert len(list(folder.glob("a.zarr.partial/shard-*.json"))) == 1
    return folder, way


@pytest.fixture
def killed(left_by_a_kill, tmp_path):
    """That store in a folder of the test's own, and its way in."""
    folder, way = left_by_a_kill
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return tmp_path / "a.zarr", way


def test_the_same_command_goes_on_after_a_kill(field, serial, killed, capsys):
    store, way = killed
    shard = store.with_name("a.zarr.partial") / "store/image/c/0/0/0/0"
    before = shard.stat().st_mtime_ns
    assert run(field, store, way) == cli.OK
    assert "resuming: 1 of " in capsys.readouterr().out
    assert (store / "image/c/0/0/0/0").stat().st_mtime_ns == before
    assert outcome(store) == serial[way]
    assert run(field, store, way) == cli.USAGE
    assert "exists already" in capsys.readouterr().err


def test_ranks_go_on_where_one_process_was_killed(mpirun, field, serial, killed):
    store, way = killed
    done = mpirun(2, *arguments(field, store, way), start=JOB)
    assert done.returncode == cli.OK, done.stderr
    assert "resuming: 1 of " in done.stdout
    assert outcome(store) == serial[way]


def test_what_one_rank_refuses_ends_all_with_one_sentence(mpirun, field, tmp_path):
    for path in [*field.glob("?-?.fits"), field / "objects.csv"]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = tmp_path / "r-b.fits"  # of the patch that the second of two ranks looks at
    damaged.write_bytes(damaged.read_bytes()[:-2880])
    store = tmp_path / "out" / "a.zarr"
    done = mpirun(2, *arguments(tmp_path, store, "coadds"), start=JOB)
    assert done.returncode == cli.REFUSED
    (sentence,) = [line for line in done.stderr.splitlines() if line.startswith("python -m jobs.cutouts:")]
    assert "r-b.fits is damaged" in sentence
    assert not store.parent.exists()


def test_another_input_is_not_mixed_in(field, killed, capsys):
    store, way = killed
    command = [*arguments(field, store, way), f"--shard-rows={SHARD_ROWS}", "--size=14"]
    assert cli.run_command("cutouts", [str(word) for word in command if word != "--size=16"]) == cli.OK
    assert "starting over" in capsys.readouterr().out
    assert open_store(store).size == 14
