"""Reader of GalaxiesML and GalaxiesML-Spectra HDF5 files, as they were released.

GalaxiesML-Spectra: `image` (N, 5, 64, 64) or (N, 5, 127, 127); `spectrum/flux`, `spectrum/ivar`,
`spectrum/wave` (N, 7783) each; `DESI_fibermap/DESI_redshift` (N,); `targetid` (N,), bytes of a decimal
integer. `mmae crossmatch` adds `DESI_fibermap/SPECTYPE` (N,), bytes: GALAXY, QSO or STAR, and where the
release has it `DESI_fibermap/DELTACHI2` (N,), which becomes the probability that the redshift is right.
GalaxiesML, its parent: `image`, and a 1-D dataset per catalogue column, among them `object_id`, `ra`, `dec`,
and `specz_redshift` of the surveys that HSC collects.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import h5py
import numpy as np

from catalogs import atomic
from catalogs.bands import HSC
from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special
from catalogs.store.checks import MAX_COMPRESSION
from catalogs.store.format import COLUMNS, SIZE, spectype_codes
from catalogs.surveys.hdf5_chunks import check_chunks
from catalogs.surveys.targets import probably_right

FLUX, IVAR, WAVE = "spectrum/flux", "spectrum/ivar", "spectrum/wave"
REDSHIFT, SPECTYPE, TARGETID = "DESI_fibermap/DESI_redshift", "DESI_fibermap/SPECTYPE", "targetid"
DELTACHI2 = "DESI_fibermap/DELTACHI2"
Z_HSC = "specz_redshift"
SURVEY, PIXEL_SCALE, ZERO_POINT = "HSC PDR2", 0.168, 27.0
"""Survey, arcsec a pixel, AB mag of HSC-SSP Wide coadds (Do et al. 2024, GalaxiesML)."""


@dataclass
class GalaxiesML:
    """An open, checked file, used as a context manager."""

    path: Path
    version: tuple[int, int]
    """Size and modification time of the file when it was opened."""
    file: h5py.File = field(repr=False)
    object_id: np.ndarray = field(repr=False)
    """(N,) int64"""
    wave: np.ndarray | None = field(repr=False)
    """(P,) angstrom; None where the file has no spectra"""
    columns: tuple[str, ...] = ()
    """Other datasets of one number an object, that are read, too."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()

    @property
    def survey(self) -> str:
        """Attribute `survey` of the file, or SURVEY for the released files, which have none."""
        survey = self.file.attrs.get("survey", SURVEY)
        return survey.decode() if isinstance(survey, bytes) else str(survey)

    @property
    def n(self) -> int:
        return len(self.object_id)

    @property
    def fingerprint(self) -> str:
        """sha256 of the file's size, modification time and ids, and of shapes and types of its datasets.

        No pixels are read; a file that was touched, or copied again, counts as another one.
        """
        layout = [(name, dataset.shape, dataset.dtype.str) for name, dataset in self._datasets()]
        ids = hashlib.sha256(self.object_id.data).hexdigest()
        return atomic.digest([self.version, ids, layout])

    def rows(self, start: int, stop: int) -> dict[str, np.ndarray]:
        """Arrays of rows start:stop under the names of the cutout store.

        `image` is (m, 5, 64, 64), the centre of the images in the file; `ra`, `dec` are NaN if the file has
        no positions; with spectra there are also `flux`, `ivar` (m, P) float32. `redshift` (m,) is that of
        the spectra, else that of HSC's collection, if there is either.

        Raises InputRefused if pixels cannot be read, a spectrum is on another wavelength grid, or the file
        has changed since it was opened.
        """
        rows = {"object_id": self.object_id[start:stop]}
        with (
            _refusing(f"{self.path}: rows {start} to {stop} cannot be read"),
            np.errstate(over="ignore"),  # beyond float32 becomes Inf, which has a reject reason
        ):
            for _, dataset in self._datasets():
                check_chunks(dataset, start, stop)
            rows["image"] = self._image(start, stop)
            for name in ("ra", "dec"):
                rows[name] = self._position(name, start, stop)
            if self.wave is not None:
                rows |= self._spectra(start, stop)
            elif self.has_redshifts:
                rows["redshift"] = self.file[Z_HSC][start:stop].astype(np.float64)
            for name in self.columns:
                rows[f"{COLUMNS}/{name}"] = self.file[name][start:stop].astype(np.float64)
            if SPECTYPE in self.file:
                rows["spectype"] = spectype_codes(self.file[SPECTYPE][start:stop])
            if DELTACHI2 in self.file:
                rows["redshift_weight"] = probably_right(self.file[DELTACHI2][start:stop].astype(np.float64))
        if _version(self.path) != self.version:
            raise InputRefused(f"{self.path} was changed while it was being read: run the command again")
        return rows

    @property
    def has_redshifts(self) -> bool:
        return self.wave is not None or Z_HSC in self.file

    @property
    def labels(self) -> tuple[str, ...]:
        """Which of LABELS of the cutout store the rows have, beside the redshifts of spectra."""
        redshift = ("redshift",) if self.wave is None and self.has_redshifts else ()
        weight = ("redshift_weight",) if DELTACHI2 in self.file else ()
        return (*redshift, *weight, *(("spectype",) if SPECTYPE in self.file else ()))

    def _datasets(self) -> Iterator[tuple[str, h5py.Dataset]]:
        """Name and dataset of all that is read row by row."""
        for name in (
            "image",
            "ra",
            "dec",
            FLUX,
            IVAR,
            WAVE,
            REDSHIFT,
            SPECTYPE,
            DELTACHI2,
            Z_HSC,
            *self.columns,
        ):
            if name in self.file:
                yield name, self.file[name]

    def _image(self, start: int, stop: int) -> np.ndarray:
        size = self.file["image"].shape[-1]
        low = size // 2 - SIZE // 2
        return self.file["image"][start:stop, :, low : low + SIZE, low : low + SIZE].astype(np.float32)

    def _position(self, name: str, start: int, stop: int) -> np.ndarray:
        if name in self.file:
            return self.file[name][start:stop].astype(np.float64)
        return np.full(stop - start, np.nan)

    def _spectra(self, start: int, stop: int) -> dict[str, np.ndarray]:
        assert self.wave is not None
        wave = self.file[WAVE][start:stop]
        differs = ~np.isclose(wave, self.wave, rtol=0, atol=0.1).all(-1)
        if differs.any():
            raise InputRefused(
                f"{self.path}: spectrum {start + int(differs.argmax())} has another wavelength grid than the "
                "first: put all spectra on one grid"
            )
        return {
            "flux": self.file[FLUX][start:stop].astype(np.float32),
            "ivar": self.file[IVAR][start:stop].astype(np.float32),
            "redshift": self.file[REDSHIFT][start:stop].astype(np.float64),
        }


def open_galaxiesml(path: Path, columns: Sequence[str] = ()) -> GalaxiesML:
    """Open a GalaxiesML or GalaxiesML-Spectra file and check its layout before any pixel is read.

    Raises
    ------
    UsageError : there is no file `path`.
    InputRefused : it is damaged, or not laid out as above.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        raise UsageError(f"{path} is a directory; GalaxiesML is one HDF5 file")
    refuse_special(path)
    version = _version(path)
    with _refusing(f"{path} does not open as HDF5"):
        file = h5py.File(path, "r")
    try:
        with _refusing(f"{path} cannot be read"):
            wave = _check_layout(path, file)
            ids = _object_ids(path, file)
            _check_columns(path, file, columns, len(ids))
            return GalaxiesML(path, version, file, ids, wave, tuple(columns))
    except BaseException:
        file.close()
        raise


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@contextlib.contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Turn the exceptions of HDF5 for malformed bytes into InputRefused."""
    try:
        yield
    except (InputRefused, UsageError):
        raise
    except (OSError, RuntimeError, LookupError, ValueError, TypeError) as error:
        clause = str(error).split("(")[-1].rstrip(")'\"")
        raise InputRefused(
            f"{what} ({clause}): it is damaged, cut short, still being written, or something else; fetch it "
            "again"
        ) from error


def _check_layout(path: Path, file: h5py.File) -> np.ndarray | None:
    """Check shapes and types of the datasets; return the wavelengths (P,) if there are spectra."""
    image = _dataset(path, file, "image", 4)
    n, size = image.shape[0], image.shape[-1]
    if image.shape != (n, len(HSC), size, size) or size < SIZE:
        raise InputRefused(
            f"{path}: image has shape {image.shape}, not (N, {len(HSC)}, {SIZE}, {SIZE}) or larger"
        )
    lengths = {"image": n}
    present = set(file)  # `in` would ignore a dangling link
    numbers = ((name, NUMBERS) for name in ("ra", "dec", Z_HSC))
    for name, kinds in (("object_id", IDS), (TARGETID, IDS), *numbers):
        if name in present:
            lengths[name] = _dataset(path, file, name, 1, kinds).shape[0]
    wave = None
    if "spectrum" in present:
        spectra = [_dataset(path, file, name, 2) for name in (FLUX, IVAR, WAVE)]
        pixels = spectra[0].shape[-1]
        for dataset in spectra:
            if dataset.shape != (n, pixels):
                raise InputRefused(f"{path}: {dataset.name} has shape {dataset.shape}, not ({n}, {pixels})")
        lengths[REDSHIFT] = _dataset(path, file, REDSHIFT, 1).shape[0]
        if SPECTYPE in file:
            lengths[SPECTYPE] = _dataset(path, file, SPECTYPE, 1, "SO").shape[0]
        if DELTACHI2 in file:
            lengths[DELTACHI2] = _dataset(path, file, DELTACHI2, 1).shape[0]
        check_chunks(spectra[2], 0, min(n, 1))
        wave = spectra[2][0].astype(np.float64) if n else np.zeros(pixels)
    if set(lengths.values()) != {n}:
        listing = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise InputRefused(f"{path}: datasets differ in length ({listing})")
    return wave


def _check_columns(path: Path, file: h5py.File, columns: Sequence[str], n: int) -> None:
    """Refuse columns that are not there, or not a number an object."""
    for name in columns:
        if name not in file:
            there = [key for key, each in file.items() if isinstance(each, h5py.Dataset) and each.ndim == 1]
            raise UsageError(f"{path} has no column {name}; it has {', '.join(sorted(there))}")
        if len(_dataset(path, file, name, 1)) != n:
            raise InputRefused(f"{path}: {name} differs in length from the ids, of which there are {n}")


NUMBERS, IDS = "fiu", "iuSO"
"""Allowed kinds of types, as numpy abbreviates them; ids may be text."""


def _dataset(path: Path, file: h5py.File, name: str, rank: int, kinds: str = NUMBERS) -> h5py.Dataset:
    """Open a dataset and check its rank, type and size, and that it is stored in this file itself."""
    parts = name.split("/")
    for depth in range(1, len(parts) + 1):
        if isinstance(file.get("/".join(parts[:depth]), getlink=True), h5py.ExternalLink):
            raise InputRefused(f"{path}: {name} is a link to another file: copy the data into this one")
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputRefused(f"{path} has no dataset {name}: it is not laid out as GalaxiesML")
    if dataset.is_virtual or dataset.external or dataset.file.filename != file.filename:
        raise InputRefused(f"{path}: {name} keeps its data in other files: copy the data into this one")
    if dataset.ndim != rank or dataset.dtype.kind not in kinds:
        raise InputRefused(
            f"{path}: {name} is of shape {dataset.shape} and type {dataset.dtype}: it is not laid out as "
            "GalaxiesML"
        )
    stored = dataset.id.get_storage_size()
    if dataset.nbytes > max(MAX_COMPRESSION * stored, 2**20):
        raise InputRefused(f"{path}: {name} claims {dataset.nbytes:.3g} bytes and holds {stored:.3g}")
    return dataset


def _object_ids(path: Path, file: h5py.File) -> np.ndarray:
    name = TARGETID if TARGETID in file else "object_id"
    dataset = _dataset(path, file, name, 1, IDS)
    check_chunks(dataset, 0, len(dataset))
    values = dataset[:]
    try:
        ids = np.fromiter(map(_integer, values), np.int64, len(values))
    except (ValueError, TypeError, OverflowError) as error:
        raise InputRefused(f"{path}: {name} must hold integers below 2**63 ({error})") from error
    ordered = np.sort(ids)
    duplicates = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(duplicates):
        raise InputRefused(f"{path}: {name} {duplicates[0]} stands there twice: keep one row of each object")
    return ids


def _integer(value: bytes | np.integer) -> int:
    """Convert an id, a number or decimal text, to int; int() would accept `1_000` and ` 12 ` too."""
    if isinstance(value, bytes) and not re.fullmatch(rb"-?[0-9]+", value):
        raise ValueError(f"there is {bytes(value)!r}")
    return int(value)
