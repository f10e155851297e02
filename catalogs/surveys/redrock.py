"""Reader of DESI's redshifts, fitted by redrock: from a release's summary catalogue or from redrock files.

A release is a folder laid out as DESI publishes it, or any folder with pairs of redrock and coadd files:

    zcatalog/v1/zall-pix-iron.fits     a row for each target, survey and program (zcatalog.py)
    healpix/main/dark/272/27247/
        redrock-main-dark-27247.fits   REDSHIFTS, FIBERMAP, TSNR2: the same for one HEALPix cell (nside 64)
        coadd-main-dark-27247.fits     the spectra (desi.py)
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.io import fits

from catalogs import fits_strict
from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special
from catalogs.surveys.desi import locate
from catalogs.surveys.targets import (
    OPTIONAL,
    POSITION,
    REDSHIFT,
    Block,
    Columns,
    Near,
    Progress,
    check_columns,
    select,
    targets_of,
)
from catalogs.surveys.zcatalog import read_summary

FILES, TABLES = ("redrock-", "zbest-"), ("REDSHIFTS", "ZBEST")
"""Names of redrock files and of their table, current and before 2021; file names may have a prefix."""


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
            yield from read_summary(self.zall, near, progress)
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
            "zcatalog/v1/zall-pix-iron.fits (DESI DR1) into it, or pass --zall a zpix, ztile or zall file"
        )
    return Release(folder, None, tuple(redrock))


def _find_zall(folder: Path) -> list[Path]:
    paths = {*folder.glob("zall-pix-*.fits"), *folder.glob("zcatalog/**/zall-pix-*.fits")}
    return sorted(path for path in paths if not path.stem.endswith(("-imaging", "-extra")))


def _read_redrock(folder: Path, path: Path, near: Near) -> Block:
    with fits_strict.opened(path, {*TABLES, "FIBERMAP", "TSNR2"}) as hdus:
        tables = {hdu.name: hdu.data for hdu in hdus if isinstance(hdu, fits.BinTableHDU)}
        names = [name for name in TABLES if name in tables]
        if len(names) != 1:
            raise InputRefused(f"{path} has no table REDSHIFTS: it is not redrock's output")
        columns = _read_columns(tables[names[0]], (*REDSHIFT, *OPTIONAL))
        check_columns(path, {name: values.dtype for name, values in columns.items()}, REDSHIFT)
        for table in (name for name in ("FIBERMAP", "TSNR2") if name in tables):
            joined = _read_columns(tables[table], ("TARGETID", *POSITION, *OPTIONAL))
            columns |= _align(path, table, joined, columns["TARGETID"])
    check_columns(path, {name: values.dtype for name, values in columns.items()}, POSITION)
    rows, redshifts = select(columns, near)
    coadd_name = path.name
    for kind in FILES:
        coadd_name = coadd_name.replace(kind, "coadd-")
    coadd = path.with_name(coadd_name).relative_to(folder).as_posix()
    return Block(targets_of({k: v[rows] for k, v in columns.items()}, np.full(len(rows), coadd)), redshifts)


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
