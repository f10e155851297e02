"""`mmae mock`: draw objects, observe them, write what the surveys would hand in."""

import collections
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from astropy.table import Table, vstack
from rich.progress import track

from catalogs import atomic, hdf5_stream
from catalogs.errors import UsageError
from catalogs.mock.image import observe_image, transforms
from catalogs.mock.instruments import PIXELS, WAVE
from catalogs.mock.population import draw_target
from catalogs.mock.spectrum import fibre_spectrum, observe_spectrum
from catalogs.store import cutouts
from catalogs.store.format import BANDS, CHUNK, REQUIRED, SIZE, manifest_path
from catalogs.surveys.galaxiesml import FLUX, IVAR, REDSHIFT, TARGETID
from catalogs.surveys.galaxiesml import WAVE as WAVE_PATH

# --- Observations ------------------------------------------------------------------------------------------

TRAINING, TILE = 0, 1
"""Streams: what the model learns from, and the field it is applied to."""
FIRST_ID = (39_627_000_000_000_000, 43_000_000_000_000_000)
FIELD_CENTRE, FIELD_SIDE = (150.1, 2.2), 0.5  # deg; COSMOS
ARTEFACTS = 0.015


@dataclasses.dataclass(frozen=True)
class Objects:
    """What the surveys hand in, and the truth behind it; one row an object."""

    object_id: np.ndarray
    """(N,) int64"""
    ra: np.ndarray
    """(N,) float64, deg"""
    dec: np.ndarray
    """(N,) float64, deg"""
    redshift: np.ndarray
    """(N,) float64, true"""
    kind: np.ndarray
    """(N,) str, GALAXY or QSO"""
    magnitudes: np.ndarray
    """(N, 5) float64, true total AB magnitudes g r i z y"""
    radius: np.ndarray
    """(N,) float64, true half-light semi-major axis before the PSF, arcsec; 0 for a point"""
    artefact: np.ndarray
    """(N,) int, an `image.Artefact`"""
    image: np.ndarray
    """(N, 5, 64, 64) float32, zero point 27.0"""
    flux: np.ndarray
    """(N, 7783) float32, 1e-17 erg/s/cm2/A"""
    ivar: np.ndarray
    """(N, 7783) float32, inverse variance of `flux`; 0 marks a lost pixel"""

    def truth(self) -> Table:
        """Table of what is to be found out: (N,) rows."""
        table = Table({"OBJECT_ID": self.object_id, "Z_SPEC": self.redshift, "SPECTYPE": self.kind})
        for band, magnitude in zip(BANDS, self.magnitudes.T, strict=True):
            table[f"MAG_{band.upper()}"] = magnitude.astype(np.float32)
        table["RADIUS"], table["ARTEFACT"] = self.radius.astype(np.float32), self.artefact.astype(np.int16)
        return table


def _observe(seed: int, stream: int, index: int, artefacts: float) -> dict[str, Any]:
    """One row of Objects. It depends on nothing but its own number: each object has its own generator."""
    rng = np.random.default_rng([seed, stream, index])
    source = draw_target(rng)
    dec = FIELD_CENTRE[1] + FIELD_SIDE * rng.uniform(-0.5, 0.5)
    ra = FIELD_CENTRE[0] + FIELD_SIDE * rng.uniform(-0.5, 0.5) / np.cos(np.radians(dec))
    shape = transforms(source, rng)
    flux, ivar = observe_spectrum(rng, fibre_spectrum(source, shape))
    image, artefact = observe_image(rng, source, shape, artefacts)
    return {
        "object_id": np.int64(FIRST_ID[stream] + index),
        "ra": ra,
        "dec": dec,
        "redshift": source.redshift,
        "kind": source.kind,
        "magnitudes": source.magnitudes,
        "radius": source.radius,
        "artefact": artefact,
        "image": image,
        "flux": flux,
        "ivar": ivar,
    }


def draw(seed: int, stream: int, indices: Iterable[int], artefacts: float = ARTEFACTS) -> Objects:
    """Objects of the given numbers; object k is the same, bit for bit, whichever others are drawn."""
    rows = [_observe(seed, stream, index, artefacts) for index in indices]
    return Objects(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})


# --- Many at once ------------------------------------------------------------------------------------------

BLOCK = 32
"""Objects made at once by one process, 4.6 MB of pixels and spectra."""
AHEAD = 2
"""Blocks in the making for each process; bounds the memory."""


def follow_parent() -> None:
    """In a worker: leave Ctrl-C to the parent, and end when it does, however that happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def workers(count: int) -> Iterator[ProcessPoolExecutor]:
    """Processes of one thread each, which do not share the state of this one."""
    before = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")}
    os.environ.update(dict.fromkeys(before, "1"))  # read when numpy is imported
    pool = ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), follow_parent)
    try:
        yield pool
    except BrokenProcessPool:
        raise OSError("a process that draws objects was killed: with too little memory, use fewer") from None
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def drawn(
    pool: ProcessPoolExecutor, config: "Mock", stream: int, start: int, stop: int, what: str
) -> Iterator[Objects]:
    """Objects start:stop in their order, a block at a time, with a progress bar."""
    waiting: collections.deque[Future[Objects]] = collections.deque()
    ranges = iter([range(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)])
    for _ in track(range(start, stop, BLOCK), what):
        while len(waiting) < AHEAD * config.processes and (indices := next(ranges, None)):
            waiting.append(pool.submit(draw, config.seed, stream, indices, config.artefacts))
        yield waiting.popleft().result()


# --- Files -------------------------------------------------------------------------------------------------

SURVEY = "mock"


@dataclasses.dataclass(frozen=True)
class Mock:
    """Write a mock survey: training pairs (image, spectrum, redshift), and a tile of images to infer on.

    OUT/galaxies.hdf5 has the layout of GalaxiesML-Spectra, OUT/rubin_tile.zarr is a cutout store. Beside each
    stands a table of the truth (redshift, class, magnitudes, size, artefact) to score results with:
    OUT/galaxies.truth.fits and OUT/rubin_tile.truth.fits. The same seed gives the same objects, however many
    processes make them; a larger number adds objects to them. A training pair takes 0.17 MB of disk, a tile
    object 0.08 MB.
    """

    out: tyro.conf.Positional[Path]
    """Folder to write to; created if need be."""
    galaxies: int = 2000
    """Number of training pairs."""
    tile: int = 1000
    """Number of objects in the tile."""
    seed: int = 1
    """Which universe: any integer from 0."""
    artefacts: float = ARTEFACTS
    """Share of images with a bleed trail, a missing band, a patch of NaN or a saturated neighbour."""
    shard_rows: int = 4096
    """Rows a shard of the tile, a multiple of 64; inference takes whole shards."""
    processes: int = dataclasses.field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Processes that draw objects; by default one a core."""
    preview: bool = False
    """Also draw a page of the first training pairs, OUT/preview.png: cutouts and spectra beside the truth."""


def main(config: Mock) -> None:
    """Write the files; nothing is created when UsageError is raised."""
    galaxies, tile = config.out / "galaxies.hdf5", config.out / "rubin_tile.zarr"
    truths = [path.with_suffix(".truth.fits") for path in (galaxies, tile)]
    page = config.out / "preview.png"
    _check(config, (galaxies, manifest_path(tile), tile, *truths, *([page] if config.preview else ())))
    config.out.mkdir(parents=True, exist_ok=True)
    with workers(config.processes) as pool:
        pairs = drawn(pool, config, TRAINING, 0, config.galaxies, "training pairs")
        _write_table(truths[0], write_galaxies(galaxies, config.galaxies, pairs))
        _write_table(truths[1], write_tile(tile, config, pool))
    print(f"{galaxies}: {config.galaxies} training pairs")
    print(f"{tile}: {config.tile} objects to infer on")
    print(f"{truths[0]}, {truths[1]}: the truth about them")
    if config.preview:
        from catalogs.mock import preview  # here: the workers can do without matplotlib

        shown = draw(config.seed, TRAINING, range(min(config.galaxies, preview.ROWS)), config.artefacts)
        preview.draw_page(shown, page)
        print(f"{page}: the first of the training pairs")


def _check(config: Mock, files: Iterable[Path]) -> None:
    for name in ("galaxies", "tile", "processes"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(config, name)}")
    if config.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {config.seed}")
    if not 0 <= config.artefacts <= 1:
        raise UsageError(f"--artefacts must be between 0 and 1, got {config.artefacts}")
    if config.shard_rows < 1 or config.shard_rows % CHUNK:
        raise UsageError(f"--shard-rows must be a multiple of {CHUNK}, got {config.shard_rows}")
    for path in (config.out, *config.out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: name a folder to write to")
    for file in files:
        if file.exists():
            raise UsageError(f"{file} exists already: remove it, or choose another folder")


def write_galaxies(path: Path, count: int, blocks: Iterable[Objects]) -> Table:
    """Write `count` training pairs in the HDF5 layout of GalaxiesML-Spectra; gives the truth about them."""
    truths = []
    with atomic.replacing(path) as temporary, hdf5_stream.create(temporary) as (file, check):
        image = file.create_dataset("image", (count, len(BANDS), SIZE, SIZE), np.float32)
        flux = file.create_dataset(FLUX, (count, PIXELS), np.float32)
        ivar = file.create_dataset(IVAR, (count, PIXELS), np.float32)
        wave = file.create_dataset(WAVE_PATH, (count, PIXELS), np.float32)
        redshift = file.create_dataset(REDSHIFT, (count,), np.float64)
        file.attrs["survey"] = SURVEY
        targetid = file.create_dataset(TARGETID, (count,), "S17")
        start = 0
        for objects in blocks:
            rows = slice(start, start := start + len(objects.redshift))
            image[rows], flux[rows], ivar[rows], wave[rows] = objects.image, objects.flux, objects.ivar, WAVE
            redshift[rows] = objects.redshift
            targetid[rows] = objects.object_id.astype("S17")
            truths.append(objects.truth())
            check()
    return vstack(truths)


def write_tile(path: Path, config: Mock, pool: ProcessPoolExecutor) -> Table:
    """Write the tile as a cutout store; gives the truth about it."""
    truths: list[Table] = []

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        parts = []  # without the spectra, which would double the memory of a shard
        for objects in drawn(pool, config, TILE, start, stop, f"tile objects {start} to {stop - 1}"):
            truths.append(objects.truth())
            parts.append([getattr(objects, name) for name in REQUIRED])
        return dict(zip(REQUIRED, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    cutouts.write(path, rows, n=config.tile, survey=SURVEY, shard_rows=config.shard_rows)
    return vstack(truths)


def _write_table(path: Path, table: Table) -> None:
    with atomic.replacing(path) as temporary:
        table.write(temporary, format="fits")
