"""System calls that fail in the middle of a run: a sentence with the file's name, and a way on."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
from infer_runs import command, digests
from killing import wait_for

from catalogs import atomic
from mmae import cli

FAULTS = [
    ("flock", "rubin_tile.photoz", errno.ENOLCK, 0),
    ("open", "plan.json", errno.EROFS, 0),
    ("read", "image/c/", errno.EIO, 2),
    ("write", "parts/.unit-", errno.EDQUOT, 0),
    ("fsync", "parts/.unit-", errno.EIO, 0),
    ("close", "parts/.unit-", errno.EIO, 0),
    ("write", "rubin_tile.photoz/log", errno.ENOSPC, 0),
    ("read", "parts/unit-000000.fits", errno.EIO, 0),
    ("write", ".rubin_tile.photoz.fits", errno.EIO, 1),
    ("rename", "rubin_tile.photoz.fits", errno.EDQUOT, 0),
    ("write", "finished.json", errno.ENOSPC, 0),
]


def environment(library, log, fault):
    """The environment in which calls fail as `fault` says; `log` is there once one has."""
    names = ("FAIL_CALL", "FAIL_PATH", "FAIL_ERRNO", "FAIL_AFTER")
    faults = {"LD_PRELOAD": library, "FAIL_LOG": log} | dict(zip(names, fault, strict=True))
    return os.environ | {name: str(value) for name, value in faults.items()}


@pytest.fixture
def failing(library, tmp_path):
    """`failing(command, fault)`: what a command said and how it ended, while calls fail as `fault` says."""

    def run(words, fault=None):
        log = tmp_path / "fired"
        log.unlink(missing_ok=True)
        done = subprocess.run(
            [sys.executable, "-m", *map(str, words)],
            env=environment(library, log, fault) if fault else None,
            capture_output=True,
            text=True,
        )
        assert not fault or log.stat().st_size, fault
        return done

    return run


@pytest.mark.slow
def test_inference_goes_on_after_any_error_of_the_disk(failing, tile, bundle, undisturbed, tmp_path):
    """One after the other in one folder: every run does a little more, and fails elsewhere."""
    out = tmp_path / "out"
    command = ["mmae.infer", "--catalog", tile, "--model", bundle, "--workers", 1, "--out"]
    for call, path, number, after in FAULTS:
        if path == "parts/.unit-":
            shutil.rmtree(out / "rubin_tile.photoz/parts", ignore_errors=True)  # or too few might be left
        done = failing([*command, out], (call, path, number, after))
        assert done.returncode == cli.IO_FAILED, (call, path, done.stderr)
        (sentence,) = done.stderr.splitlines()
        assert os.strerror(number) in sentence, (call, path)
        assert path.removeprefix("parts/.").removeprefix(".") in sentence, (call, path)
        assert not (out / "rubin_tile.photoz/finished.json").exists()
        assert not list(out.rglob(f"*{atomic.TEMPORARY}")), (call, path)
    done = failing([*command, out])
    assert done.returncode == cli.OK, done.stderr
    assert digests(out) == undisturbed


@pytest.mark.slow
def test_a_worker_that_is_ended_amid_a_part_leaves_nothing_half_written(library, tile, bundle, tmp_path):
    log, run = tmp_path / "fired", tile.with_name("rubin_tile.photoz")
    with subprocess.Popen(
        command(tile, bundle, "--workers", "1"),
        env=environment(library, log, ("fsync", "parts/.unit-", 0, 0)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as driver:
        wait_for(log.exists, driver)
        assert list(run.rglob(f"*{atomic.TEMPORARY}"))
        driver.terminate()
        assert "the same command goes on" in driver.stderr.read()
    assert driver.returncode == cli.INTERRUPTED
    assert not list(run.rglob(f"*{atomic.TEMPORARY}"))


@pytest.mark.slow
def test_a_file_system_without_locks_is_told_with_the_remedy(failing, tile, bundle, tmp_path):
    command = ["mmae.infer", "--catalog", tile, "--model", bundle, "--out", tmp_path / "out"]
    done = failing(command, ("flock", "rubin_tile.photoz", errno.ENOSYS, 0))
    assert done.returncode == cli.USAGE
    (sentence,) = done.stderr.splitlines()
    assert f"the file system of {tmp_path / 'out/rubin_tile.photoz'} keeps no locks" in sentence


@pytest.mark.slow
@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_checkpoint_that_cannot_be_written_is_named(failing, survey, tmp_path, call):
    """torch.save has words of its own over a full disk."""
    flags = ["--out", tmp_path / "run", "--epochs", 1, "--batch", 64, "--precision", "fp32"]
    flags += [
        "--model.embed-dim",
        64,
        "--model.depth",
        1,
        "--model.decoder-dim",
        32,
        "--model.decoder-depth",
        1,
    ]
    command = ["mmae.train", survey / "train.zarr", *flags]
    done = failing(command, (call, "best.pt", errno.ENOSPC, 0))
    assert done.returncode == cli.IO_FAILED, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert "No space left on device" in sentence
    assert "best.pt" in sentence
    assert not list((tmp_path / "run").glob(f"*{atomic.TEMPORARY}"))
