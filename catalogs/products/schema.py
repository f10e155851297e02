"""Columns, units, UCDs, flag bits and reject reasons of the photo-z catalogue.

Columns are read from photoz.yaml. Flags are defined here, as Felis cannot describe the meaning of a bit.
"""

from dataclasses import dataclass
from enum import IntFlag, StrEnum
from functools import cache
from pathlib import Path

import numpy as np
import yaml

DATATYPES = {"long": ">i8", "int": ">i4", "short": ">i2", "double": ">f8", "float": ">f4"}
FITS_FORMATS = {"long": "K", "int": "J", "short": "I", "double": "D", "float": "E"}
QUANTILE_LEVELS = tuple((k + 0.5) / 20 for k in range(20))
"""Levels of PDF_QUANT; the first and the last bound 95 % of p(z)."""
NULL = -1
"""TNULL value of integer columns that may be null."""

CATALOGUE, REJECTS, LEVELS = "PHOTOZ", "REJECTS", "ZGRID"
"""EXTNAME of the table in either file, and of the table of QUANTILE_LEVELS."""
PDF, PDF_BINS = "PDF", "PDFBINS"
"""EXTNAME of the whole p(z), which some catalogues keep, and of its bins in z."""


class Flag(IntFlag):
    """Bits of PHOTOZ_FLAGS: cautions about a valid redshift. Bit numbers never change meaning."""

    MASKED_PIXELS = 1 << 0
    NO_DATA_REGION = 1 << 1
    Z_LIMIT = 1 << 2
    NO_POSITION = 1 << 3
    BROAD = 1 << 4
    TWO_PEAKS = 1 << 5
    ATYPICAL = 1 << 6
    UNLIKE_TRAINING_PIXELS = 1 << 7
    RESAMPLED = 1 << 8
    MISSING_BAND = 1 << 9
    LIKELY_STAR = 1 << 10
    BLEED_TRAIL = 1 << 11
    NO_SPECTRA_LIKE_IT = 1 << 12


FLAG_MEANINGS = {
    Flag.MASKED_PIXELS: "pixels without data, not used",
    Flag.NO_DATA_REGION: "over 5 % of a band lacks data",
    Flag.Z_LIMIT: "beyond the redshifts of the training set",
    Flag.NO_POSITION: "the survey gave no position",
    Flag.BROAD: "p(z) is wide",
    Flag.TWO_PEAKS: "p(z) has a second peak, MODE2",
    Flag.ATYPICAL: "unlike the galaxies of the training set",
    Flag.UNLIKE_TRAINING_PIXELS: "sky unlike the training set's",
    Flag.RESAMPLED: "brought from PZINPIX to PZPIXEL",
    Flag.MISSING_BAND: "a band of the model was not observed",
    Flag.LIKELY_STAR: "more likely a star than not",
    Flag.BLEED_TRAIL: "a bleed trail is there, not used",
    Flag.NO_SPECTRA_LIKE_IT: "no redshifts at its colours, magnitudes",
}


class Reject(StrEnum):
    """Reasons in the rejects table, in the order in which they are checked."""

    DAMAGED = "DAMAGED"
    INFINITE = "INFINITE"
    NO_DATA = "NO_DATA"
    FEW_BANDS = "FEW_BANDS"
    CONSTANT_BAND = "CONSTANT_BAND"
    BAD_OUTPUT = "BAD_OUTPUT"
    CRASHES = "CRASHES"


REJECT_MEANINGS = {
    Reject.DAMAGED: "pixels on disk are not those written",
    Reject.INFINITE: "a pixel is infinite",
    Reject.NO_DATA: "no band was observed",
    Reject.FEW_BANDS: "fewer bands than the model needs",
    Reject.CONSTANT_BAND: "a band holds one value throughout",
    Reject.BAD_OUTPUT: "the model gave no redshift above -1",
    Reject.CRASHES: "whoever computes it dies; not read",
}


@dataclass(frozen=True)
class Column:
    """One column: FITS name and format, big-endian numpy type, unit, UCD, comment, whether it may be null."""

    name: str
    fits_format: str
    dtype: str
    unit: str | None
    ucd: str
    comment: str
    nullable: bool


@cache
def _tables() -> dict[str, dict]:
    model = yaml.safe_load(Path(__file__).with_name("photoz.yaml").read_text())
    return {table["name"]: table for table in model["tables"]} | {"version": model["version"]["current"]}


def schema_version() -> str:
    return str(_tables()["version"])


def columns(table: str) -> list[Column]:
    """Columns of a table; REJECTS has those of the catalogue and the reason."""
    defined = [_column(description) for description in _tables()[table]["columns"]]
    return [*columns(CATALOGUE), *defined] if table == REJECTS else defined


def _column(description: dict) -> Column:
    datatype, length = description["datatype"], description.get("length")
    arraysize = description.get("votable:arraysize", "")
    integer = datatype in ("long", "int", "short")
    return Column(
        name=description["name"],
        fits_format=f"{length}A" if datatype == "char" else f"{arraysize}{FITS_FORMATS[datatype]}",
        dtype=f"S{length}" if datatype == "char" else f"{arraysize}{DATATYPES[datatype]}",
        unit=description.get("fits:tunit"),
        ucd=description["ivoa:ucd"],
        comment=description["description"],
        nullable=integer and description.get("nullable", True),
    )


def dtype(table: str) -> np.dtype:
    """Structured type of a row, packed and big-endian as FITS stores it."""
    return np.dtype([(column.name, column.dtype) for column in columns(table)])


def nulls(table: str, n: int) -> np.ndarray:
    """Rows of null values, (n,): NaN, NULL where an integer column may be null, else 0."""
    rows = np.zeros(n, dtype(table))
    for column in columns(table):
        if column.fits_format[-1] in "DE":
            rows[column.name] = np.nan
        elif column.nullable:
            rows[column.name] = NULL
    return rows
