"""Pairs of photo-z, from a catalogue or a table of predictions, and spectroscopic redshifts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits
from astropy.table import Table

from catalogs import fits_strict
from catalogs.bands import TABLE
from catalogs.errors import InputRefused, UsageError
from catalogs.products.schema import QUANTILE_LEVELS
from catalogs.regular_file import refuse_special
from mmae.bundles.columns import POINT, QUANTILES

ID, BEST, Z_SPEC = "OBJECT_ID", "PHOTOZ_BEST", "Z_SPEC"
MAGNITUDES = tuple(
    f"MAG_{name.upper()}"
    for letter in ("i", "r")
    for name in (letter, *(band.name for band in TABLE.values() if band.filter == letter))
)
"""Magnitudes of a truth table, the first of which is used: in the i band, bare or of a survey, else in r."""
IN_TRAINING = "IN_TRAINING"
INTERVALS = ("PHOTOZ_ERR68_MIN", "PHOTOZ_ERR68_MAX", "PHOTOZ_ERR95_MIN", "PHOTOZ_ERR95_MAX")
TRUE, PREDICTED = "y_test", "y_pred"
"""The columns of the paper's released predictions."""
CATALOGUE_COLUMNS = (ID, POINT, BEST, QUANTILES, *INTERVALS, Z_SPEC, IN_TRAINING, TRUE, PREDICTED)
TRUTH_COLUMNS = (ID, Z_SPEC, *MAGNITUDES)
MAX_Z = 30.0
"""Above any redshift of a galaxy that is known; velocities and sentinels are beyond."""


class Pairs(NamedTuple):
    """Objects with a spectroscopic redshift, and the numbers of those left out or without a match."""

    z_phot_column: str
    """Name of the column of the catalogue that is z_phot."""
    columns: dict[str, np.ndarray]
    """Columns of the catalogue, (N,) or (N, 20) float64."""
    z_spec: np.ndarray
    """(N,) float64, finite."""
    magnitude: tuple[str, np.ndarray] | None
    """Name and values, (N,) float64, of the magnitude of the truth table; None where it has none."""
    rows_without_z_spec: int
    """Catalogue rows without a spectroscopic redshift."""
    missing_in_catalogue: int
    """Objects of the truth table that are not in the catalogue, for example rejected ones."""
    in_training: int = 0
    """Objects left out because they trained, selected or calibrated the model."""

    @property
    def z_phot(self) -> np.ndarray:
        """(N,) float64, NaN or infinite where there is no photo-z."""
        return self.columns[self.z_phot_column]


def read_pairs(path: Path, truth: Path | None, all_objects: bool = False) -> Pairs:
    """Read a catalogue and its truth: a table with OBJECT_ID and Z_SPEC, or else columns of the catalogue.

    all_objects : keep those that the model was made with, too

    Raises UsageError or InputRefused where there is nothing to compare, or a z_spec is not above -1.
    """
    catalogue = _read(path, CATALOGUE_COLUMNS)
    if catalogue.keys() >= {TRUE, PREDICTED}:
        if truth:
            raise UsageError(f"{path} brings its own truth in column {TRUE}; leave --truth out")
        pairs = _from_one_table(PREDICTED, catalogue, TRUE)
    elif not catalogue.keys() >= {ID, POINT}:
        raise InputRefused(f"{path} needs the columns {ID} and {POINT}, or {TRUE} and {PREDICTED}")
    elif truth:
        pairs = _match(_z_phot_column(catalogue), catalogue, _read_truth(truth))
    elif _any_finite(catalogue, Z_SPEC):
        pairs = _from_one_table(_z_phot_column(catalogue), catalogue, Z_SPEC)
    else:
        raise UsageError(
            f"{path} has no redshift in a column {Z_SPEC}; pass a table with {ID} and {Z_SPEC} as --truth"
        )

    if not all_objects:
        pairs = _without_training_objects(pairs)
    if not np.isfinite(pairs.z_phot).any():
        raise InputRefused(
            f"no object of {path} has both a photo-z and a spectroscopic redshift; "
            f"check that catalogue and truth are of one survey"
        )
    if pairs.z_spec.max() > MAX_Z:
        raise InputRefused(
            f"a spectroscopic redshift is {pairs.z_spec.max():g}, as no galaxy has: write z, not a velocity, "
            "and NaN where it is unknown"
        )
    if pairs.z_spec.min() <= -1:
        raise InputRefused(
            f"a spectroscopic redshift is {pairs.z_spec.min():g}; write NaN where it is unknown"
        )
    return pairs


def _without_training_objects(pairs: Pairs) -> Pairs:
    """Leave out objects that trained, selected or calibrated the model: they cannot evaluate it."""
    if IN_TRAINING not in pairs.columns:
        return pairs
    unused = ~(pairs.columns[IN_TRAINING] > 0)
    magnitude = pairs.magnitude and (pairs.magnitude[0], pairs.magnitude[1][unused])
    return pairs._replace(
        columns=take(pairs.columns, unused),
        z_spec=pairs.z_spec[unused],
        magnitude=magnitude,
        in_training=int((~unused).sum()),
    )


def _read_truth(path: Path) -> dict[str, np.ndarray]:
    truth = _read(path, TRUTH_COLUMNS)
    if not truth.keys() >= {ID, Z_SPEC}:
        raise InputRefused(f"{path} needs the columns {ID} and {Z_SPEC} to serve as --truth")
    return truth


def _z_phot_column(catalogue: dict[str, np.ndarray]) -> str:
    """Name of the column that is z_phot of all rows: a model without p(z) leaves PHOTOZ_BEST empty."""
    return BEST if _any_finite(catalogue, BEST) else POINT


def _any_finite(catalogue: dict[str, np.ndarray], name: str) -> bool:
    return name in catalogue and bool(np.isfinite(catalogue[name]).any())


def _from_one_table(z_phot_column: str, catalogue: dict[str, np.ndarray], truth: str) -> Pairs:
    known = np.isfinite(catalogue[truth])
    return Pairs(
        z_phot_column,
        take(catalogue, known),
        catalogue[truth][known],
        None,
        int((~known).sum()),
        missing_in_catalogue=0,
    )


def _match(z_phot_column: str, catalogue: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> Pairs:
    truth = take(truth, np.isfinite(truth[Z_SPEC]))
    ids = truth[ID]
    # sorted by id, so that the bootstrap does not depend on the order of the files
    matched, rows, truth_rows = np.intersect1d(catalogue[ID], ids, assume_unique=True, return_indices=True)
    truth = take(truth, truth_rows)
    unmatched = len(catalogue[ID]) - len(matched), len(ids) - len(matched)
    magnitude = next(((name, truth[name]) for name in MAGNITUDES if name in truth), None)
    return Pairs(z_phot_column, take(catalogue, rows), truth[Z_SPEC], magnitude, *unmatched)


def take(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in table.items()}


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read those of the columns that a table has: OBJECT_ID as int64, unique, the others as float64."""
    refuse_special(path)
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a table" if path.is_dir() else f"there is no file {path}")
    if path.suffix not in (".fits", ".csv", ".ecsv"):
        raise UsageError(f"{path} is no table this command reads: .fits, .csv or .ecsv")
    columns = _read_fits(path, names) if path.suffix == ".fits" else _read_text(path, names)
    return {
        name: _ids(path, column) if name == ID else _floats(path, name, column)
        for name, column in columns.items()
    }


def _read_fits(path: Path, names: Sequence[str]) -> dict[str, np.ma.MaskedArray]:
    with fits_strict.opened(path) as hdus:
        table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)), None)
        if table is None:
            raise InputRefused(f"{path} is no catalogue: there is no table HDU in it")
        return {name: np.ma.array(table.data[name]) for name in names if name in table.columns.names}


def _read_text(path: Path, names: Sequence[str]) -> dict[str, np.ma.MaskedArray]:
    try:
        table = Table.read(path, format=f"ascii.{path.suffix[1:]}", encoding="utf-8-sig")
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise InputRefused(
            f"{path} is damaged or no such table ({reason}); make or fetch it again"
        ) from error
    return {name: np.ma.array(table[name]) for name in names if name in table.colnames}


def _ids(path: Path, column: np.ma.MaskedArray) -> np.ndarray:
    if column.dtype.kind not in "iu" or column.ndim != 1 or np.ma.is_masked(column):
        raise InputRefused(f"{path}: {ID} must hold one integer of 64 bits in every row")
    ids = column.data.astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputRefused(f"{path}: {ID} {values[counts > 1][0]} has more than one row; keep one an object")
    return ids


def _floats(path: Path, name: str, column: np.ma.MaskedArray) -> np.ndarray:
    shape = (len(QUANTILE_LEVELS),) if name == QUANTILES else ()
    if column.dtype.kind not in "fiu" or column.shape[1:] != shape:
        expected = f"{shape[0]} numbers" if shape else "one number"
        raise InputRefused(f"{path}: {name} must hold {expected} in every row, or NaN")
    return np.ma.filled(column.astype(np.float64), np.nan)
