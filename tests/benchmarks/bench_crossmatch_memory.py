"""Peak memory of `mmae crossmatch` against the size of the release.

    python tests/benchmarks/bench_crossmatch_memory.py

Half of the galaxies match a target; rows are about as wide as DR1's; coadds have 200 fibres, of which 100 are
wanted. Needs 4 GB under $TMPDIR and some minutes; writes results/crossmatch_memory.md.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy as np
import report
from astropy.io import fits
from astropy_healpix import HEALPix

from catalogs import fits_stream

CASES = ((10**5, 10**3), (10**6, 10**3), (10**6, 10**4))
"""Rows of the summary catalogue, galaxies."""
WANTED, FIBRES = 100, 200
"""Targets of a coadd: those that match a galaxy, and all."""
FIRST_CELL = 27247
ARMS = {"B": (3600.0, 2751), "R": (5760.0, 2326), "Z": (7520.0, 2881)}
NUMBERS = {
    "TARGETID": ">i8",
    "HEALPIX": ">i4",
    "Z": ">f8",
    "ZWARN": ">i8",
    "TARGET_RA": ">f8",
    "TARGET_DEC": ">f8",
}
TEXTS = {
    "SURVEY": "S7",
    "PROGRAM": "S6",
    "SPECTYPE": "S6",
    "OBJTYPE": "S3",
    "ZCAT_PRIMARY": "S1",
    "OTHERS": "S730",
}
"""OTHERS stands for the hundred columns that are not read."""
ROW = np.dtype(list((NUMBERS | TEXTS).items()))
COMMAND = """
import re, sys
from mmae import cli
code = cli.run_command("crossmatch", sys.argv[1:])
peak = re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]
print(peak, file=sys.stderr)
sys.exit(code)
"""


def matched_positions(rng, cell, n):
    lon, lat = HEALPix(64, order="nested").healpix_to_lonlat(
        np.full(n, cell), *rng.uniform(0.05, 0.95, (2, n))
    )
    return lon.deg, lat.deg


def zall_blocks(rng, rows, cells):
    """Wanted targets first, cell by cell, then others, far away in the south."""
    for start in range(0, rows, 2**15):
        block = np.zeros(min(2**15, rows - start), ROW)
        number = start + np.arange(len(block))
        block["TARGETID"] = 39_627_000_000_000_000 + number
        block["SURVEY"], block["PROGRAM"], block["SPECTYPE"], block["OBJTYPE"] = (
            b"main",
            b"dark",
            b"GALAXY",
            b"TGT",
        )
        block["Z"], block["ZCAT_PRIMARY"] = 0.3, b"T"
        block["TARGET_RA"] = rng.uniform(0, 360, len(block))
        block["TARGET_DEC"] = np.degrees(np.arcsin(rng.uniform(-0.9, -0.1, len(block))))
        for k, (ra, dec) in enumerate(cells):
            here = (number >= k * WANTED) & (number < (k + 1) * WANTED)
            of_cell = number[here] - k * WANTED
            block["TARGET_RA"][here], block["TARGET_DEC"][here] = ra[of_cell], dec[of_cell]
            block["HEALPIX"][here] = FIRST_CELL + k
        yield block


def write_zall(path, rng, rows, cells):
    kinds = {"i": "K", "f": "D"}
    columns = []
    for name in ROW.names:
        kind = ROW[name]
        form = "J" if kind == ">i4" else kinds.get(kind.kind, f"{kind.itemsize}A")
        columns.append(fits.Column(name, "L" if name == "ZCAT_PRIMARY" else form))
    header = fits.BinTableHDU.from_columns(columns, nrows=0, name="ZCATALOG").header
    header["NAXIS2"] = rows
    path.parent.mkdir(parents=True)
    fits_stream.write_tables(path, fits.Header(), [(header, zall_blocks(rng, rows, cells))])


def write_coadd(path, first_id):
    rng = np.random.default_rng(0)
    ids = fits.Column("TARGETID", "K", array=first_id + np.arange(FIBRES))
    hdus = [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([ids], name="FIBERMAP")]
    for arm, (wave, pixels) in ARMS.items():
        hdus.append(fits.ImageHDU(wave + 0.8 * np.arange(pixels), name=f"{arm}_WAVELENGTH"))
        flux = rng.normal(1, 0.2, (FIBRES, pixels)).astype(np.float32)
        hdus.append(fits.ImageHDU(flux, name=f"{arm}_FLUX"))
        hdus.append(fits.ImageHDU(np.full_like(flux, 25), name=f"{arm}_IVAR"))
        hdus.append(fits.ImageHDU(np.zeros(flux.shape, np.int32), name=f"{arm}_MASK"))
    path.parent.mkdir(parents=True)
    fits.HDUList(hdus).writeto(path, checksum=True)


def write_galaxies(path, rng, cells):
    """Half of the galaxies 0.3 arcsec from a target, the others a cell away."""
    ra, dec = np.concatenate(cells, axis=1)
    ra, dec = np.append(ra, ra), np.append(dec + 0.3 / 3600, dec + 10)
    with h5py.File(path, "w") as file:
        file["object_id"], file["ra"], file["dec"] = np.arange(len(ra)), ra, dec
        image = file.create_dataset("image", (len(ra), 5, 64, 64), "f4")
        for start in range(0, len(ra), 500):
            image[start : start + 500] = rng.normal(size=image[start : start + 500].shape)


def plant(folder, rows, galaxies):
    rng = np.random.default_rng(rows)
    cells = [matched_positions(rng, FIRST_CELL + k, WANTED) for k in range(galaxies // 2 // WANTED)]
    write_zall(folder / "desi" / "zcatalog" / "v1" / "zall-pix-bench.fits", rng, rows, cells)
    for k in range(len(cells)):
        cell = FIRST_CELL + k
        name = f"healpix/main/dark/{cell // 100}/{cell}/coadd-main-dark-{cell}.fits"
        write_coadd(folder / "desi" / name, 39_627_000_000_000_000 + k * WANTED)
    write_galaxies(folder / "galaxies.hdf5", rng, cells)


def measure(*arguments):
    """Seconds and peak RSS (MB) of the command in a process of its own.

    The process says it itself: what wait4 tells of a child counts its parent's memory at the fork too.
    """
    start = time.perf_counter()
    command = [sys.executable, "-c", COMMAND, *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return time.perf_counter() - start, int(done.stderr) / 1024


def run(rows, galaxies):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        plant(folder, rows, galaxies)
        zall = sum(path.stat().st_size for path in folder.rglob("zall-*.fits")) / 2**20
        out = folder / "spectra.hdf5"
        seconds, peak = measure(folder / "galaxies.hdf5", "--desi", folder / "desi", "--out", out)
        with h5py.File(out) as file:
            written = len(file["targetid"])
    return f"| {rows:,} | {zall:,.0f} | {galaxies:,} | {written:,} | {seconds:.0f} | {peak:.0f} |"


def main():
    lines = [run(*case) for case in CASES]
    body = [
        "Peak RSS is VmHWM of the command's process; it counts the pages of the coadd being read (19 MB).",
        "",
        "| DESI rows | summary catalogue (MB) | galaxies | pairs written | seconds | peak RSS (MB) |",
        "|---:|---:|---:|---:|---:|---:|",
        *lines,
    ]
    report.write("crossmatch_memory", "Peak memory of `mmae crossmatch`", "bench_crossmatch_memory.py", body)


if __name__ == "__main__":
    main()
