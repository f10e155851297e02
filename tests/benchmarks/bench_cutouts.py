"""Stamps out of coadds: how fast, beside a loop of astropy's Cutout2D, and in how much memory?

    python tests/benchmarks/bench_cutouts.py [--objects 20000] [--loop 300] [--many 100000] [--folder FOLDER]

The coadds are as HSC's: patches of 4200 x 4200 pixels, five bands, IMAGE alone or with MASK and VARIANCE;
their pixels are noise. The loop opens a patch once, and calls Cutout2D for each object and band, or opens the
files for each object, as scripts do. Every case of `mmae cutouts` is a process of its own, whose peak memory
is what the kernel counted. Many objects lie on four patches, and are cut by one process, by 2 and 4 ranks,
and by one that is killed half way with two that go on. Needs 12 GB of disk. Prints the tables and writes
results/cutouts.md.
"""

import argparse
import contextlib
import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import astropy.units as u
import numpy as np
import report
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS
from bench_ingest_memory import peak

from catalogs.cutting.coadds import open_coadds
from catalogs.cutting.objects import Selection, read_objects
from catalogs.cutting.source import Wanted
from catalogs.store import format as cutout_format
from catalogs.store.shard_writer import SerialComm
from catalogs.tables import formats

SIDE, SIZE, SHARD = 4200, 64, 1024
BANDS = ("HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y")
FLUXMAG0 = 63095734448.0194


def header_of(patch: int) -> fits.Header:
    """Patches lie side by side along right ascension, overlapping by 100 pixels."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = 150.1, 2.2
    wcs.wcs.crpix = SIDE / 2 - patch * (SIDE - 100), SIDE / 2
    wcs.wcs.cd = np.diag([-0.168, 0.168]) / 3600
    return wcs.to_header()


def write_hdus(path: Path, *hdus: fits.ImageHDU) -> None:
    primary = fits.PrimaryHDU()
    primary.header["FLUXMAG0"] = FLUXMAG0
    fits.HDUList([primary, *hdus]).writeto(path)


def write_patch(folder: Path, patch: int, full: bool) -> None:
    header = header_of(patch)
    rng = np.random.default_rng(patch)
    image = rng.normal(0, 0.1, (SIDE, SIDE)).astype(np.float32)
    for band in BANDS:
        hdus = [fits.ImageHDU(image, header, name="IMAGE")]
        if full:
            mask = fits.ImageHDU((image > 0.4).astype(np.int32) << 5, header, name="MASK")
            mask.header["MP_BAD"] = 0
            hdus += [mask, fits.ImageHDU(np.full_like(image, 0.01), header, name="VARIANCE")]
        write_hdus(folder / f"calexp-{band}-{patch}.fits", *hdus)


def write_objects(path: Path, n: int, patches: int) -> None:
    x, y = np.random.default_rng(n).uniform(0, SIDE, (2, n))
    patch = np.arange(n) % patches
    sky = [WCS(header_of(k)).pixel_to_world(x[patch == k], y[patch == k]) for k in range(patches)]
    ra, dec = (np.concatenate([getattr(part, name).deg for part in sky]) for name in ("ra", "dec"))
    Table({"object_id": np.arange(n), "ra": ra, "dec": dec}).write(path, overwrite=True)


def loop(folder: Path, table: Table, reopen: bool) -> float:
    """Objects a second by Cutout2D."""
    paths = [folder / f"calexp-{band}-0.fits" for band in BANDS]
    places = SkyCoord(table["ra"] * u.deg, table["dec"] * u.deg)
    with contextlib.ExitStack() as stack:
        opened = [] if reopen else [stack.enter_context(fits.open(path))[1] for path in paths]
        planes = [(hdu.data, WCS(hdu.header)) for hdu in opened]
        started = time.monotonic()
        for place in places:
            if reopen:
                for path in paths:
                    with fits.open(path) as hdus:
                        wcs = WCS(hdus[1].header)
                        np.array(cutout(hdus[1].data, place, wcs))
            else:
                np.stack([cutout(data, place, wcs) for data, wcs in planes])
        return len(table) / (time.monotonic() - started)


def cutout(data: np.ndarray, place: SkyCoord, wcs: WCS) -> np.ndarray:
    return Cutout2D(data, place, SIZE, wcs=wcs, mode="partial", fill_value=np.nan).data


def ours(folder: Path, objects: Path) -> float:
    """Objects a second in this process, from the table to the stamps in memory, shard by shard."""
    wanted = Wanted(BANDS, "", SIZE, None, None, ("BAD",))
    started = time.monotonic()
    with formats.opened(objects) as opened:
        table = read_objects(opened, Selection(), needs_positions=True)
    pattern = str(folder / "calexp-{band}-*.fits")
    source = open_coadds(wanted, table, pattern, {}, SerialComm(), lambda items, what: items)
    for start in range(0, len(source.objects), SHARD):
        source.cut(start, min(len(source.objects), start + SHARD))
    source.close()
    return len(source.objects) / (time.monotonic() - started)


def files(folder: Path, n: int) -> float:
    """Objects a second of the command that takes cutouts from files, one a band, into a store."""
    stamps, table = folder / "stamps", folder / "few.csv"
    stamps.mkdir()
    image = np.random.default_rng(0).normal(0, 0.1, (SIZE, SIZE)).astype(np.float32)
    for k in range(n):
        for band in BANDS:
            write_hdus(stamps / f"{k}-{band}.fits", fits.ImageHDU(image, header_of(0), name="IMAGE"))
    Table({"object_id": np.arange(n)}).write(table)
    store, pattern = folder / "a.zarr", stamps / "{object_id}-{band}.fits"
    flags = ("cutouts", table, store, "--files", pattern, "--bands", *BANDS)
    _, seconds = peak(sys.executable, "-m", "mmae.cli", *flags)
    remove(folder, store)
    return n / seconds


def best(measure: Callable[[], float], runs: int = 3) -> float:
    return max(measure() for _ in range(runs))


def copying(n: int) -> float:
    """Objects a second whose pixels one core copies in memory, in blocks of a shard."""
    shard = np.ones((SHARD, len(BANDS), SIZE, SIZE), np.float32)
    stamps = np.empty((n, *shard.shape[1:]), np.float32)
    stamps.fill(0)  # or the time of the first touch of its pages is counted
    started = time.monotonic()
    for start in range(0, n - SHARD + 1, SHARD):
        stamps[start : start + SHARD] = shard
    return n // SHARD * SHARD / (time.monotonic() - started)


def cutting(folder: Path, objects: Path, ranks: int = 1) -> list[object]:
    """The command that cuts objects out of the coadds of a folder, into the store a.zarr of it."""
    flags = ["--coadds", str(folder / "calexp-{band}-*.fits"), "--bands", *BANDS, f"--shard-rows={SHARD}"]
    arguments = [objects, folder / "a.zarr", *flags]
    if ranks == 1:
        return [sys.executable, "-m", "mmae.cli", "cutouts", *arguments]
    mpirun = shutil.which("mpirun", path=Path(sys.executable).parent) or "mpirun"
    return [mpirun, "-n", ranks, sys.executable, "-m", "mpi4py", "-m", "jobs.cutouts", *arguments]


def command(folder: Path, objects: Path, ranks: int = 1) -> tuple[float, float, str]:
    """Peak memory in MB, objects a second of the whole command, sha256 of the manifest it leaves.

    The manifest holds the sha256 of every file. The store is deleted again.
    """
    store = folder / "a.zarr"
    memory, seconds = peak(*cutting(folder, objects, ranks))
    manifest = hashlib.sha256(cutout_format.manifest_path(store).read_bytes()).hexdigest()
    remove(folder, store)
    return memory, len(Table.read(objects)) / seconds, manifest


def killed(folder: Path, objects: Path, shards: int) -> int:
    """Shards that a process left which was killed at about this number."""
    process = subprocess.Popen(
        [str(word) for word in cutting(folder, objects)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while (left := len(list(folder.glob("a.zarr.partial/*/image/c/*")))) < shards and process.poll() is None:
        time.sleep(0.2)
    process.kill()
    process.wait()
    return left


def many(folder: Path, n: int) -> Iterator[str]:
    """The table of many objects on four patches: how they were cut, and whether the bytes are the same."""
    yield "| how | objects | peak memory of a process, MB | objects/s | manifest |"
    yield "|---|---|---|---|---|"
    for patch in range(4):
        for old in folder.glob(f"calexp-*-{patch}.fits"):
            old.unlink()
        write_patch(folder, patch, full=False)
    objects = folder / "objects.fits"
    write_objects(objects, n, 4)
    for ranks in (1, 2, 4):
        used, rate, manifest = command(folder, objects, ranks)
        how = "one process" if ranks == 1 else f"{ranks} ranks"
        yield f"| {how} | {n:,} | {used:,.0f} | {rate:,.0f} | `{manifest[:12]}` |"
    left = killed(folder, objects, n // SHARD // 2)
    used, _, manifest = command(folder, objects, 2)
    yield f"| killed with {left} shards there, then 2 ranks | {n:,} | {used:,.0f} | | `{manifest[:12]}` |"


def remove(folder: Path, store: Path) -> None:
    """Delete a store, and what is beside it."""
    for left in folder.glob(f"{store.name}*"):
        shutil.rmtree(left) if left.is_dir() else left.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--objects", type=int, default=20_000, help="objects on a patch in the largest case")
    parser.add_argument("--loop", type=int, default=300, help="objects that the loops cut")
    parser.add_argument("--many", type=int, default=100_000, help="objects on four patches")
    parser.add_argument(
        "--folder", type=Path, help="where to write; by default the system's temporary folder"
    )
    options = parser.parse_args()
    speed = ["| five bands, 64 pixels | objects/s | against the loop |", "|---|---|---|"]
    memory = ["| patches | planes | objects | peak memory, MB | objects/s |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder, objects = Path(name), Path(name, "objects.fits")
        write_patch(folder, 0, full=False)
        write_objects(objects, options.objects, 1)
        few = Table.read(objects)[: options.loop]
        reference = best(lambda: loop(folder, few, reopen=False))
        rates = {
            "Cutout2D in a loop, files opened once": reference,
            "Cutout2D in a loop, files opened for each object": loop(folder, few, reopen=True),
            "ours, from table and coadds to stamps in memory": best(lambda: ours(folder, objects)),
            "ours, the whole command, into a store on disk": command(folder, objects)[1],
            "ours, from cutouts in files, one a band, into a store": files(folder, 4 * options.loop),
            "the same pixels copied in memory by one core": best(lambda: copying(options.objects)),
        }
        for what, rate in rates.items():
            speed.append(f"| {what} | {rate:,.0f} | {rate / reference:.1f} x |")
            print(speed[-1], flush=True)
        for patches, full in ((1, False), (2, False), (1, True)):
            for patch in range(patches):
                for old in folder.glob(f"calexp-*-{patch}.fits"):
                    old.unlink()
                write_patch(folder, patch, full)
            for old in folder.glob(f"calexp-*-{patches}.fits"):
                old.unlink()
            for n in (options.objects // 4, options.objects):
                write_objects(objects, n * patches, patches)
                used, rate, _ = command(folder, objects)
                planes = "image, mask, variance" if full else "image"
                memory.append(f"| {patches} | {planes} | {n * patches:,} | {used:,.0f} | {rate:,.0f} |")
                print(memory[-1], flush=True)
        of_many = []
        for line in many(folder, options.many):
            of_many.append(line)
            print(line, flush=True)
    body = [
        f"Shards of {SHARD} rows, 84 MB of pixels; the best of three runs where in memory, else one. The "
        "rate of the command includes the start of Python, checksums and fsync. The machine was busy with "
        "other work.",
        *("", *speed, "", *memory, "", *of_many),
    ]
    report.write("cutouts", "Stamps out of coadds", f"bench_cutouts.py --objects {options.objects}", body)


if __name__ == "__main__":
    main()
