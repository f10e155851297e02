"""Targets of DESI with their redshifts: the columns that are read of a release, and what is made of them.

The columns are those of the DESI data model, https://desidatamodel.readthedocs.io.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

from catalogs.errors import InputRefused

REDSHIFT = {"TARGETID": "iu", "Z": "f", "ZWARN": "iu", "SPECTYPE": "S"}
POSITION = {"TARGET_RA": "f", "TARGET_DEC": "f"}
"""Required columns -> allowed kinds of types, as numpy abbreviates them."""
OPTIONAL = ("OBJTYPE", "ZCAT_PRIMARY", "TSNR2_LRG", "DELTACHI2")

SURE, SURE_AT = 0.99, 15.0
"""Probability that a redshift is right, and the DELTACHI2 for which it is that: the least that DESI asks of a
luminous red galaxy (Zhou et al. 2023, AJ 165, 58)."""

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
    deltachi2: np.ndarray
    """(n,) float64, by how much chi2 of the next best redshift is worse; NaN where unknown"""
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


def check_columns(path: Path, dtypes: Mapping[str, np.dtype], required: dict[str, str]) -> None:
    bad = [name for name, kinds in required.items() if name not in dtypes or dtypes[name].kind not in kinds]
    if bad:
        raise InputRefused(
            f"{path} has no column {', '.join(bad)} of its kind: name another catalogue of the release"
        )


def is_primary(columns: Columns) -> np.ndarray:
    primary = columns.get("ZCAT_PRIMARY")
    if primary is None:
        return np.ones(len(columns["Z"]), bool)
    return primary == ord("T")  # FITS stores True as T


def select(columns: Columns, near: Near) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the targets of interest, and the redshifts of all good targets."""
    ra, dec = (columns[name].astype(np.float64) for name in POSITION)
    target = np.isfinite(ra) & (np.abs(dec) <= 90)
    if "OBJTYPE" in columns:
        target &= np.char.strip(columns["OBJTYPE"]) == b"TGT"
    good = target & is_primary(columns) & (columns["ZWARN"] == 0)
    rows = np.flatnonzero(target)
    return rows[near(ra[rows], dec[rows])], columns["Z"][good].astype(np.float64)


def targets_of(columns: Columns, coadd: np.ndarray) -> Targets:
    return Targets(
        target_id=columns["TARGETID"].astype(np.int64),
        ra=columns["TARGET_RA"].astype(np.float64),
        dec=columns["TARGET_DEC"].astype(np.float64),
        z=columns["Z"].astype(np.float64),
        zwarn=columns["ZWARN"].astype(np.int64),
        spectype=np.char.strip(columns["SPECTYPE"]).astype(str),
        primary=is_primary(columns),
        tsnr2=columns.get("TSNR2_LRG", np.zeros(len(coadd))).astype(np.float64),
        deltachi2=columns.get("DELTACHI2", np.full(len(coadd), np.nan)).astype(np.float64),
        coadd=coadd,
    )


def probably_right(deltachi2: np.ndarray) -> np.ndarray:
    """Probability (n,) that redshifts with ZWARN 0 are right; NaN where DELTACHI2 is unknown.

    That of the better of two redshifts, 1 / (1 + exp(-k DELTACHI2)). For perfect templates k is 1/2; it is
    that for which SURE_AT gives SURE.
    """
    k = np.log(SURE / (1 - SURE)) / SURE_AT
    return np.asarray(1 / (1 + np.exp(-k * np.maximum(deltachi2, 0))))
