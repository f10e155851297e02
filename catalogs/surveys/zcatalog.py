"""Reader of DESI's summary catalogues: a row for each spectrum of a release, 28 million in DR1.

zall-pix-iron.fits, zpix-main-dark.fits                          ZCATALOG: of spectra joined by HEALPix cell
zall-tilecumulative-iron.fits, ztile-main-dark-cumulative.fits   ZCATALOG: of spectra joined by tile

Rows are read block by block: memory does not grow with the release.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from catalogs import fits_stream, fits_strict
from catalogs.errors import InputRefused
from catalogs.regular_file import refuse_special
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

ROWS = 2**15
"""Rows of the summary catalogue read at a time, 26 MB at 800 bytes a row; a multiple of 4 for checksums."""
TABLES = ("ZCATALOG", "REDSHIFTS")
BY_CELL = {"SURVEY": "S", "PROGRAM": "S", "HEALPIX": "iu"}
BY_TILE = {"TILEID": "iu", "LASTNIGHT": "iu", "PETAL_LOC": "iu"}
"""Required columns that name the coadd -> allowed kinds of types. SURVEY and PROGRAM may stand in the header,
where they are the same in all rows."""
SHORT_NAMES = {"RA": "TARGET_RA", "DEC": "TARGET_DEC"}


class Layout(NamedTuple):
    """Layout of a FITS table in its file."""

    row: np.dtype
    """Type of a row, big-endian."""
    constants: dict[str, bytes]
    """Columns that are the same in all rows, and stand in the header."""
    rows: int
    """Number of rows."""
    start: int
    """Offset of the first row, in bytes."""
    datasum: int | None
    """DATASUM of the rows; None if the file has none."""


def read_summary(path: Path, near: Near, progress: Progress) -> Iterator[Block]:
    layout = _read_layout(path)
    dtypes = {name: layout.row[name] for name in layout.row.names or ()}
    place = BY_TILE if "TILEID" in dtypes else BY_CELL
    constants = {name: np.array(value) for name, value in layout.constants.items() if name not in dtypes}
    kinds = dtypes | {name: value.dtype for name, value in constants.items()}
    check_columns(path, kinds, REDSHIFT | POSITION | place)
    names = [name for name in (*REDSHIFT, *POSITION, *place, *OPTIONAL) if name in dtypes]
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
            rows, redshifts = select({name: table[name] for name in names}, near)
            columns = {name: table[name][rows] for name in names}
            columns |= {name: np.full(len(rows), value) for name, value in constants.items()}
            yield Block(targets_of(columns, _coadd_paths(columns)), redshifts)
    if layout.datasum not in (None, total):
        raise InputRefused(f"{path} is damaged (DATASUM verification failed): fetch it again")


def _read_layout(path: Path) -> Layout:
    """Read the headers only; `fits_strict` would read and sum the whole file first."""
    refuse_special(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", fits_strict.DAMAGE, AstropyWarning)
            with fits.open(path) as hdus:
                name = next((name for name in TABLES if name in hdus), None)
                if name is None:
                    raise InputRefused(f"{path} has no table ZCATALOG: it is no summary catalogue of DESI")
                table = hdus[name]
                heap = table.header["PCOUNT"]  # bytes after the rows, which DATASUM includes
                datasum = "" if heap else str(table.header.get("DATASUM", "")).strip()
                row = table.columns.dtype.newbyteorder(">")
                row.names = _long_names(row.names)
                keywords = {key: str(table.header.get(key, "")).strip() for key in ("SURVEY", "PROGRAM")}
                return Layout(
                    row=row,
                    constants={key: value.encode() for key, value in keywords.items() if value},
                    rows=table.header["NAXIS2"],
                    start=table.fileinfo()["datLoc"],
                    datasum=int(datasum) if datasum else None,
                )
    except (OSError, ValueError, TypeError, KeyError, AstropyWarning, fits.VerifyError) as error:
        if isinstance(error, InputRefused) or (isinstance(error, OSError) and error.errno):
            raise
        reason = str(error).partition("\n")[0]
        raise InputRefused(f"{path} is damaged or no FITS file ({reason}): fetch it again") from error


def _long_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of columns, with RA and DEC as TARGET_RA and TARGET_DEC where those are not there."""
    return tuple(
        long if (long := SHORT_NAMES.get(name, name)) == name or long not in names else name for name in names
    )


def _coadd_paths(columns: Columns) -> np.ndarray:
    """Paths of the coadds, relative to the release, (n,) str."""
    if "TILEID" in columns:
        tiles = zip(*(columns[name].tolist() for name in BY_TILE), strict=True)
        return np.array(
            [f"tiles/cumulative/{t}/{night}/coadd-{p}-{t}-thru{night}.fits" for t, night, p in tiles], str
        )
    survey, program = (np.char.strip(columns[name]).astype(str) for name in ("SURVEY", "PROGRAM"))
    paths = [
        f"healpix/{s}/{p}/{cell // 100}/{cell}/coadd-{s}-{p}-{cell}.fits"
        for s, p, cell in zip(survey, program, columns["HEALPIX"].tolist(), strict=True)
    ]
    return np.array(paths, str)
