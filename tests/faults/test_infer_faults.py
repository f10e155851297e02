"""An inference run that is killed, or whose disk is full, in its middle; the catalogue must not show it."""

import os
import shutil
import signal
import subprocess

import psutil
import pytest
from infer_runs import actors, command, descendants, digests, finish, manifests
from killing import WAIT_SECONDS, wait_for

from catalogs import atomic
from mmae import cli


def test_a_store_that_is_rewritten_after_it_was_read_gives_no_catalogue(running, tile):
    """Its chunks pass their own checksums, and the actor has checked the shard before."""
    wait_for(lambda: manifests(tile), running)
    shards = tile / "image" / "c"
    shutil.copy(shards / "15" / "0" / "0" / "0", shards / "0" / "0" / "0" / "0")
    assert running.wait(WAIT_SECONDS) == cli.REFUSED
    assert "was changed while it was read" in running.stderr.read()
    assert not tile.with_name("rubin_tile.photoz.fits").exists()


def test_driver_killed_half_way(tile, bundle, running, undisturbed):
    wait_for(lambda: manifests(tile), running)
    before = descendants(running)
    running.kill()
    running.wait()
    assert 0 < len(manifests(tile)) < 5
    assert not tile.with_name("rubin_tile.photoz.fits").exists()
    assert "units were done before" in finish(tile, bundle)
    assert digests(tile.parent) == undisturbed
    _, alive = psutil.wait_procs(before, timeout=60)
    assert not alive


def test_driver_terminated_says_how_to_go_on(tile, bundle, running, undisturbed):
    wait_for(lambda: manifests(tile), running)
    before = descendants(running)
    running.send_signal(signal.SIGTERM)
    error = running.stderr.read()
    assert running.wait() == 4
    assert "the same command goes on" in error
    _, alive = psutil.wait_procs(before, timeout=30)
    assert not alive
    finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


def test_actor_killed_in_the_middle_of_a_unit(tile, running, undisturbed):
    wait_for(lambda: manifests(tile) and actors(running), running)
    actors(running)[0].kill()
    assert running.wait(WAIT_SECONDS) == 0
    log = tile.with_name("rubin_tile.photoz") / "log"
    assert 1 <= log.read_text().count("a worker died over unit") <= 2  # it may have had a second one
    assert digests(tile.parent) == undisturbed


@pytest.mark.parametrize(
    ("size", "parts", "file"),
    [("300k", 2, "unit-000002.fits"), ("800k", 5, "rubin_tile.photoz.fits")],
    ids=["parts", "merge"],
)
def test_the_disk_is_full_half_way(survey, bundle, undisturbed, disk, size, parts, file):
    """The parts take 64, 140 and three times 152 kB, the products 460 kB."""
    out = disk(size)
    infer = command(survey / "rubin_tile.zarr", bundle, "--out", str(out), "--workers", "1")
    done = subprocess.run(infer, capture_output=True, text=True)
    assert done.returncode == cli.IO_FAILED
    (sentence,) = done.stderr.splitlines()
    assert "No space left on device" in sentence
    assert file in sentence
    assert len(list(out.glob("rubin_tile.photoz/parts/*.json"))) == parts
    assert not (out / "rubin_tile.photoz.fits").exists()
    assert not list(out.rglob(f"*{atomic.TEMPORARY}"))
    disk("2m")
    done = subprocess.run(infer, capture_output=True, text=True)
    assert done.returncode == cli.OK, done.stderr
    assert f"{parts} of 5 units were done before" in done.stdout
    assert digests(out) == undisturbed


def test_a_part_without_its_manifest_is_done_again(tile, bundle, catalogue, undisturbed):
    shutil.copytree(catalogue, tile.parent, dirs_exist_ok=True)
    run = tile.with_name("rubin_tile.photoz")
    (run / "finished.json").unlink()
    (run / "parts" / "unit-000001.json").unlink()
    cut = run / "parts" / "unit-000002.fits"
    os.truncate(cut, 2880)
    tile.with_name("rubin_tile.photoz.fits").unlink()
    assert "3 of 5 units were done before" in finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


def test_a_second_driver_is_refused(tile, bundle):
    run = tile.with_name("rubin_tile.photoz")
    run.mkdir()
    with atomic.owned(run):
        second = subprocess.run(command(tile, bundle), capture_output=True, text=True)
    assert second.returncode == 2
    assert "is being written by another process" in second.stderr
    assert not list(run.iterdir())
