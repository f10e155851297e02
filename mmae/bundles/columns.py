"""The columns of the catalogue that come from the model, and their places in the table of an engine."""

import numpy as np

from catalogs.object_id import hash_ids
from catalogs.products.schema import QUANTILE_LEVELS
from catalogs.store.format import SPECTYPES

MC_SEED = 1
"""Seed of PHOTOZ_MC; in the header of every catalogue."""
POINT, QUANTILES = "PHOTOZ_POINT", "PDF_QUANT"
CLASSES = tuple(f"P_{name}" for name in SPECTYPES[1:])
"""Probabilities of star, galaxy and quasar."""
SHAPE = {
    POINT: 1,
    "OOD_SCORE": 1,
    "SPEC_DISTANCE": 1,
    "PHOTOZ_BEST": 1,
    "PHOTOZ_RISK_BEST": 1,
    "PHOTOZ_CONF_BEST": 1,
    "PHOTOZ_STD_BEST": 1,
    "PHOTOZ_MEAN": 1,
    "PHOTOZ_MODE": 1,
    "PHOTOZ_MODE2": 1,
    "PHOTOZ_MC": 1,
    "PHOTOZ_MEDIAN": 1,
    "PHOTOZ_ERR68_MIN": 1,
    "PHOTOZ_ERR68_MAX": 1,
    "PHOTOZ_ERR95_MIN": 1,
    "PHOTOZ_ERR95_MAX": 1,
    QUANTILES: len(QUANTILE_LEVELS),
    **dict.fromkeys(CLASSES, 1),
}
"""Columns in order, and their widths; a model without p(z) has only the first, one without classes has NaN in
the last three."""
WITH_PDF = sum(SHAPE.values())
WITHOUT_PDF = 3
"""Number of columns that a model with p(z) has, and one without."""


def draws(object_id: np.ndarray) -> np.ndarray:
    """A number from 0 to 1 for each object, by its id and the seed alone: (N,) -> (N,) float32."""
    even = hash_ids(object_id.astype(np.uint64) ^ hash_ids(np.array([MC_SEED])))
    return (even / 2.0**64).astype(np.float32)


def named(rows: np.ndarray) -> dict[str, np.ndarray]:
    """(N, C) -> columns by name, (N,) each, or (N, width)."""
    columns, start = {}, 0
    for name, width in SHAPE.items():
        if start < rows.shape[1]:
            columns[name] = rows[:, start] if width == 1 else rows[:, start : start + width]
        start += width
    return columns


def colours(rows: np.ndarray) -> np.ndarray:
    """The white photometry (N, F) that stands after the columns (N, C) of a model with p(z)."""
    return rows[:, WITH_PDF:]


def point_estimate(columns: dict[str, np.ndarray]) -> np.ndarray:
    """The redshifts (N,) to evaluate by: of least risk, or of the scalar head where there is no p(z)."""
    return columns.get("PHOTOZ_BEST", columns[POINT])
