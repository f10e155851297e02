"""Classes of objects against what they are: completeness and purity, and whether their probabilities hold."""

from pathlib import Path

import numpy as np
from astropy.table import Table

from catalogs.errors import InputRefused
from catalogs.store.format import SPECTYPES
from catalogs.tables import formats, redshifts
from catalogs.tables.redshifts import TruthTable
from mmae.bundles.columns import CLASSES as COLUMNS
from mmae.scores.catalogue import leaks, magnitudes
from mmae.scores.catalogue.matching import match

CLASSES = SPECTYPES[1:]
"""Star, galaxy and quasar, in the order of the columns of a catalogue."""
LEAST = 10
"""Objects of a bin of magnitude, at the least."""
DESCRIPTIONS = {
    "magnitude": "all, or a range of one magnitude",
    "class": "what the objects are by their spectra, and are likeliest by their images",
    "n": "objects of the class",
    "completeness": "share of them that are likeliest of the class",
    "purity": "share of those that are likeliest of the class, and are",
    "expected": "sum of the probabilities of the class over all objects: n, if they are right",
}


def table(probability: np.ndarray, spectype: np.ndarray, magnitude: np.ndarray | None = None) -> Table:
    """Completeness and purity of each class, of all objects and by magnitude.

    probability (N, 3): of CLASSES; spectype (N,): codes of SPECTYPES, none of them 0; magnitude (N,): NaN
    where it is not known. A share of no object is NaN.
    """
    bins = {"all": np.ones(len(spectype), bool)}
    if magnitude is not None:
        whole = np.floor(magnitude)
        for first in np.unique(whole[np.isfinite(whole)]).astype(int).tolist():
            inside = whole == first
            if inside.sum() >= LEAST:
                bins[f"{first}-{first + 1}"] = inside
    rows = [
        {"magnitude": name, **row}
        for name, inside in bins.items()
        for row in _scores(probability[inside], spectype[inside])
    ]
    scores = Table(rows=rows)
    for name, description in DESCRIPTIONS.items():
        scores[name].description = description
    return scores


def of_catalogue(path: Path, asked: TruthTable, match_by: str) -> Table | None:
    """The table of a catalogue, of the objects whose class a table of truth tells, by its magnitude.

    None where the table tells none of them, or the catalogue has no probabilities. Objects that the model was
    made with are left out.
    """
    with formats.opened(path) as catalogue:
        names = ("RA", "DEC", "IN_TRAINING", *COLUMNS)
        if not set(names) | {"OBJECT_ID"} <= set(catalogue.names):
            return None
        ids = catalogue.read("OBJECT_ID").data.astype(np.int64)
        columns = {name: catalogue.numbers(name) for name in names}
    truth = redshifts.read_classes(asked, magnitudes.MAGNITUDES)
    if truth is None or not len(truth.z) or not np.isfinite(columns[COLUMNS[0]]).any():
        return None
    place = columns["RA"], columns["DEC"]
    try:
        found = match(ids, *place, truth, asked, match_by)
    except InputRefused:  # the redshifts were found, but the classes are all of other objects
        return None
    unused, _ = leaks.find(columns["IN_TRAINING"], *place, found.rows)
    probability = np.stack([columns[name][found.rows] for name in COLUMNS], 1)
    unused &= np.isfinite(probability).all(1)
    rows = found.truth_rows[unused]
    magnitude = magnitudes.first(magnitudes.known(truth.columns))
    return table(probability[unused], truth.z[rows].astype(int), magnitude and magnitude[1][rows])


def _scores(probability: np.ndarray, spectype: np.ndarray) -> list[dict[str, str | int | float]]:
    likeliest = probability.argmax(1) + 1
    rows: list[dict[str, str | int | float]] = []
    for code, name in enumerate(CLASSES, 1):
        is_one, taken = spectype == code, likeliest == code
        both = int((is_one & taken).sum())
        rows.append(
            {
                "class": name,
                "n": int(is_one.sum()),
                "completeness": _share(both, int(is_one.sum())),
                "purity": _share(both, int(taken.sum())),
                "expected": float(probability[:, code - 1].sum()),
            }
        )
    return rows


def _share(part: int, of: int) -> float:
    return part / of if of else float("nan")
