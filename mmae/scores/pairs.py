"""Pairs of photo-z, from a catalogue or a table of predictions, and spectroscopic redshifts."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from catalogs.errors import InputRefused, UsageError
from catalogs.products.schema import QUANTILE_LEVELS
from catalogs.redshift_values import check_redshifts, is_redshift
from catalogs.surveys.desi import locate
from catalogs.tables import formats, redshifts
from catalogs.tables.columns import Columns
from catalogs.tables.ids import as_ids, repeated
from catalogs.tables.redshifts import Redshifts, TruthTable
from catalogs.tables.where import rows_where
from mmae.bundles.columns import POINT, QUANTILES
from mmae.bundles.roles import RADIUS
from mmae.scores.catalogue import leaks, magnitudes
from mmae.scores.catalogue.leaks import Leaks
from mmae.scores.catalogue.matching import AUTO, SAME, Match, match

ID, BEST, Z_SPEC, RA, DEC = "OBJECT_ID", "PHOTOZ_BEST", "Z_SPEC", "RA", "DEC"
IN_TRAINING = "IN_TRAINING"
INTERVALS = ("PHOTOZ_ERR68_MIN", "PHOTOZ_ERR68_MAX", "PHOTOZ_ERR95_MIN", "PHOTOZ_ERR95_MAX")
TRUE, PREDICTED = "y_test", "y_pred"
"""The columns of the paper's released predictions."""
SHAPES = {QUANTILES: (len(QUANTILE_LEVELS),)}
"""Of a row, in columns of more than a number."""
CATALOGUE_COLUMNS = (ID, RA, DEC, POINT, BEST, QUANTILES, *INTERVALS, Z_SPEC, IN_TRAINING, TRUE, PREDICTED)


class Origin(NamedTuple):
    """Where the redshifts came from, and the numbers of rows and objects without one, by why."""

    column: str
    others: tuple[str, ...]
    """Columns that might have been meant; none where a flag named one."""
    guessed: bool
    match: str
    """By which columns objects were found; empty where catalogue and redshifts are one table."""
    rows: int
    cut: int
    absent: dict[str, int]
    repeated: int = 0
    disagreeing: int = 0
    apart: int = 0
    quality_cut: str = ""

    def counts(self) -> list[tuple[int, str]]:
        """Numbers that are not 0, and what they count."""
        spelled = ", ".join(f"{text}: {count}" for text, count in self.absent.items())
        counts = (
            (self.cut, "rows left out by --where"),
            (sum(self.absent.values()), f"rows without a redshift ({spelled})"),
            (self.repeated, "rows more of an object that has one: the first counts"),
            (self.disagreeing, f"objects left out, as their rows disagree by over {SAME} (1 + z)"),
            (self.apart, f"objects of one id, but over {RADIUS:g} arcsec apart"),
        )
        return [(number, text) for number, text in counts if number]

    def lines(self, path: Path) -> list[str]:
        """What to tell of it: how the table was read, then a line for each of the numbers."""
        others = f", not {' or '.join(self.others)}" if self.others else ""
        guess = f" (guessed{others}; --z-column names another)" if self.guessed else ""
        lines = [f"{path.name}: redshift from {self.column}{guess}"]
        lines += [f"matched by {self.match}"] if self.match else []
        lines += [f"{number:>8} {text}" for number, text in self.counts()]
        if self.quality_cut:
            lines.append(f"all its redshifts count; a cut by quality would be --where '{self.quality_cut}'")
        return lines

    def summary(self) -> str:
        """The same in a sentence."""
        how = f", matched by {self.match}" if self.match else ""
        return "; ".join([f"redshift from {self.column}{how}", *(f"{n} {text}" for n, text in self.counts())])


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
    by: dict[str, np.ndarray]
    """Columns, (N,) float64, by whose quarters the objects are judged, too."""
    rows_without_z_spec: int
    """Catalogue rows without a spectroscopic redshift."""
    missing_in_catalogue: int
    """Objects of the truth table that are not in the catalogue, for example rejected ones."""
    origin: Origin
    """Where the redshifts came from."""
    leaks: Leaks = Leaks(told=False)
    """Objects left out because they trained, selected or calibrated the model."""

    @property
    def z_phot(self) -> np.ndarray:
        """(N,) float64, NaN where there is no photo-z: what is infinite would be in an open bin."""
        z_phot = self.columns[self.z_phot_column]
        return np.where(np.isfinite(z_phot), z_phot, np.nan)

    def take(self, rows: np.ndarray) -> "Pairs":
        """Those of the objects, by a mask (N,)."""
        return self._replace(
            columns=take(self.columns, rows),
            z_spec=self.z_spec[rows],
            magnitude=self.magnitude and (self.magnitude[0], self.magnitude[1][rows]),
            by=take(self.by, rows),
        )


def read_pairs(
    path: Path,
    truth: TruthTable | None,
    match_by: str = AUTO,
    where: str | None = None,
    by: Sequence[str] = (),
    all_objects: bool = False,
) -> Pairs:
    """Read a catalogue and its truth: a table with redshifts, or else columns of the catalogue.

    match_by : one of MATCHES, how objects of the truth are found in the catalogue
    where : cut of the catalogue's rows, where it brings its own truth
    by : columns of the truth, or else of the catalogue; without any its magnitude
    all_objects : keep those that the model was made with, too

    Raises UsageError or InputRefused where there is nothing to compare.
    """
    catalogue, others, cut = _read(path, where if truth is None else None, by)
    if catalogue.keys() >= {TRUE, PREDICTED}:
        if truth:
            raise UsageError(f"{path} brings its own truth in column {TRUE}; leave --truth out")
        pairs = _from_one_table(path, PREDICTED, catalogue, TRUE, cut, others)
    elif not catalogue.keys() >= {ID, POINT}:
        raise InputRefused(f"{path} needs the columns {ID} and {POINT}, or {TRUE} and {PREDICTED}")
    elif truth:
        pairs = _from_two_tables(_z_phot_column(catalogue), catalogue, truth, match_by, by, others)
    elif _any_finite(catalogue, Z_SPEC):
        pairs = _from_one_table(path, _z_phot_column(catalogue), catalogue, Z_SPEC, cut, others)
    else:
        raise UsageError(f"{path} has no redshift in a column {Z_SPEC}; pass a table of them as --truth")
    if missing := [name for name in by if name not in pairs.by]:
        raise UsageError(f"--by {missing[0]}: there is no such column, neither in the truth nor in {path}")

    if not all_objects:
        pairs = _without_training_objects(pairs, catalogue)
    if not np.isfinite(pairs.z_phot).any():
        raise InputRefused(
            f"no object of {path} has both a photo-z and a spectroscopic redshift; check that catalogue and "
            f"truth are of one survey: {pairs.origin.summary()}"
        )
    return pairs


def _without_training_objects(pairs: Pairs, catalogue: dict[str, np.ndarray]) -> Pairs:
    """Leave out objects that trained, selected or calibrated the model: they cannot evaluate it."""
    if ID not in catalogue:
        return pairs
    unknown = np.full(len(catalogue[ID]), np.nan)
    role, ra, dec = (catalogue.get(name, unknown) for name in (IN_TRAINING, RA, DEC))
    unused, found = leaks.find(role, ra, dec, locate(catalogue[ID], pairs.columns[ID]))
    return pairs.take(unused)._replace(leaks=found)


def _z_phot_column(catalogue: dict[str, np.ndarray]) -> str:
    """Name of the column that is z_phot of all rows: a model without p(z) leaves PHOTOZ_BEST empty."""
    return BEST if _any_finite(catalogue, BEST) else POINT


def _any_finite(catalogue: dict[str, np.ndarray], name: str) -> bool:
    return name in catalogue and bool(np.isfinite(catalogue[name]).any())


def _from_one_table(
    path: Path,
    z_phot_column: str,
    catalogue: dict[str, np.ndarray],
    truth: str,
    cut: int,
    others: dict[str, np.ndarray],
) -> Pairs:
    z_spec = catalogue[truth]
    known = is_redshift(z_spec)
    check_redshifts(f"{path}: a redshift in {truth}", z_spec[known])
    return Pairs(
        z_phot_column,
        take(catalogue, known),
        z_spec[known],
        None,
        take(others, known),
        int((~known).sum()),
        missing_in_catalogue=0,
        origin=Origin(truth, (), False, "", len(z_spec) + cut, cut, redshifts.without_redshift(z_spec)),
    )


def _from_two_tables(
    z_phot_column: str,
    catalogue: dict[str, np.ndarray],
    asked: TruthTable,
    match_by: str,
    by: Sequence[str],
    others: dict[str, np.ndarray],
) -> Pairs:
    truth = redshifts.read(asked, (*magnitudes.MAGNITUDES, *by))
    if not len(truth.z):
        raise InputRefused(
            f"{asked.path} has no redshift left: of {truth.rows} rows {truth.cut} were left out by --where, "
            f"{sum(truth.absent.values())} have none in {truth.z_column.name}"
        )
    nowhere = np.full(len(catalogue[ID]), np.nan)
    place = catalogue.get(RA, nowhere), catalogue.get(DEC, nowhere)
    found = match(catalogue[ID], *place, truth, asked, match_by)
    columns = magnitudes.known(take(truth.columns, found.truth_rows))
    magnitude = magnitudes.first(columns)
    columns = take(others, found.rows) | columns
    return Pairs(
        z_phot_column,
        take(catalogue, found.rows),
        truth.z[found.truth_rows],
        magnitude,
        {name: columns[name] for name in by if name in columns} or dict(filter(None, [magnitude])),
        len(catalogue[ID]) - len(found.rows),
        found.missing,
        _origin(truth, found),
    )


def _origin(truth: Redshifts, found: Match) -> Origin:
    return Origin(
        truth.z_column.name,
        truth.z_column.others,
        not truth.z_column.certain,
        found.how,
        truth.rows,
        truth.cut,
        truth.absent,
        found.repeated,
        found.disagreeing,
        found.apart,
        truth.quality_cut,
    )


def take(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in table.items()}


def _read(
    path: Path, where: str | None, by: Sequence[str]
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], int]:
    """Those of CATALOGUE_COLUMNS and of `by` that a table has, of the rows kept; how many are not kept."""
    with formats.opened(path) as table:
        columns = {
            name: _ids(table) if name == ID else table.numbers(name, shape=SHAPES.get(name, ()))
            for name in CATALOGUE_COLUMNS
            if name in table.names
        }
        others = magnitudes.known(redshifts.numbers(table, by))
        kept = rows_where(where, table)
    return take(columns, kept), take(others, kept), len(kept) - int(kept.sum())


def _ids(table: Columns) -> np.ndarray:
    try:
        ids = as_ids(table.read(ID))
    except ValueError:
        ids = np.ma.masked_all(table.rows, np.int64)
    if np.ma.is_masked(ids):
        raise InputRefused(f"{table.path}: {ID} must hold one integer of 64 bits in every row")
    if (twice := repeated(ids.data)) is not None:
        raise InputRefused(f"{table.path}: {ID} {twice} has more than one row; keep one an object")
    return ids.data
