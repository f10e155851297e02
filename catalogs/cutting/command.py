"""Coadds and an object table, or cutouts in files -> cutout store: `mmae cutouts`."""

import contextlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import track
from tyro.conf import Positional

from catalogs.bands import TABLE
from catalogs.cutting import coadds, files, patterns, sets
from catalogs.cutting.objects import Objects, Selection, read_objects
from catalogs.cutting.rejects import Rejects, rejects_path, write_rejects
from catalogs.cutting.sets import MaskTrue
from catalogs.cutting.source import Source, Wanted
from catalogs.errors import InputRefused, UsageError
from catalogs.output import check_output
from catalogs.ranges import check_range
from catalogs.store import cutouts
from catalogs.store.format import COLUMNS, SHARD, SIZE, ImageMetadata, manifest_path
from catalogs.store.shard_writer import SerialComm
from catalogs.tables import formats

MAX_SIZE = 1024
"""Pixels on a side of a stamp: a shard of 64 of them in six bands is 1.6 GB."""


@dataclass(frozen=True)
class Cutouts:
    """Make a cutout store of what surveys hand out: coadds and a table of objects, or cutouts in FITS files.

    Coadds: stamps of --size pixels are cut about each object of the table, NaN beyond the edge.

      mmae cutouts objects.csv tile.zarr --coadds 'calexp-{band}-*.fits' --bands HSC-G HSC-R HSC-I HSC-Z HSC-Y

    In the pattern, {band} is each of --bands and * any text; the files that have the same in place of * are a
    patch, and of several patches an object takes that in which it lies deepest. Cutouts: the name of each
    file is made of columns of the table.

      mmae cutouts objects.csv tile.zarr --files 'stamps/{object_id}_{band}.fits' --bands g r z --survey decam

    A table with a row an object and band (Hyrax's manifest.fits: object_id, filter, filename) names each file
    itself: --files 'cutouts/{filename_{band}}'. Without {band} a file holds all bands: in HDUs named by them,
    or as the planes of a cube. Variances and masks are taken where they stand in the same file (HSC, Rubin:
    IMAGE MASK VARIANCE), or from --variance, --ivar, --mask. Zero point and pixel scale are those of the
    headers (FLUXMAG0, MAGZERO, PHOTZP, MAGZPT, BUNIT; WCS), or of the flags. gzip and fpack are read. A set
    of the Multimodal Universe (HDF5, or Parquet as in HATS) is taken with its spectra and redshifts, where it
    has them.

      mmae cutouts legacysurvey/ tile.zarr --zero-point 22.5 --mask-true good --id row

    So are the batches of Cutana (batch_*/images.zarr), if they were made without stretching.

    What becomes no row is listed in OUTPUT.rejects.ecsv, with its reason. After a crash, run it again:
    finished shards are kept if the input is unchanged.

    In parallel, with the same bytes: mpirun -n 8 python -m mpi4py -m jobs.cutouts OBJECTS OUTPUT ...
    """

    objects: Positional[Path]
    """Table of objects: .csv, .ecsv, .fits, .parquet, .vot; .gz may follow. Or a folder of sets."""
    output: Positional[Path]
    """Store to write, usually NAME.zarr."""
    coadds: str = ""
    """Pattern of the names of coadds, in quotes."""
    files: str = ""
    """Pattern of the names of cutouts, in quotes: {COLUMN} of the table, {object_id}, {row} (from 0), {band};
    {object_id:06d} has zeros in front; * is any text, where one file alone has such a name."""
    bands: tuple[str, ...] = ()
    """Names of the bands as the files have them, in the order that the store, or a cube, has."""
    survey: str = ""
    """Survey that bare bands (g, r) are of, such as hsc, rubin, decam; written into the store."""
    size: int = SIZE
    """Pixels on a side of a stamp."""
    variance: str = ""
    """Pattern of files with variances beside the images."""
    ivar: str = ""
    """Pattern of files with inverse variances beside the images (Legacy Surveys: invvar)."""
    mask: str = ""
    """Pattern of files with masks beside the images; one without {band} is of all bands."""
    bad_planes: tuple[str, ...] = ("BAD", "SAT", "CR", "NO_DATA")
    """Planes of a mask that make a pixel bad: names (cards MP_NAME), or numbers of bits (0 the lowest),
    `any` or `none`. NO_DATA of a band is NaN in that band, the others are bad in all."""
    mask_true: MaskTrue = ""
    """Of a set of the Multimodal Universe: whether a pixel is good or bad where its mask is True, or masks
    stay unused."""
    zero_point: float | None = None
    """AB magnitude of flux 1, where the headers do not say (nJy have 31.4, nanomaggies 22.5)."""
    pixel_scale: float | None = None
    """arcsec a pixel, where the headers do not say."""
    id: str = ""
    """Column of the ids, integers; `row` numbers the rows. This column and those below have usual names, by
    which they are found; what was taken is said."""
    ra: str = ""
    """Column of right ascension, degrees, ICRS."""
    dec: str = ""
    """Column of declination."""
    redshift: str = ""
    """Column of redshifts; the store becomes one to train on. With it go SPECTYPE or class (STAR, GALAXY,
    QSO), and redshift_weight, the probability that the redshift is right."""
    ebv: str = ""
    """Column of E(B - V) of the Galaxy, mag."""
    psf_fwhm: str = ""
    """Columns of the FWHM of the seeing, arcsec, as psfsize_{band}; else PSF_FWHM or SEEING of headers."""
    columns: tuple[str, ...] = ()
    """Further columns of numbers that go along, as columns/NAME of the store."""
    where: str = ""
    """Cut of the objects by columns of their table, in quotes, such as "detect_isPrimary and i_mag < 25"; one
    whose value is absent is not kept."""
    shard_rows: int = SHARD
    """Rows per shard, a multiple of 64: a shard is written by one rank, and is one unit of inference."""
    float16: bool = False
    """Keep pixels in half of the bytes, rounded by a thousandth of the noise of the sky; refused where one is
    beyond 65504, or the sky too near to 0 for that."""

    def __post_init__(self) -> None:
        if self.coadds and self.files:
            raise UsageError(
                "say either of what coadds to cut, --coadds PATTERN, or which --files PATTERN to take"
            )
        if self.sides and not (self.coadds or self.files):
            raise UsageError(f"{min(self.sides)} is of files beside images: pass --coadds or --files, too")
        if self.mask_true and (self.coadds or self.files):
            raise UsageError("--mask-true is of sets: of coadds and files, --bad-planes says what is bad")
        if not self.bands and (self.coadds or self.files):
            raise UsageError(
                "name the bands, --bands, as the files call them and in the order the store shall have"
            )
        names = self.wanted.names
        if len(set(names)) < len(names):
            raise UsageError(f"--bands {' '.join(self.bands)} name one band twice")
        if named := [name for name in self.columns if "/" in name or name.startswith(".")]:
            raise UsageError(f"--columns {named[0]} is no name of an array: rename the column")
        check_range("--size", self.size, 8, MAX_SIZE)
        ImageMetadata((), self.pixel_scale, self.zero_point)

    @property
    def wanted(self) -> Wanted:
        return Wanted(self.bands, self.survey, self.size, self.zero_point, self.pixel_scale, self.bad_planes)

    @property
    def sides(self) -> dict[str, str]:
        """Flags of patterns of files beside the images -> the patterns."""
        given = {"--variance": self.variance, "--ivar": self.ivar, "--mask": self.mask}
        return {flag: pattern for flag, pattern in given.items() if pattern}


def main(config: Cutouts, comm: Any = None) -> None:
    """Cut with one process, or with every rank of an MPI communicator."""
    comm = comm or SerialComm()
    first = comm.Get_rank() == 0

    def progress(items: Sequence[Any], what: str) -> Iterable[Any]:
        return track(items, what) if first and items else items

    check_output(config.output)
    if config.output.exists():
        raise UsageError(f"{config.output} exists already: remove it, or choose another name")
    source, objects = _source(config, comm, progress)
    with contextlib.closing(source):
        if first:
            write_rejects(config.output, objects, source.rejects)
        if not len(source.objects):
            raise InputRefused(
                f"none of the {len(objects):,} objects can be cut: {source.rejects.said()}; see "
                f"{rejects_path(config.output)}, which begins with {_first(objects, source.rejects)}"
            )
        write(config, source, comm, progress)
    if first:
        _report(config, source)


def _first(objects: Objects, rejects: Rejects) -> str:
    row, detail = rejects.rows[0], rejects.details[0]
    position = f"{objects.ra[row]:.4f} {objects.dec[row]:+.4f}"
    return f"{objects.object_id[row]} at {position}" + (f": {detail}" if detail else "")


def _source(config: Cutouts, comm: Any, progress: Any) -> tuple[Source, Objects]:
    """Where stamps come from, and all objects, among them those that will become no row."""
    given = ("id", "ra", "dec", "redshift", "ebv", "psf_fwhm", "bands", "columns", "where")
    texts = patterns.fields([config.files, *config.sides.values()], config.bands) if config.files else ()
    chosen = Selection(**{name: getattr(config, name) for name in given}, texts=texts)
    wanted, sides = config.wanted, config.sides
    if not config.coadds and not config.files:
        if config.objects.is_file() and config.objects.suffix not in sets.ENDINGS:
            raise UsageError("say what coadds to cut, --coadds PATTERN, or which --files PATTERN to take")
        source, objects = sets.open_set(config.objects, wanted, chosen, config.mask_true, comm, progress)
        _say(config, objects, comm)
        return source, objects
    with formats.opened(config.objects) as table:
        objects = read_objects(table, chosen, needs_positions=bool(config.coadds))
    _say(config, objects, comm)
    if config.files:
        return files.open_files(wanted, objects, config.files, sides, comm, progress), objects
    return coadds.open_coadds(wanted, objects, config.coadds, sides, comm, progress), objects


def _say(config: Cutouts, objects: Objects, comm: Any) -> None:
    """Say which columns were taken for what."""
    if comm.Get_rank() == 0:
        left = " left by --where" if config.where else ""
        print(f"{config.objects}: {len(objects):,} objects{left}; {objects.said()}", flush=True)


def write(config: Cutouts, source: Source, comm: Any, progress: Any) -> None:
    """Write the store; see `cutouts.write` on what it raises."""
    objects = source.objects
    table = {"object_id": objects.object_id, "ra": objects.ra, "dec": objects.dec} | objects.known
    table |= {f"{COLUMNS}/{name}": values for name, values in objects.columns.items()}
    told = tuple(name for name in source.known if name not in objects.known)
    if source.wave is not None:
        table.setdefault("redshift", np.full(len(objects), np.nan))
    cut = ("image", *told, *(("flux", "ivar") if source.wave is not None else ()))

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        stamps = source.cut(start, stop)
        own = {name: values[start:stop] for name, values in table.items()}
        return own | {name: getattr(stamps, name) for name in cut}

    cutouts.write(
        config.output,
        rows,
        n=len(objects),
        survey=config.survey or _survey(source.wanted.names),
        bands=source.wanted.names,
        pixel_scale=source.pixel_scale,
        zero_point=source.zero_point,
        size=config.size,
        wave=source.wave,
        known=(*objects.known, *told),
        extra=tuple(objects.columns),
        float16=config.float16,
        shard_rows=config.shard_rows,
        source=source.fingerprint,
        comm=comm,
        progress=progress,
    )


def _survey(bands: Sequence[str]) -> str:
    """The survey that all bands are of by their names; "" where these do not say, or of several."""
    surveys = {TABLE[band].survey if band in TABLE else "" for band in bands}
    return surveys.pop() if len(surveys) == 1 else ""


def _report(config: Cutouts, source: Source) -> None:
    spectra = ("spectra",) if source.wave is not None else ()
    known = ", ".join(
        dict.fromkeys((*spectra, *source.known, *source.objects.known, *source.objects.columns))
    )
    print(
        f"wrote {config.output}: {len(source.objects):,} objects, {config.size} pixels of "
        f"{source.pixel_scale:g} arcsec, zero point {source.zero_point:g}"
        + (f"; with {known}" if known else "")
    )
    print(f"wrote {manifest_path(config.output)}: sha256 of every shard")
    if source.rejects.rows:
        print(f"wrote {rejects_path(config.output)}: {source.rejects.said()}")
