"""What a run has read, written or lives on is changed while it is at work, or between two starts."""

import json
import os
import subprocess
import time

from infer_runs import command, digests, finish, manifests
from killing import WAIT_SECONDS, wait_for

from catalogs import atomic
from mmae import cli

DAY = 86400


def test_a_part_that_this_run_has_written_loses_a_bit(running, tile, bundle, undisturbed):
    wait_for(lambda: manifests(tile), running)
    part = manifests(tile)[0].with_suffix(".fits")
    content = bytearray(part.read_bytes())
    content[-5000] ^= 1
    part.write_bytes(content)
    (sentence,) = running.stderr.read().splitlines()
    assert running.wait(WAIT_SECONDS) == cli.IO_FAILED
    assert sentence.endswith(f"{part} is damaged since it was written: the same command makes it again")
    assert not tile.with_name("rubin_tile.photoz.fits").exists()
    assert "4 of 5 units were done before" in finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


def test_the_card_is_edited_between_two_starts(running, tile, bundle, undisturbed, tmp_path):
    """Edited as a user would, or by somebody who knows how it is sealed: half a catalogue is on its grid."""
    card = bundle / "card.json"
    wait_for(lambda: manifests(tile), running)
    running.kill()
    running.wait()
    copy = tmp_path / "bundle"
    subprocess.run(["cp", "-r", bundle, copy], check=True)
    edited = json.loads(card.read_text())
    edited["grid"]["z_max"] += 0.1
    for content, words in (
        (edited, "is not a model card as it was written"),
        (atomic.sealed(edited), "was begun with another model_sha256"),
    ):
        atomic.write_json(copy / card.name, content)
        done = subprocess.run(command(tile, copy), capture_output=True, text=True)
        assert done.returncode == cli.REFUSED
        assert words in done.stderr
    finish(tile, bundle)
    assert digests(tile.parent) == undisturbed


def test_the_disk_becomes_read_only(survey, bundle, undisturbed, disk):
    out = disk("4m")
    infer = command(survey / "rubin_tile.zarr", bundle, "--out", str(out), "--workers", "1")
    parts = out / "rubin_tile.photoz/parts"
    with subprocess.Popen(infer, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(parts.glob("*.json")), process)
        remount = ["mount", "-o", "remount,ro", out]
        while subprocess.run(remount, capture_output=True).returncode:  # a part is being written
            assert process.poll() is None
        (sentence,) = process.stderr.read().splitlines()
        assert process.wait(WAIT_SECONDS) == cli.IO_FAILED
    assert "Read-only file system" in sentence
    assert str(out) in sentence
    subprocess.run(["mount", "-o", "remount,rw", out], check=True)
    done = subprocess.run(infer, capture_output=True, text=True)
    assert done.returncode == cli.OK, done.stderr
    assert digests(out) == undisturbed
    assert not list(out.rglob(f"*{atomic.TEMPORARY}"))


def test_the_clock_jumps_by_a_day(library, tile, bundle, undisturbed, tmp_path):
    """Back, for the driver, its workers and Ray."""
    jumped = tmp_path / "jumped"
    environment = {"LD_PRELOAD": str(library), "FAIL_LOG": str(jumped), "CLOCK_JUMP": str(-DAY)}
    infer = command(tile, bundle, "--workers", "2")
    with subprocess.Popen(infer, env=os.environ | environment, stdout=subprocess.DEVNULL) as process:
        wait_for(lambda: manifests(tile), process)
        jumped.touch()
        assert process.wait(WAIT_SECONDS) == cli.OK
    log = tile.with_name("rubin_tile.photoz") / "log"
    assert not log.read_text().splitlines()[-1].startswith(time.strftime("%Y-%m-%d"))
    assert digests(tile.parent) == undisturbed


SMALL = """
import os, signal, sys, threading
if any("default_worker.py" in word for word in sys.orig_argv):
    from mmae.production import actor

    process, inside = actor.Actor.process, []

    def counted(self, *arguments):
        inside.append(0)
        if len(inside) > 1:
            open(os.environ["KILLED"], "a").write("x")
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return process(self, *arguments)
        finally:
            inside.pop()

    actor.Actor.process = counted
"""
"""A `sitecustomize` by which two units at a time are too much for the memory of an actor."""


def test_an_actor_runs_out_of_memory(tile, bundle, undisturbed, tmp_path):
    """The kernel kills it; its units are done again one at a time, in batches as large as before."""
    (tmp_path / "sitecustomize.py").write_text(SMALL)
    killed = tmp_path / "killed"
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "KILLED": str(killed)}
    done = subprocess.run(
        command(tile, bundle, "--workers", "1"), env=environment, capture_output=True, text=True
    )
    assert done.returncode == cli.OK, done.stderr
    assert killed.read_text()
    assert digests(tile.parent) == undisturbed
