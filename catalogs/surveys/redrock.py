"""Reader of DESI's redshifts, fitted by redrock: from a release's summary catalogue or from redrock files.

A release is a folder laid out as DESI publishes it, or any folder with pairs of redrock and coadd files:

    zcatalog/v1/zall-pix-iron.fits     ZCATALOG: a row for each target, survey and program; 28 million rows
    healpix/main/dark/272/27247/
        redrock-main-dark-27247.fits   REDSHIFTS, FIBERMAP, TSNR2: the same for one HEALPix cell (nside 64)
        coadd-main-dark-27247.fits     the spectra (desi.py)

The columns are those of the DESI data model, https://desidatamodel.readthedocs.io. Rows are read block by
block: memory does not grow with the release.
"""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from catalogs import fits_stream, fits_strict
from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special
from catalogs.surveys.desi import locate

ROWS = 2**15
"""Rows of the summary catalogue read at a time, 26 MB at 800 bytes a row; a multiple of 4 for checksums."""
FILES, TABLES = ("redrock-", "zbest-"), ("REDSHIFTS", "ZBEST")
"""Names of redrock files and of their table, current and before 2021; file names may have a prefix."""
REDSHIFT = {"TARGETID": "iu", "Z": "f", "ZWARN": "iu", "SPECTYPE": "S"}
POSITION = {"TARGET_RA": "f", "TARGET_DEC": "f"}
COADD = {"SURVEY": "S", "PROGRAM": "S", "HEALPIX": "iu"}
"""Required columns -> allowed kinds of types, as numpy abbreviates them."""
OPTIONAL = ("OBJTYPE", "ZCAT_PRIMARY", "TSNR2_LRG")

Columns = dict[str, np.ndarray]
Near = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Positions (ra, dec), (n,) each -> mask of those of interest, (n,) bool."""
Progress = Callable[[Any, str], Iterable]


@dataclass
class Targets:
    """n spectra of targets with their redshifts."""

    target_id: np.ndarray
    """(n,) int64"""
    ra: np.ndarray
    """(n,) float64, degrees, ICRS"""
    dec: np.ndarray
    """(n,) float64, degrees, ICRS"""
    z: np.ndarray
    """(n,) float64"""
    zwarn: np.ndarray
    """(n,) int64, 0 where redrock is confident"""
    spectype: np.ndarray
    """(n,) str: GALAXY, QSO or STAR"""
    primary: np.ndarray
    """(n,) bool, ZCAT_PRIMARY: the best spectrum of its target in the release; True where unknown"""
    tsnr2: np.ndarray
    """(n,) float64, TSNR2_LRG: depth of the spectrum; 0 where unknown"""
    coadd: np.ndarray
    """(n,) str, path of the file with the spectrum, relative to the release"""

    def __len__(self) -> int:
        return len(self.target_id)

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in dataclasses.fields(self)))

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


class Block(NamedTuple):
    """A block of rows of a release."""

    targets: Targets
    """Targets of interest."""
    redshifts: np.ndarray
    """(k,) of all targets of the block, of interest or not, that are primary and have ZWARN 0"""


@dataclass(frozen=True)
class Release:
    """Files with redshifts: `zall` or, if that is None, the redrock files below `folder`."""

    folder: Path
    zall: Path | None
    redrock: tuple[Path, ...]

    def blocks(self, near: Near, progress: Progress) -> Iterator[Block]:
        """Redshifts of targets (OBJTYPE TGT: neither sky nor a broken fibre), in the order of the files.

        Parameters
        ----------
        near : `near(ra, dec)` selects positions of interest, (n,) each in degrees -> (n,) bool.
        progress : `progress(blocks, description)` wraps the sequence of blocks.

        Raises InputRefused if a file is damaged, truncated, or lacks a column.
        """
        if self.zall is not None:
            yield from _read_zall(self.zall, near, progress)
        else:
            for path in progress(self.redrock, "redshifts (redrock files)"):
                yield _read_redrock(self.folder, path, near)


def open_release(folder: Path, zall: Path | None = None) -> Release:
    """Find the redshifts of a release: in `zall`, else in its only `zall-pix-*.fits`, else in redrock files.

    Raises
    ------
    UsageError : there is no such folder or file, or more than one summary catalogue.
    InputRefused : the folder has no redshifts.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder: name the one that holds DESI's healpix/, or coadds")
    refuse_special(zall or folder)
    if zall is not None and not zall.is_file():
        raise UsageError(f"there is no file {zall}")
    summaries = [zall] if zall else _find_zall(folder)
    if len(summaries) > 1:
        raise UsageError(
            f"{folder} has {len(summaries)} summary catalogues: pass --zall {summaries[-1]}, or another"
        )
    if summaries:
        return Release(folder, summaries[0], ())
    redrock = sorted(path for name in FILES for path in folder.rglob(f"*{name}*.fits"))
    if not redrock:
        raise InputRefused(
            f"{folder} has no redshifts, neither zall-pix-*.fits nor redrock-*.fits: fetch "
            "zcatalog/v1/zall-pix-iron.fits (DESI DR1) into it"
        )
    return Release(folder, None, tuple(redrock))


def _find_zall(folder: Path) -> list[Path]:
    paths = {*folder.glob("zall-pix-*.fits"), *folder.glob("zcatalog/**/zall-pix-*.fits")}
    return sorted(path for path in paths if not path.stem.endswith(("-imaging", "-extra")))


# ---------------------------------------------------------------- rows


def _check_columns(path: Path, dtypes: Mapping[str, np.dtype], required: dict[str, str]) -> None:
    bad = [name for name, kinds in required.items() if name not in dtypes or dtypes[name].kind not in kinds]
    if bad:
        raise InputRefused(f"{path} has no column {', '.join(bad)} as DESI writes it: fetch a released one")


def _is_primary(columns: Columns) -> np.ndarray:
    primary = columns.get("ZCAT_PRIMARY")
    if primary is None:
        return np.ones(len(columns["Z"]), bool)
    return primary == ord("T")  # FITS stores True as T


def _select(columns: Columns, near: Near) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the targets of interest, and the redshifts of all good targets."""
    ra, dec = (columns[name].astype(np.float64) for name in POSITION)
    target = np.isfinite(ra) & (np.abs(dec) <= 90)
    if "OBJTYPE" in columns:
        target &= np.char.strip(columns["OBJTYPE"]) == b"TGT"
    good = target & _is_primary(columns) & (columns["ZWARN"] == 0)
    rows = np.flatnonzero(target)
    return rows[near(ra[rows], dec[rows])], columns["Z"][good].astype(np.float64)


def _targets(columns: Columns, coadd: np.ndarray) -> Targets:
    return Targets(
        target_id=columns["TARGETID"].astype(np.int64),
        ra=columns["TARGET_RA"].astype(np.float64),
        dec=columns["TARGET_DEC"].astype(np.float64),
        z=columns["Z"].astype(np.float64),
        zwarn=columns["ZWARN"].astype(np.int64),
        spectype=np.char.strip(columns["SPECTYPE"]).astype(str),
        primary=_is_primary(columns),
        tsnr2=columns.get("TSNR2_LRG", np.zeros(len(coadd))).astype(np.float64),
        coadd=coadd,
    )


# ---------------------------------------------------------------- the summary catalogue


class Layout(NamedTuple):
    """Layout of a FITS table in its file."""

    row: np.dtype
    """Type of a row, big-endian."""
    rows: int
    """Number of rows."""
    start: int
    """Offset of the first row, in bytes."""
    datasum: int | None
    """DATASUM of the rows; None if the file has none."""


def _read_zall(path: Path, near: Near, progress: Progress) -> Iterator[Block]:
    layout = _read_layout(path)
    dtypes = {name: layout.row[name] for name in layout.row.names or ()}
    _check_columns(path, dtypes, REDSHIFT | POSITION | COADD)
    names = [name for name in (*REDSHIFT, *POSITION, *COADD, *OPTIONAL) if name in dtypes]
    if not layout.rows:
        raise InputRefused(f"{path} has no rows: fetch it again")
    total = 0
    with path.open("rb") as file:  # read, not mapped: mapped pages count as memory in use
        file.seek(layout.start)
        for start in progress(range(0, layout.rows, ROWS), "redshifts (blocks of the summary catalogue)"):
            size = min(ROWS, layout.rows - start) * layout.row.itemsize
            data = file.read(size)
            if len(data) < size:
                raise InputRefused(f"{path} is cut short: fetch it again")
            total = fits_stream.add_words(data + bytes(-size % 4), total)
            table = np.frombuffer(data, layout.row)
            rows, redshifts = _select({name: table[name] for name in names}, near)
            columns = {name: table[name][rows] for name in names}
            yield Block(_targets(columns, _coadd_paths(columns)), redshifts)
    if layout.datasum not in (None, total):
        raise InputRefused(f"{path} is damaged (DATASUM verification failed): fetch it again")


def _read_layout(path: Path) -> Layout:
    """Read the headers only; `fits_strict` would read and sum the whole file first."""
    refuse_special(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", fits_strict.DAMAGE, AstropyWarning)
            with fits.open(path) as hdus:
                if "ZCATALOG" not in hdus:
                    raise InputRefused(f"{path} has no table ZCATALOG: it is not DESI's zall-pix-*.fits")
                table = hdus["ZCATALOG"]
                heap = table.header["PCOUNT"]  # bytes after the rows, which DATASUM includes
                datasum = "" if heap else str(table.header.get("DATASUM", "")).strip()
                return Layout(
                    row=table.columns.dtype.newbyteorder(">"),
                    rows=table.header["NAXIS2"],
                    start=table.fileinfo()["datLoc"],
                    datasum=int(datasum) if datasum else None,
                )
    except (OSError, ValueError, TypeError, KeyError, AstropyWarning, fits.VerifyError) as error:
        if isinstance(error, InputRefused) or (isinstance(error, OSError) and error.errno):
            raise
        reason = str(error).partition("\n")[0]
        raise InputRefused(f"{path} is damaged or no FITS file ({reason}): fetch it again") from error


def _coadd_paths(columns: Columns) -> np.ndarray:
    """Paths of the coadds, relative to the release, (n,) str."""
    survey, program = (np.char.strip(columns[name]).astype(str) for name in ("SURVEY", "PROGRAM"))
    paths = [
        f"healpix/{s}/{p}/{cell // 100}/{cell}/coadd-{s}-{p}-{cell}.fits"
        for s, p, cell in zip(survey, program, columns["HEALPIX"].tolist(), strict=True)
    ]
    return np.array(paths, str)


# ---------------------------------------------------------------- redrock files


def _read_redrock(folder: Path, path: Path, near: Near) -> Block:
    with fits_strict.opened(path, {*TABLES, "FIBERMAP", "TSNR2"}) as hdus:
        tables = {hdu.name: hdu.data for hdu in hdus if isinstance(hdu, fits.BinTableHDU)}
        names = [name for name in TABLES if name in tables]
        if len(names) != 1:
            raise InputRefused(f"{path} has no table REDSHIFTS: it is not redrock's output")
        columns = _read_columns(tables[names[0]], REDSHIFT)
        _check_columns(path, {name: values.dtype for name, values in columns.items()}, REDSHIFT)
        for table in (name for name in ("FIBERMAP", "TSNR2") if name in tables):
            joined = _read_columns(tables[table], ("TARGETID", *POSITION, *OPTIONAL))
            columns |= _align(path, table, joined, columns["TARGETID"])
    _check_columns(path, {name: values.dtype for name, values in columns.items()}, POSITION)
    rows, redshifts = _select(columns, near)
    coadd_name = path.name
    for kind in FILES:
        coadd_name = coadd_name.replace(kind, "coadd-")
    coadd = path.with_name(coadd_name).relative_to(folder).as_posix()
    return Block(_targets({k: v[rows] for k, v in columns.items()}, np.full(len(rows), coadd)), redshifts)


def _read_columns(table: fits.FITS_rec, names: Iterable[str]) -> Columns:
    """Columns by name, as far as the table has them, copied as they are on disk (text as bytes)."""
    raw = table.view(np.ndarray)
    return {name: np.array(raw[name]) for name in names if name in (raw.dtype.names or ())}


def _align(path: Path, table: str, columns: Columns, target_id: np.ndarray) -> Columns:
    """Reorder columns of another table by its TARGETID to match `target_id`."""
    rows = locate(columns.pop("TARGETID", np.zeros(0, np.int64)), target_id)
    if (rows < 0).any():
        raise InputRefused(f"{path}: {table} lacks target {target_id[rows < 0][0]}: fetch it again")
    return {name: values[rows] for name, values in columns.items()}
