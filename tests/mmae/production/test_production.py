"""Several tiles in one run: the bytes of single runs, an index, and nobody suffers for another's faults."""

import hashlib
import shutil
import subprocess
import sys

import pytest
from astropy.table import Table

from catalogs.store import cutouts
from mmae import cli

SIZES = {"a": 200, "b": 64, "c": 1100}


def infer(folder, *flags):
    command = [sys.executable, "-m", "mmae.infer", *map(str, flags)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def digests(folder):
    """sha256 of every product in a folder."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.fits")}


@pytest.fixture(scope="module")
def tiles(draw_tile, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiles")
    for first, (name, n) in enumerate(SIZES.items()):
        draw_tile(folder / f"{name}.zarr", 100 * first, n)
    return folder


@pytest.fixture(scope="module")
def alone(tiles, bundle, tmp_path_factory):
    """Folder with what a run for each tile left."""
    out = tmp_path_factory.mktemp("singly")
    for name in SIZES:
        done = infer(
            out, "--catalog", tiles / f"{name}.zarr", "--model", bundle, "--out", out, "--workers", 1
        )
        assert done.returncode == cli.OK, done.stderr
    assert not (out / "index.ecsv").exists()
    return out


@pytest.fixture(scope="module")
def singly(alone):
    """Products of a run for each tile."""
    return digests(alone)


def test_a_damaged_tile_is_named_and_only_it_is_done_again(tiles, singly, bundle, tmp_path, capsys):
    shutil.copytree(tiles, tmp_path, dirs_exist_ok=True)
    metadata = tmp_path / "b.zarr/zarr.json"
    whole = metadata.read_text()
    metadata.write_text(whole.replace("mock", "Mock"))
    flags = ("--catalog", "*.zarr", "--model", bundle, "--workers", 2)
    done = infer(tmp_path, *flags)
    assert done.returncode == cli.REFUSED, done.stderr
    assert done.stderr.splitlines() == ["python -m mmae.infer: 1 of 3 tiles have no catalogue: b"]
    assert "failed: b.zarr: b.zarr/zarr.json is not what the manifest says" in done.stdout
    others = {name: digest for name, digest in singly.items() if not name.startswith("b.")}
    assert digests(tmp_path) == others
    index = Table.read(tmp_path / "index.ecsv")
    assert index["TILE", "STATE", "ROWS"].as_array().tolist() == [
        ("a", "done", 200),
        ("b", "failed", 0),
        ("c", "done", 1100),
    ]
    assert index["SHA256"][0] == singly["a.photoz.fits"]
    assert "not what the manifest says" in index["REASON"][1]
    cli.run_command("status", [str(tmp_path)])
    told = capsys.readouterr().out
    assert "tiles        3: 2 done, 0 unfinished, 1 failed" in told
    assert "b: failed: b.zarr/zarr.json is not" in told

    metadata.write_text(whole)
    before = (tmp_path / "c.photoz.fits").stat()
    done = infer(tmp_path, *flags)
    assert done.returncode == cli.OK, done.stderr
    assert "64 objects in" in done.stdout
    assert digests(tmp_path) == singly
    assert (tmp_path / "c.photoz.fits").stat() == before
    assert set(Table.read(tmp_path / "index.ecsv")["STATE"]) == {"done"}


def test_a_dry_run_tells_the_cost_and_writes_nothing(tiles, bundle, tmp_path):
    shutil.copytree(tiles, tmp_path, dirs_exist_ok=True)
    cutouts.write(tmp_path / "coarse.zarr", lambda a, b: {}, n=0, survey="test", pixel_scale=0.4)
    before = sorted(tmp_path.rglob("*"))
    done = infer(tmp_path, "--catalog", "*.zarr", "--model", bundle, "--workers", 2, "--dry-run")
    assert done.returncode == cli.OK, done.stderr
    assert "coarse: would be refused: coarse.zarr has pixel_scale 0.4" in done.stdout
    assert "objects      1364 in 7 units" in done.stdout
    assert "objects/s an actor" in done.stdout
    assert "GB an actor" in done.stdout
    assert sorted(tmp_path.rglob("*")) == before


def test_the_status_of_a_tile_that_was_stopped(tiles, alone, tmp_path, capsys):
    out = shutil.copytree(alone, tmp_path / "out", copy_function=shutil.copy)  # the log is of this moment
    cli.run_command("status", [str(out / "c.photoz")])
    assert f"catalogue    {out / 'c.photoz.fits'}, 1100 objects" in capsys.readouterr().out
    (out / "c.photoz/finished.json").unlink()
    (out / "c.photoz/parts/unit-000001.json").unlink()
    cli.run_command("status", [str(out / "c.photoz")])
    told = capsys.readouterr().out
    assert "units        3 of 4" in told
    assert "rows, 0 rejects (0." in told
    assert cli.run_command("status", [str(tiles)]) == cli.USAGE


def test_the_driver_is_killed_between_tiles(tiles, singly, bundle, tmp_path):
    command = [sys.executable, "-m", "mmae.infer", "--catalog", str(tiles / "*.zarr"), "--model", str(bundle)]
    command += ["--out", str(tmp_path), "--workers", "1"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("*/finished.json")):
            assert process.poll() is None
        process.kill()
    assert len(list(tmp_path.glob("*/finished.json"))) < len(SIZES)
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == cli.OK, done.stderr
    assert digests(tmp_path) == singly
    assert not list(tmp_path.rglob("*.partial"))
