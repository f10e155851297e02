"""`mmae mock`: draw objects, and write them in the layouts of the real surveys."""

import collections
import contextlib
import dataclasses
import functools
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from astropy.table import Table, vstack
from rich.progress import track

from catalogs import atomic, hdf5_stream
from catalogs.cpus import cpus
from catalogs.errors import UsageError
from catalogs.mock.cameras import HSC, Camera, Survey, camera_of
from catalogs.mock.instruments import PIXELS, WAVE
from catalogs.mock.objects import ARTEFACTS, TILE, TRAINING, Objects, draw
from catalogs.mock.workers import workers
from catalogs.ranges import SEEDS, check_range
from catalogs.store import cutouts
from catalogs.store.format import CHUNK, OPTIONAL, REQUIRED, SIZE, beside, manifest_path
from catalogs.store.format import COLUMNS as EXTRA
from catalogs.surveys.galaxiesml import FLUX, IVAR, REDSHIFT, SPECTYPE, TARGETID
from catalogs.surveys.galaxiesml import WAVE as WAVE_PATH

SURVEY = "mock"
NAMES: dict[Survey, tuple[str, str]] = {
    "hsc": ("galaxies.hdf5", "rubin_tile.zarr"),
    "rubin": ("train.zarr", "rubin_tile.zarr"),
    "legacy": ("train.zarr", "legacy_tile.zarr"),
}
"""Training data and tile of each survey."""
PAGE = "preview.png"
COLUMNS = {TRAINING: (*REQUIRED, "flux", "ivar", "redshift"), TILE: REQUIRED}
"""Columns of the store of each stream."""
MAX_OBJECTS, MAX_PROCESSES = 10**9, 1024
BLOCK = 32
"""Objects drawn at once by one process, 4.6 MB of pixels and spectra."""
AHEAD = 2
"""Blocks submitted ahead for each process; bounds the memory."""

UNFINISHED = ".mock.unfinished"
"""File in a folder that names the files of a run that has not ended."""


@dataclasses.dataclass(frozen=True)
class Mock:
    """Write a mock survey: training pairs (image, spectrum, redshift), and a tile of images to infer on.

    OUT/galaxies.hdf5 has the layout of GalaxiesML-Spectra, which takes HSC's bands alone: of another survey,
    the pairs are a training store, OUT/train.zarr. OUT/rubin_tile.zarr is a cutout store, and so is
    OUT/legacy_tile.zarr of the Legacy Surveys. Beside each is a table of the truth (redshift, class,
    magnitudes, size, artefact) to score results with, such as OUT/galaxies.truth.fits. The same seed gives
    the same objects for any number of processes, and the same galaxies, not neighbours, in every survey;
    larger --galaxies or --tile add objects to them. Killed, the command starts over. A training pair takes
    0.17 MB of disk, a tile object 0.08 MB.
    """

    out: tyro.conf.Positional[Path]
    """Folder to write to; created if necessary."""
    survey: Survey = "hsc"
    """HSC-SSP Wide (g r i z y, at zero point 27), Rubin (u g r i z y, nJy), or the Legacy Surveys' south, of
    DECam (g r z, nanomaggies). Tiles of the latter two have edges, and stars among their objects, the dust
    of the Galaxy is before these, and of each is said what its noise, seeing and reddening are."""
    years: Literal[1, 10] = 10
    """Years of Rubin's survey in its coadds."""
    galaxies: int = 2000
    """Number of training pairs."""
    tile: int = 1000
    """Number of objects in the tile."""
    seed: int = 1
    """Random seed of the survey: any integer from 0."""
    artefacts: float = ARTEFACTS
    """Share of images with a bleed trail, a missing band, a patch of NaN or a saturated neighbour."""
    missing_bands: float = 0.0
    """Share of the bands of objects that were not observed: NaN throughout. Every object has one."""
    stars: float | None = None
    """Share of the objects that are stars, of training pairs and of the tile alike: a model trained on such
    pairs tells them apart. By default there are none but 3 % in the tiles of Rubin and Legacy."""
    shard_rows: int = 4096
    """Rows per shard of a store, a multiple of 64; a shard of the tile is one unit of inference."""
    processes: int = dataclasses.field(default_factory=cpus)
    """Processes that draw objects; by default one per core."""
    preview: bool = False
    """Also draw a page of the first training pairs, OUT/preview.png: cutouts and spectra beside the truth."""

    @property
    def camera(self) -> Camera:
        return camera_of(self.survey, self.years)


def main(config: Mock) -> None:
    """Write the files, anew where an earlier run was killed; UsageError creates nothing."""
    training, tile = (config.out / name for name in NAMES[config.survey])
    truths, page = [_truth_path(path) for path in (training, tile)], config.out / PAGE
    files = (*_files(training), *_files(tile), *([page] if config.preview else ()))
    _check(config, files)
    with _unfinished(config.out, files), workers(config.processes) as pool:
        if config.survey == "hsc":
            pairs = draw_blocks(pool, config, TRAINING, 0, config.galaxies, "training pairs")
            _write_table(truths[0], write_galaxies(training, config.galaxies, pairs))
        else:
            _write_table(truths[0], write_store(training, config, pool, TRAINING))
        _write_table(truths[1], write_store(tile, config, pool, TILE))
        if config.preview:
            from catalogs.mock import preview  # not needed by the workers

            first = drawing(config, TRAINING)(range(min(config.galaxies, preview.ROWS)))
            preview.draw_page(first, config.camera, page)
    print(f"{training}: {config.galaxies} training pairs")
    print(f"{tile}: {config.tile} objects to infer on")
    print(f"{truths[0]}, {truths[1]}: the truth about them")
    if config.preview:
        print(f"{page}: the first of the training pairs")


@contextlib.contextmanager
def _unfinished(folder: Path, files: Iterable[Path]) -> Iterator[None]:
    """Mark files of the folder as unfinished while they are written; remove what an earlier run left so.

    Raises UsageError where that run is still alive.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(atomic.owned(folder))
        except BlockingIOError:
            raise UsageError(f"{folder} is being written by another process: choose another folder") from None
        for file in _left(folder):
            for left in (file, beside(file, atomic.TEMPORARY), *folder.glob(f".{file.name}.*")):
                shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
        mark = folder / UNFINISHED
        mark.write_text("\n".join(file.name for file in files))
        yield
        mark.unlink()


def _left(folder: Path) -> list[Path]:
    """Files of a run that has not ended, which may have been written or not."""
    mark = folder / UNFINISHED
    marked = mark.read_text(errors="replace").splitlines() if mark.exists() else []
    ours = {PAGE, *(file.name for names in NAMES.values() for name in names for file in _files(Path(name)))}
    return [folder / name for name in marked if name in ours]


def _files(path: Path) -> tuple[Path, ...]:
    """What is written of training data or of a tile: the store's manifest, the data, the truth."""
    return manifest_path(path), path, _truth_path(path)


def _truth_path(path: Path) -> Path:
    return path.with_suffix(".truth.fits")


def _check(config: Mock, files: Iterable[Path]) -> None:
    for name in ("galaxies", "tile"):
        check_range(f"--{name}", getattr(config, name), 1, MAX_OBJECTS)
    check_range("--processes", config.processes, 1, MAX_PROCESSES)
    check_range("--seed", config.seed, *SEEDS)
    check_range("--artefacts", config.artefacts, 0, 1)
    check_range("--missing-bands", config.missing_bands, 0, 1)
    check_range("--stars", config.stars or 0, 0, 1)
    if config.years != 10 and config.survey != "rubin":
        raise UsageError("--years is of Rubin's coadds: pass --survey rubin too, or leave it out")
    if config.shard_rows < 1 or config.shard_rows % CHUNK:
        raise UsageError(f"--shard-rows must be a multiple of {CHUNK}, got {config.shard_rows}")
    for path in (config.out, *config.out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: name a folder to write to")
    left = _left(config.out)
    for file in files:
        if file.exists() and file not in left:
            raise UsageError(f"{file} exists already: remove it, or choose another folder")


def drawing(config: Mock, stream: int) -> Callable[[Iterable[int]], Objects]:
    """`draw` for objects of a stream, by number."""
    return functools.partial(
        draw,
        config.seed,
        stream,
        artefacts=config.artefacts,
        camera=config.camera,
        missing_bands=config.missing_bands,
        stars=config.stars,
    )


def draw_blocks(
    pool: ProcessPoolExecutor, config: Mock, stream: int, start: int, stop: int, description: str
) -> Iterator[Objects]:
    """Draw objects start:stop in their order, block by block, with a progress bar."""
    pending: collections.deque[Future[Objects]] = collections.deque()
    ranges = iter([range(first, min(first + BLOCK, stop)) for first in range(start, stop, BLOCK)])
    for _ in track(range(start, stop, BLOCK), description):
        while len(pending) < AHEAD * config.processes and (indices := next(ranges, None)):
            pending.append(pool.submit(drawing(config, stream), indices))
        yield pending.popleft().result()


def write_galaxies(path: Path, count: int, blocks: Iterable[Objects]) -> Table:
    """Write `count` training pairs of HSC in the layout of GalaxiesML-Spectra; return their truth table."""
    truths = []
    with atomic.replacing(path) as temporary, hdf5_stream.create(temporary) as (file, check):
        image = file.create_dataset("image", (count, len(HSC.bands), SIZE, SIZE), np.float32)
        flux = file.create_dataset(FLUX, (count, PIXELS), np.float32)
        ivar = file.create_dataset(IVAR, (count, PIXELS), np.float32)
        wave = file.create_dataset(WAVE_PATH, (count, PIXELS), np.float32)
        redshift = file.create_dataset(REDSHIFT, (count,), np.float64)
        magnitudes = [file.create_dataset(name, (count,), np.float32) for name in HSC.cmodel_names]
        file.attrs["survey"] = SURVEY
        targetid = file.create_dataset(TARGETID, (count,), "S17")
        spectype = file.create_dataset(SPECTYPE, (count,), "S6")
        start = 0
        for objects in blocks:
            rows = slice(start, start := start + len(objects.redshift))
            image[rows], flux[rows], ivar[rows], wave[rows] = objects.image, objects.flux, objects.ivar, WAVE
            redshift[rows] = objects.redshift
            for dataset, values in zip(magnitudes, objects.cmodel.T, strict=True):
                dataset[rows] = values
            targetid[rows] = objects.object_id.astype("S17")
            spectype[rows] = objects.kind.astype("S6")
            truths.append(objects.truth(HSC.bands))
            check()
    return vstack(truths)


def write_store(path: Path, config: Mock, pool: ProcessPoolExecutor, stream: int) -> Table:
    """Write the objects of a stream as a cutout store, with spectra if they are for training.

    Returns their truth table.
    """
    camera = config.camera
    known = OPTIONAL if camera.tells else ()
    if stream == TRAINING:
        known = (*known, "spectype")
    columns, paths = (*COLUMNS[stream], *known), [f"{EXTRA}/{name}" for name in camera.cmodel_names]
    count, what = (config.galaxies, "training pairs") if stream == TRAINING else (config.tile, "tile objects")
    truths: list[Table] = []

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        parts = []  # without the spectra of a tile, which would double the memory of a shard
        for objects in draw_blocks(pool, config, stream, start, stop, f"{what} {start} to {stop - 1}"):
            truths.append(objects.truth(camera.bands))
            parts.append([*(getattr(objects, name) for name in columns), *objects.cmodel.T])
        return dict(zip((*columns, *paths), map(np.concatenate, zip(*parts, strict=True)), strict=True))

    cutouts.write(
        path,
        rows,
        n=count,
        survey=SURVEY,
        bands=camera.bands,
        pixel_scale=camera.pixel_scale,
        zero_point=camera.zero_point,
        wave=WAVE if stream == TRAINING else None,
        known=known,
        extra=camera.cmodel_names,
        shard_rows=config.shard_rows,
    )
    return vstack(truths)


def _write_table(path: Path, table: Table) -> None:
    with atomic.replacing(path) as temporary:
        table.write(temporary, format="fits")
