"""Catalogues to HATS: rows a second and memory, beside hats-import on the same FITS files.

Tiles of a million rows each, the same rows at other places on the sky. hats-import takes the columns as they
are: no nested p(z), no nulls, no checksum of what it reads. Both write no margins.
"""

import argparse
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import report

from catalogs import fits_stream
from catalogs.cpus import cpus
from catalogs.products import photoz, schema
from catalogs.products.photoz import Provenance
from catalogs.products.schema import CATALOGUE

PROVENANCE = Provenance("a" * 64, "none", "none", "b" * 64, (0, 4))
TILE_ROWS, WIDTH = 1_000_000, 3.0
"""Of a tile: rows, and degrees on a side."""
LIMIT = 1_000_000
OTHER = """
import sys
from dask.distributed import Client
from hats_import.catalog.arguments import ImportArguments
from hats_import.catalog.file_readers.fits import FitsReader
from hats_import.catalog.run_import import run

if __name__ == "__main__":
    out, limit, workers, *paths = sys.argv[1:]
    arguments = ImportArguments(
        ra_column="RA", dec_column="DEC", input_file_list=paths, file_reader=FitsReader(hdu=1),
        output_path=out, output_artifact_name="other", pixel_threshold=int(limit), progress_bar=False,
    )
    with Client(n_workers=int(workers), threads_per_worker=1, dashboard_address=None) as client:
        run(arguments, client)
"""


def rows(seed: int) -> np.ndarray:
    """Rows of a tile without positions."""
    rng = np.random.default_rng(seed)
    table = np.zeros(TILE_ROWS, schema.dtype(CATALOGUE))
    for column in schema.columns(CATALOGUE):
        if column.fits_format == "E":
            table[column.name] = rng.uniform(0, 3, TILE_ROWS)
    table["PDF_QUANT"] = np.sort(rng.gamma(3, 0.3, (TILE_ROWS, 20)), 1)
    table["IN_TRAINING"] = schema.NULL
    table["PHOTOZ_FLAGS"] = rng.integers(0, 2, TILE_ROWS) << 9
    return table


def write_tile(path: Path, table: np.ndarray, number: int) -> None:
    rng = np.random.default_rng(number)
    table["RA"] = 20 + WIDTH * (number % 10) + rng.uniform(0, WIDTH, TILE_ROWS)
    table["DEC"] = WIDTH * (number // 10) + rng.uniform(0, WIDTH, TILE_ROWS)
    table["HEALPIX29"] = photoz.healpix29(table["RA"].astype(float), table["DEC"].astype(float))
    table["OBJECT_ID"] = np.arange(TILE_ROWS) + number * TILE_ROWS
    tables = photoz.tables(CATALOGUE, TILE_ROWS, [table])
    fits_stream.write_tables(path, photoz.primary_header(PROVENANCE), tables)


def measure(command: list[str]) -> tuple[float, float]:
    """Seconds, and the largest memory of all its processes together, MB; what they share counts once."""
    started, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        said: list[bytes] = []
        reader = threading.Thread(target=lambda: said.append(process.stderr.read()))
        reader.start()
        while process.poll() is None:
            try:
                all_of_it = [psutil.Process(process.pid), *psutil.Process(process.pid).children(True)]
                peak = max(peak, sum(one.memory_full_info().pss for one in all_of_it) / 1e6)
            except psutil.Error:  # one has ended
                pass
            time.sleep(0.2)
        reader.join()
    if process.returncode:
        raise SystemExit(said[0].decode()[-2000:])
    return time.perf_counter() - started, peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, nargs="+", default=[1, 10], help="tiles of 10^6 rows")
    parser.add_argument("--folder", type=Path, help="for files: 3 times 0.25 GB a tile")
    arguments = parser.parse_args()
    table, lines = rows(0), []
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        paths = [folder / f"tile{number}.photoz.fits" for number in range(max(arguments.tiles))]
        for number, path in enumerate(paths):
            write_tile(path, table, number)
        for tiles in arguments.tiles:
            named, n = [str(path) for path in paths[:tiles]], tiles * TILE_ROWS
            own = [str(Path(sys.executable).with_name("mmae")), "hats", *named, "--out"]
            script = folder / "other.py"
            script.write_text(OTHER)
            other = [sys.executable, str(script), str(folder), str(LIMIT), str(cpus()), *named]
            for name, command, made in (
                ("mmae hats", [*own, str(folder / "own"), "--rows", str(LIMIT), "--margin", "0"], "own"),
                ("hats-import", other, "other"),
            ):
                seconds, peak = measure(command)
                files = [path for path in (folder / made).rglob("*") if path.is_file()]
                size = sum(path.stat().st_size for path in files) / 1e6
                cells = f"{n:,} | {name} | {seconds:.0f} | {n / seconds:,.0f} | {peak:,.0f} | {size:,.0f}"
                lines.append(f"| {cells} |")
                print(lines[-1], flush=True)
                subprocess.run(["rm", "-r", str(folder / made)], check=True)
    flags = "" if arguments.tiles == [1, 10] else f" --tiles {' '.join(map(str, arguments.tiles))}"
    head = "| rows | by | seconds | rows/s | peak memory, MB | written, MB |"
    report.write(
        "hats",
        "Catalogues to HATS",
        f"bench_hats.py{flags}",
        [
            f"Partitions of at most {LIMIT:,} rows, no margins, {cpus()} threads or workers; one run each, "
            "start of the programs included. A FITS row has "
            f"{schema.dtype(CATALOGUE).itemsize} bytes.",
            "",
            head,
            "|---|---|---|---|---|---|",
            *lines,
        ],
    )


if __name__ == "__main__":
    main()
