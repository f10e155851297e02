"""Cutouts read from S3, by obstore and by s3fs; and inference from there and to there, against a file system.

python tests/benchmarks/bench_object_store.py [FOLDER]

The server is moto's, in Python, on the same cores as its clients: rates of reading are lower bounds. It waits
before each answer, as a server far away does. FOLDER: where s3fs is installed (`pip install --target FOLDER
s3fs`); it pins a version of botocore that the server may not go with.
"""

import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import bench_inference
import numpy as np
import report
import zarr

from catalogs.object_path import ObjectPath
from catalogs.store.cutouts import open_store

OBJECTS, BLOCK, ROUNDS = 2048, 512, 3
DELAYS = (0, 20)
"""Milliseconds that the server waits before an answer."""
KEYS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
BUCKET = "bench"
SERVER = """
import logging, sys, time, urllib.request
logging.getLogger("werkzeug").setLevel(logging.ERROR)
from moto.moto_server.werkzeug_app import DomainDispatcherApplication
from moto.server import ThreadedMotoServer

answer, delay = DomainDispatcherApplication.__call__, [0.0]

def slowly(self, environ, start_response):
    time.sleep(delay[0])
    return answer(self, environ, start_response)

DomainDispatcherApplication.__call__ = slowly
server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
server.start()
address = "http://{}:{}".format(*server.get_host_and_port())
urllib.request.urlopen(urllib.request.Request(f"{address}/bench", method="PUT"))
print(address, flush=True)
for line in sys.stdin:
    delay[0] = float(line) / 1000
    print("set", flush=True)
"""
READERS = ("file system", "catalogs (obstore)", "zarr over obstore", "zarr over s3fs")


class Server:
    """moto in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]):
        self.process = process
        self.address = self.line()

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def wait_before_answers(self, milliseconds: int) -> None:
        print(milliseconds, file=self.process.stdin, flush=True)
        assert self.line() == "set"


@contextlib.contextmanager
def started() -> Iterator[Server]:
    command = [sys.executable, "-c", SERVER]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        yield Server(process)
        process.kill()


def upload(store: Path, folder: ObjectPath) -> None:
    for file in [*store.rglob("*"), store.with_name(f"{store.name}.manifest.json")]:
        if file.is_file():
            (folder / str(file.relative_to(store.parent))).write_file(file)


# ---------------------------------------------------------------- reading


def read(reader: str, tile: str) -> float:
    """Rows/s of all images, in blocks as inference reads them; in this process, after a first block."""
    image = opened(reader, Path(tile))
    image(0)
    started = time.monotonic()
    for start in range(0, OBJECTS, BLOCK):
        assert image(start).shape == (BLOCK, 5, 64, 64)
    return OBJECTS / (time.monotonic() - started)


def opened(reader: str, tile: Path):  # type: ignore[no-untyped-def]
    """The images of a block by its first row."""
    if reader in READERS[:2]:
        store = open_store(tile if reader == READERS[0] else ObjectPath(BUCKET, tile.name))
        return lambda start: store.images(start, start + BLOCK)[0]
    if reader == READERS[2]:
        from obstore.store import S3Store

        options = {"allow_http": True}
        behind = zarr.storage.ObjectStore(
            S3Store(BUCKET, prefix=tile.name, client_options=options), read_only=True
        )
    else:
        endpoint = {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}
        behind = zarr.storage.FsspecStore.from_url(
            f"s3://{BUCKET}/{tile.name}", {"client_kwargs": endpoint}, read_only=True
        )
    array = zarr.open_group(behind, mode="r", use_consolidated=False)["image"]
    return lambda start: np.asarray(array[start : start + BLOCK])


def rates(reader: str, tile: Path, s3fs: str) -> float:
    """In a process of its own."""
    path = {"PYTHONPATH": s3fs} if reader == READERS[3] else {}
    command = [sys.executable, __file__, "read", reader, str(tile)]
    return float(subprocess.run(command, env=os.environ | path, stdout=subprocess.PIPE, check=True).stdout)


# ---------------------------------------------------------------- inference


def infer(catalog: str, out: str, bundle: str) -> tuple[float, bytes]:
    """Objects/s of all of a run, start of Ray included, and the catalogue."""
    flags = ["--catalog", catalog, "--out", out, "--model", bundle, "--workers", "1"]
    started = time.monotonic()
    subprocess.run([sys.executable, "-m", "mmae.infer", *flags], stdout=subprocess.DEVNULL, check=True)
    rate = OBJECTS / (time.monotonic() - started)
    folder = ObjectPath(BUCKET, out.removeprefix(f"s3://{BUCKET}/")) if out.startswith("s3:") else Path(out)
    return rate, (folder / "tile.photoz.fits").read_bytes()


def main(s3fs: str = "") -> None:
    os.environ |= KEYS
    found: dict[tuple[str, int], list[float]] = {}
    runs: dict[str, list[float]] = {}
    catalogues = set()

    def run(name: str, catalog: str, out: str, bundle: Path) -> None:
        rate, catalogue = infer(catalog, out, str(bundle))
        runs.setdefault(name, []).append(rate)
        catalogues.add(catalogue)

    with tempfile.TemporaryDirectory() as folder, started() as server:
        os.environ["AWS_ENDPOINT_URL"] = server.address
        bench_inference.OBJECTS = OBJECTS
        tile, bundle = bench_inference.make_inputs(Path(folder))
        upload(tile, ObjectPath(BUCKET))
        for number in range(ROUNDS):
            run("file system", str(tile), f"{folder}/out-{number}", bundle)
            for delay in DELAYS:
                server.wait_before_answers(delay)
                for reader in READERS if s3fs else READERS[:3]:
                    found.setdefault((reader, delay), []).append(rates(reader, tile, s3fs))
                out = f"s3://{BUCKET}/out-{number}-{delay}"
                run(f"S3, {words(delay)}", f"s3://{BUCKET}/tile.zarr", out, bundle)
    assert len(catalogues) == 1
    report.write("object_store", "Stores on S3", "bench_object_store.py FOLDER", body(found, runs))


def words(delay: int) -> str:
    return f"answers after {delay} ms"


def body(found: dict[tuple[str, int], list[float]], runs: dict[str, list[float]]) -> Iterator[str]:
    yield (
        f"{OBJECTS} cutouts of 5 bands, {OBJECTS * 5 * 64**2 * 4 / 1e6:.0f} MB in one shard, read {BLOCK} at "
        f"a time; medians of {ROUNDS} rounds in turn. The server (moto, in Python) shares the cores. Load: "
        f"{os.getloadavg()[0]:.1f}."
    )
    yield from ("", "| images read, rows/s | " + " | ".join(map(words, DELAYS)) + " |", "|---|---|---|")
    for reader in dict.fromkeys(name for name, _ in found):
        numbers = (f"{statistics.median(found[reader, delay]):,.0f}" for delay in DELAYS)
        yield f"| {reader} | {' | '.join(numbers)} |"
    yield from (
        "",
        "| `mmae infer`, a worker, start to end | objects/s | of the first, within a round |",
    )
    yield "|---|---|---|"
    first = next(iter(runs.values()))
    for place, each in runs.items():
        share = statistics.median(one / other for one, other in zip(each, first, strict=True))
        yield f"| {place} | {statistics.median(each):.0f} | {share:.2f} |"
    yield from ("", "The catalogues of all runs are the same bytes.")


if __name__ == "__main__":
    if sys.argv[1] == "read":
        print(read(*sys.argv[2:4]))
    else:
        main(*sys.argv[1:])
