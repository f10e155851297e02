"""Peak memory of ingest: does it depend on the number of objects?

    python tests/benchmarks/bench_ingest_memory.py [--most 100000] [--folder FOLDER]

Every case is a process of its own; its peak resident memory is what the kernel counted (ru_maxrss). The HDF5
sources are laid out as GalaxiesML, N x 5 x 64 x 64 float32; on disk they are one chunk of 64 sparse cutouts,
compressed, over and over. Stores are written in full, and deleted again: up to 9 GB in all. A million objects
are written with images of 16 x 16 pixels, whose shards are smaller. Prints the table and writes
results/ingest_memory.md.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import report

from catalogs.surveys.galaxiesml import FLUX, IVAR, REDSHIFT, TARGETID, WAVE

PIXELS, ROWS = 7783, 64

WATCH = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""
"""A small process between: a child counts the memory of the one that started it as its own, before exec."""
OPEN = """
import sys
from pathlib import Path
from catalogs.surveys.galaxiesml import open_galaxiesml
with open_galaxiesml(Path(sys.argv[1])) as source:
    source.fingerprint
"""
WRITE_16_PIXELS = """
import sys
from pathlib import Path
import numpy as np
from catalogs.store import cutouts

def rows(start, stop):
    m = stop - start
    image = np.broadcast_to(np.float32(1), (m, 5, 16, 16))
    return {"image": image, "object_id": np.arange(start, stop), "ra": np.ones(m), "dec": np.ones(m)}

cutouts.write(Path(sys.argv[2]), rows, n=int(sys.argv[1]), survey="test", size=16)
"""


def repeat(file: h5py.File, name: str, n: int, rows: np.ndarray) -> None:
    """A dataset of n rows: the 64 given ones, compressed once, as every chunk."""
    options = {"chunks": rows.shape, "compression": "gzip", "shuffle": False}
    dataset = file.create_dataset(name, (n, *rows.shape[1:]), rows.dtype, **options)
    packed = zlib.compress(rows.tobytes(), 6)
    for start in range(0, n, ROWS):
        dataset.id.write_direct_chunk((start, *(0,) * (rows.ndim - 1)), packed)


def make_source(path: Path, n: int, spectra: bool) -> None:
    rng = np.random.default_rng(0)
    image = np.where(rng.random((ROWS, 5, 64, 64)) < 0.003, 1, 0).astype(np.float32)
    with h5py.File(path, "w") as file:
        repeat(file, "image", n, image)
        file[TARGETID] = np.char.mod(b"%d", np.arange(n) + 39627600000000001)
        if spectra:
            flux = np.where(rng.random((ROWS, PIXELS)) < 0.01, 1, 0).astype(np.float32)
            for name in (FLUX, IVAR):
                repeat(file, name, n, flux)
            repeat(file, WAVE, n, np.tile(3600 + 0.8 * np.arange(PIXELS, dtype=np.float32), (ROWS, 1)))
            file[REDSHIFT] = np.ones(n)


def peak(*command: object) -> tuple[float, float]:
    """Peak resident memory (MB) of a command, or of the greatest of its processes, and seconds."""
    started = time.perf_counter()
    watched = [sys.executable, "-c", WATCH, *map(str, command)]
    done = subprocess.run(watched, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
    return int(done.stderr.split()[-1]) / 1024, time.perf_counter() - started


def cases(folder: Path, most: int) -> Iterator[tuple[str, int, tuple]]:
    """What is measured, number of objects, command; the source is in the folder while a case is run."""
    source, store = folder / "source.hdf5", folder / "a.zarr"
    ingest = (sys.executable, "-m", "mmae.cli", "ingest", source, store)
    ranks = (shutil.which("mpirun", path=Path(sys.executable).parent) or "mpirun", "-n", 2, sys.executable)
    for n in (most // 10, most * 3 // 10, most):
        make_source(source, n, spectra=False)
        yield "ingest, images", n, ingest
    yield (
        "ingest, images, 2 ranks (the larger)",
        n,
        (*ranks, "-m", "mpi4py", "-m", "jobs.ingest", source, store),
    )
    for n in (most // 10, most * 3 // 10):
        make_source(source, n, spectra=True)
        yield "ingest, images and spectra", n, ingest
    for n in (most, 10 * most):
        make_source(source, n, spectra=False)
        yield "open the source: layout, ids, fingerprint", n, (sys.executable, "-c", OPEN, source)
    for n in (most, 10 * most):
        yield "write, images of 16 x 16", n, (sys.executable, "-c", WRITE_16_PIXELS, n, store)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=100_000, help="objects in the largest full-size case")
    parser.add_argument(
        "--folder", type=Path, help="where to write; by default the system's temporary folder"
    )
    options = parser.parse_args()
    table = ["| what | objects | store, GB | peak memory, MB | objects/s |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        store = Path(folder, "a.zarr")
        for what, n, command in cases(Path(folder), options.most):
            memory, seconds = peak(*command)
            stored = sum(file.stat().st_size for file in store.rglob("*") if file.is_file())
            table.append(f"| {what} | {n:,} | {stored / 1e9:.2f} | {memory:,.0f} | {n / seconds:,.0f} |")
            print(table[-1], flush=True)
            shutil.rmtree(store, ignore_errors=True)
            store.with_name("a.zarr.manifest.json").unlink(missing_ok=True)
    body = [
        "One run each; shards of 4096 rows; the rate includes the start of Python and fsync. A shard holds "
        "336 MB of pixels, and 255 MB of spectra where there are some.",
        "",
        *table,
    ]
    command = f"bench_ingest_memory.py --most {options.most}"
    report.write("ingest_memory", "Memory of ingest", command, body)


if __name__ == "__main__":
    main()
