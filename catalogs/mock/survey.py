"""`mmae mock`: draw objects, and write them in the layouts of the real surveys."""

import collections
import contextlib
import dataclasses
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path

import numpy as np
import tyro
from astropy.table import Table, vstack
from rich.progress import track

from catalogs import atomic, hdf5_stream
from catalogs.cpus import cpus
from catalogs.errors import UsageError
from catalogs.mock.cameras import HSC
from catalogs.mock.instruments import PIXELS, WAVE
from catalogs.mock.objects import ARTEFACTS, TILE, TRAINING, Objects, draw
from catalogs.mock.workers import workers
from catalogs.ranges import SEEDS, check_range
from catalogs.store import cutouts
from catalogs.store.format import CHUNK, REQUIRED, SIZE, manifest_path
from catalogs.surveys.galaxiesml import FLUX, IVAR, REDSHIFT, TARGETID
from catalogs.surveys.galaxiesml import WAVE as WAVE_PATH

SURVEY = "mock"
MAX_OBJECTS, MAX_PROCESSES = 10**9, 1024
BLOCK = 32
"""Objects drawn at once by one process, 4.6 MB of pixels and spectra."""
AHEAD = 2
"""Blocks submitted ahead for each process; bounds the memory."""

UNFINISHED = ".mock.unfinished"
"""File in a folder whose files are those of a run that has not ended."""


@dataclasses.dataclass(frozen=True)
class Mock:
    """Write a mock survey: training pairs (image, spectrum, redshift), and a tile of images to infer on.

    OUT/galaxies.hdf5 has the layout of GalaxiesML-Spectra, OUT/rubin_tile.zarr is a cutout store. Beside each
    is a table of the truth (redshift, class, magnitudes, size, artefact) to score results with:
    OUT/galaxies.truth.fits and OUT/rubin_tile.truth.fits. The same seed gives the same objects for any number
    of processes; larger --galaxies or --tile add objects to them. Killed, the command starts over. A training
    pair takes 0.17 MB of disk, a tile object 0.08 MB.
    """

    out: tyro.conf.Positional[Path]
    """Folder to write to; created if necessary."""
    galaxies: int = 2000
    """Number of training pairs."""
    tile: int = 1000
    """Number of objects in the tile."""
    seed: int = 1
    """Random seed of the survey: any integer from 0."""
    artefacts: float = ARTEFACTS
    """Share of images with a bleed trail, a missing band, a patch of NaN or a saturated neighbour."""
    shard_rows: int = 4096
    """Rows per shard of the tile, a multiple of 64; a shard is one unit of inference."""
    processes: int = dataclasses.field(default_factory=cpus)
    """Processes that draw objects; by default one per core."""
    preview: bool = False
    """Also draw a page of the first training pairs, OUT/preview.png: cutouts and spectra beside the truth."""


def main(config: Mock) -> None:
    """Write the files, anew where an earlier run was killed; UsageError creates nothing."""
    galaxies, tile = config.out / "galaxies.hdf5", config.out / "rubin_tile.zarr"
    truths = [path.with_suffix(".truth.fits") for path in (galaxies, tile)]
    page = config.out / "preview.png"
    files = (galaxies, manifest_path(tile), tile, *truths, *([page] if config.preview else ()))
    _check(config, files)
    with _unfinished(config.out, files), workers(config.processes) as pool:
        pairs = draw_blocks(pool, config, TRAINING, 0, config.galaxies, "training pairs")
        _write_table(truths[0], write_galaxies(galaxies, config.galaxies, pairs))
        _write_table(truths[1], write_tile(tile, config, pool))
        if config.preview:
            from catalogs.mock import preview  # not needed by the workers

            first = draw(config.seed, TRAINING, range(min(config.galaxies, preview.ROWS)), config.artefacts)
            preview.draw_page(first, page)
    print(f"{galaxies}: {config.galaxies} training pairs")
    print(f"{tile}: {config.tile} objects to infer on")
    print(f"{truths[0]}, {truths[1]}: the truth about them")
    if config.preview:
        print(f"{page}: the first of the training pairs")


@contextlib.contextmanager
def _unfinished(folder: Path, files: Iterable[Path]) -> Iterator[None]:
    """Mark the folder as unfinished while it is written; remove what an earlier run left so.

    Raises UsageError where that run is still alive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / UNFINISHED
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(atomic.owned(folder))
        except BlockingIOError:
            raise UsageError(f"{folder} is being written by another process: choose another folder") from None
        if mark.exists():
            for left in (*files, *(orphan for file in files for orphan in folder.glob(f".{file.name}.*"))):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        mark.touch()
        yield
        mark.unlink()


def _check(config: Mock, files: Iterable[Path]) -> None:
    for name in ("galaxies", "tile"):
        check_range(f"--{name}", getattr(config, name), 1, MAX_OBJECTS)
    check_range("--processes", config.processes, 1, MAX_PROCESSES)
    check_range("--seed", config.seed, *SEEDS)
    check_range("--artefacts", config.artefacts, 0, 1)
    if config.shard_rows < 1 or config.shard_rows % CHUNK:
        raise UsageError(f"--shard-rows must be a multiple of {CHUNK}, got {config.shard_rows}")
    for path in (config.out, *config.out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: name a folder to write to")
    for file in () if (config.out / UNFINISHED).exists() else files:
        if file.exists():
            raise UsageError(f"{file} exists already: remove it, or choose another folder")


def draw_blocks(
    pool: ProcessPoolExecutor, config: Mock, stream: int, start: int, stop: int, description: str
) -> Iterator[Objects]:
    """Draw objects start:stop in their order, block by block, with a progress bar."""
    pending: collections.deque[Future[Objects]] = collections.deque()
    ranges = iter([range(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)])
    for _ in track(range(start, stop, BLOCK), description):
        while len(pending) < AHEAD * config.processes and (indices := next(ranges, None)):
            pending.append(pool.submit(draw, config.seed, stream, indices, config.artefacts))
        yield pending.popleft().result()


def write_galaxies(path: Path, count: int, blocks: Iterable[Objects]) -> Table:
    """Write `count` training pairs in the HDF5 layout of GalaxiesML-Spectra; return their truth table."""
    truths = []
    with atomic.replacing(path) as temporary, hdf5_stream.create(temporary) as (file, check):
        image = file.create_dataset("image", (count, len(HSC.bands), SIZE, SIZE), np.float32)
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
            truths.append(objects.truth(HSC.bands))
            check()
    return vstack(truths)


def write_tile(path: Path, config: Mock, pool: ProcessPoolExecutor) -> Table:
    """Write the tile as a cutout store; return its truth table."""
    truths: list[Table] = []

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        parts = []  # without the spectra, which would double the memory of a shard
        for objects in draw_blocks(pool, config, TILE, start, stop, f"tile objects {start} to {stop - 1}"):
            truths.append(objects.truth(HSC.bands))
            parts.append([getattr(objects, name) for name in REQUIRED])
        return dict(zip(REQUIRED, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    cutouts.write(path, rows, n=config.tile, survey=SURVEY, bands=HSC.bands, shard_rows=config.shard_rows)
    return vstack(truths)


def _write_table(path: Path, table: Table) -> None:
    with atomic.replacing(path) as temporary:
        table.write(temporary, format="fits")
