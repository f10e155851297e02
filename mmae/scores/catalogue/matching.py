"""Redshifts of a table of others, each with the object of a catalogue that it belongs to."""

from typing import NamedTuple

import numpy as np

from catalogs.errors import InputRefused, UsageError
from catalogs.surveys.desi import locate
from catalogs.tables.names import listed
from catalogs.tables.redshifts import Redshifts, TruthTable
from mmae.bundles.roles import RADIUS, Positions, directions, has_position

BY_ID, BY_POSITION, AUTO = "id", "position", "auto"
MATCHES = (AUTO, BY_ID, BY_POSITION)
SAME = 0.003
"""Redshifts of an object agree where they differ by no more than this times 1 + z, some 1000 km/s."""
MOSTLY = 0.5
"""Share of the objects of equal ids that must be at one position; with fewer, the ids are of two surveys."""


class Match(NamedTuple):
    """m objects of the catalogue, by increasing id, that have a redshift in the table."""

    rows: np.ndarray
    """(m,) rows of the catalogue"""
    truth_rows: np.ndarray
    """(m,) rows of the redshifts"""
    how: str
    """In words: by which columns, and why these."""
    missing: int
    """Rows of the table whose objects are not in the catalogue."""
    repeated: int
    """Rows of the table beyond the first of their object."""
    disagreeing: int
    """Objects left out because their rows disagree."""
    apart: int
    """Objects matched by id whose positions are more than RADIUS apart."""


def match(
    ids: np.ndarray, ra: np.ndarray, dec: np.ndarray, truth: Redshifts, asked: TruthTable, by: str
) -> Match:
    """Find the objects (N,) of a catalogue that have a redshift; ids int64, positions degrees or NaN.

    By id where the table has ids of the catalogue, unless they belong to objects elsewhere on the sky; else
    by position: the nearest object within RADIUS. Of redshifts of one object that agree the first counts; an
    object whose redshifts disagree has none.

    Raises UsageError where `by` asks for what the tables do not have, or for two things, InputRefused where
    nothing can be matched.
    """
    if by == BY_POSITION and asked.id:
        raise UsageError("--id-column is for a match by id: leave out it or --match position")
    if by == AUTO and asked.ra and not asked.id:
        by = BY_POSITION  # who names positions means them
    by_id = None if by == BY_POSITION else _by_id(ids, truth)
    if by == BY_ID or asked.id:
        if not truth.ids:
            raise UsageError(f"{asked.path} has no integers under a usual name of an id: pass --id-column")
        found, how = by_id or (np.full(len(truth.z), -1), f"{BY_ID}, {listed(list(truth.ids))}")
    elif by_id and _mostly_near(by_id[0], ra, dec, truth):
        found, how = by_id
    else:
        found, how = _by_position(ra, dec, truth, asked, by)
    apart = 0 if how.startswith(BY_POSITION) else _distances(found, ra, dec, truth) > RADIUS
    return _one_each(ids, found, truth.z)._replace(how=how, apart=int(np.sum(apart)))


def _by_id(ids: np.ndarray, truth: Redshifts) -> tuple[np.ndarray, str] | None:
    """Rows of the catalogue (n,), -1 where there is none, by the first column with any of its ids."""
    for name, column in truth.ids.items():
        found = np.where(np.ma.getmaskarray(column), -1, locate(ids, column.data))
        if (found >= 0).any():
            return found, f"{BY_ID}, {name}"
    return None


def _distances(found: np.ndarray, ra: np.ndarray, dec: np.ndarray, truth: Redshifts) -> np.ndarray:
    """Distances (p,), arcsec, of matched rows whose positions are known."""
    pairs = np.flatnonzero(found >= 0)
    pairs = pairs[has_position(truth.ra[pairs], truth.dec[pairs])]
    pairs = pairs[has_position(ra[found[pairs]], dec[found[pairs]])]
    rows = found[pairs]
    apart = directions(truth.ra[pairs], truth.dec[pairs]) - directions(ra[rows], dec[rows])
    return np.degrees(2 * np.arcsin(np.linalg.norm(apart, axis=1).clip(max=2) / 2)) * 3600


def _mostly_near(found: np.ndarray, ra: np.ndarray, dec: np.ndarray, truth: Redshifts) -> bool:
    """Whether objects of equal ids are at one position: surveys number other objects alike."""
    distances = _distances(found, ra, dec, truth)
    return not len(distances) or bool(np.mean(distances <= RADIUS) >= MOSTLY)


def _by_position(
    ra: np.ndarray, dec: np.ndarray, truth: Redshifts, asked: TruthTable, by: str
) -> tuple[np.ndarray, str]:
    """Rows of the catalogue (n,), -1 where there is none within RADIUS, and why it is by position."""
    if truth.ids:
        ids = f"the ids of {asked.path.name} ({listed(list(truth.ids))}) are not those of the catalogue"
    else:
        ids = f"{asked.path.name} has no id under a usual name"
    because = "" if by == BY_POSITION else f"{ids}, and "
    if truth.position is None:
        raise InputRefused(
            f"{because}no position in degrees: pass --ra-column and --dec-column, or --id-column"
        )
    if not has_position(ra, dec).any():
        raise InputRefused(f"{because}the catalogue has no positions to match by: pass --id-column")
    why = f", as {ids}" if because else ""
    how = f"{BY_POSITION}, {' '.join(truth.position)} within {RADIUS:g} arcsec{why}"
    return Positions(ra, dec).nearest(truth.ra, truth.dec), how


def _one_each(ids: np.ndarray, found: np.ndarray, z: np.ndarray) -> Match:
    """One redshift for each object that has any: the first, if all of it agree."""
    truth_rows = np.flatnonzero(found >= 0)
    # by id, so that the bootstrap does not depend on the order of the files
    truth_rows = truth_rows[np.argsort(ids[found[truth_rows]], kind="stable")]
    if not len(truth_rows):
        return Match(truth_rows, truth_rows, "", len(found), 0, 0, 0)
    _, first = np.unique(ids[found[truth_rows]], return_index=True)
    highest, lowest = (part.reduceat(z[truth_rows], first) for part in (np.maximum, np.minimum))
    agree = highest - lowest <= SAME * (1 + lowest)
    chosen = truth_rows[first][agree]
    return Match(
        rows=found[chosen],
        truth_rows=chosen,
        how="",
        missing=len(found) - len(truth_rows),
        repeated=int((np.diff([*first, len(truth_rows)]) - 1)[agree].sum()),
        disagreeing=int((~agree).sum()),
        apart=0,
    )
