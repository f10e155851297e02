"""Runs of `mmae infer` on the tile of the tests: their command, processes and products."""

import contextlib
import hashlib
import subprocess
import sys

import psutil

from catalogs import atomic


def command(tile, bundle, *flags):
    return [sys.executable, "-u", "-m", "mmae.infer", "--catalog", str(tile), "--model", str(bundle), *flags]


def digests(folder):
    names = ("rubin_tile.photoz.fits", "rubin_tile.rejects.fits")
    return [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names]


def manifests(tile):
    return list(tile.with_name("rubin_tile.photoz").glob("parts/*.json"))


def descendants(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def called(process):
    """What a process calls itself; nothing where it is ending."""
    return "".join(process.cmdline()[:1])


def actors(process):
    found = []
    for child in descendants(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "Predictor" in called(child):
                found.append(child)
    return found


def is_at_a_unit(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return "Predictor.process" in called(process)


def finish(tile, bundle):
    done = subprocess.run(command(tile, bundle), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not list(tile.parent.rglob(f"*{atomic.TEMPORARY}"))
    return done.stdout
