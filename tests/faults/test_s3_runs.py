"""Runs of `mmae infer` on S3: the catalogue of the file system, whatever fails; no credentials anywhere."""

import contextlib
import itertools
import os
import signal
import subprocess
import sys

import pytest
from infer_runs import descendants, digests
from killing import wait_for
from s3_server import assert_silent, contents, files_with_secrets, upload

from catalogs import lease
from mmae import cli

QUICK = """
from catalogs import lease

lease.RENEW_SECONDS, lease.DEAD_SECONDS, lease.POLL_SECONDS = 1, 8, 1
from mmae import cli

cli.start("mmae.infer", "Infer")
"""
"""The command, with the clock of the lock going faster."""


@pytest.fixture
def tiles(survey, bucket):
    """Folder on S3 with the tile."""
    upload(survey / "rubin_tile.zarr", bucket / "my tiles")
    return bucket / "my tiles"


def started(tiles, bundle, out, **options):
    command = [sys.executable, "-u", "-c", QUICK, "--catalog", f"{tiles}/*.zarr", "--out", str(out)]
    return subprocess.Popen(
        [*command, "--model", str(bundle), "--workers", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        **options,
    )


def ended(process):
    """Exit code and output; no credentials are in it."""
    output, errors = process.communicate(timeout=300)
    assert_silent(output, errors)
    return process.returncode, output + errors


def test_a_killed_driver_and_its_rival_do_not_show(tiles, bundle, bucket, undisturbed, tmp_path, monkeypatch):
    out = bucket / "out"
    run = out / "rubin_tile.photoz"
    monkeypatch.setattr(lease, "RENEW_SECONDS", 1)
    with lease.held(run):
        code, said = ended(started(tiles, bundle, out))
        assert code == cli.USAGE, said
        assert "rubin_tile.photoz is being written by another process" in said
    first = started(tiles, bundle, out)
    wait_for(lambda: [*(run / "parts").glob("*.json")], first)
    kin = descendants(first)
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    for process in kin:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    assert not (out / "rubin_tile.photoz.fits").exists()

    code, said = ended(started(tiles, bundle, out))
    assert code == cli.OK, said
    assert "units were done before" in said
    for name, content in contents(out).items():
        assert_silent(content.decode("latin-1"))
        if "/" not in name:
            (tmp_path / name).write_bytes(content)
    assert digests(tmp_path) == undisturbed
    assert not [name for name in contents(out) if name.endswith(("lock", "probe"))]
    assert "nothing to do" in ended(started(tiles, bundle, out))[1]


def test_a_server_that_fails_now_and_then_does_not_show(tiles, bundle, proxy, undisturbed, tmp_path):
    """Here with the catalogue in a file system."""
    count = itertools.count()
    proxy.answer = lambda *request: (503, "SlowDown") if next(count) % 5 == 4 else None
    code, said = ended(started(tiles, bundle, tmp_path / "out"))
    assert code == cli.OK, said
    assert digests(tmp_path / "out") == undisturbed
    assert not files_with_secrets(tmp_path)


def test_what_is_wrong_is_told_in_a_sentence(tiles, bundle, bucket, proxy, capsys):
    def said(catalog, out):
        code = cli.run_command(
            "infer", ["--catalog", str(catalog), "--model", str(bundle), "--out", str(out)]
        )
        error = capsys.readouterr().err
        assert_silent(error)
        assert error.count("\n") == 1
        return code, error

    for catalog, out, code, sentence in (
        (tiles / "*.zarr", "s3://nowhere/x", cli.USAGE, "there is no bucket nowhere"),
        (bucket / "none/*", bucket / "out", cli.USAGE, "no cutout store matches"),
        (bucket / "none.zarr", bucket / "out", cli.USAGE, "none.zarr does not exist"),
    ):
        result = said(catalog, out)
        assert result[0] == code
        assert sentence in result[1]
    proxy.answer = lambda method, *rest: (403, "AccessDenied") if method == "PUT" else None
    code, error = said(tiles / "rubin_tile.zarr", bucket / "out")
    assert code == cli.IO_FAILED
    assert "access was denied (403 AccessDenied)" in error
    assert not (bucket / "out").exists()
