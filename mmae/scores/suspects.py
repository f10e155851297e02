"""Spectroscopic redshifts that p(z) disbelieves most: wrong ones, and galaxies that fooled the model."""

from pathlib import Path

import numpy as np
from astropy.table import Table

from catalogs import atomic
from catalogs.errors import InputRefused
from catalogs.place import Place
from catalogs.products.schema import QUANTILE_LEVELS
from catalogs.store.cutouts import open_store
from catalogs.store.preview import contact_sheet, read_composites
from catalogs.surveys.desi import locate
from mmae.bundles.columns import QUANTILES
from mmae.scores.pairs import ID, IN_TRAINING, INTERVALS, Z_SPEC, Pairs, take

DISTANCE, TABLE, PAGE = "DISTANCE", "suspects.ecsv", "suspects.png"
LEAST_WIDTH = 1e-3
"""Smallest half of a p(z), over 1 + z: no redshift from images is better."""
MOST_DRAWN = 96
"""Cutouts of a page, the most suspect."""
DESCRIPTIONS = {
    ID: "the object",
    Z_SPEC: "the redshift that p(z) disbelieves",
    "PHOTOZ": "the redshift of the catalogue",
    INTERVALS[2]: "lower end of its 95 % interval",
    INTERVALS[3]: "upper end of its 95 % interval",
    DISTANCE: "of Z_SPEC from the median of p(z), in units of that side of its quantiles",
    IN_TRAINING: "1 or 2: the model was made with this redshift, and doubts it all the same",
}


def distance(quantiles: np.ndarray, z_spec: np.ndarray) -> np.ndarray:
    """Distances (N,) of redshifts (N,) from the medians of p(z), by its quantiles (N, 20).

    In units of the distance of the outermost quantile on that side: above 1 are 5 % of the redshifts if all
    p(z) are right. Beyond, it says how far, where no quantile does.
    """
    middle = len(QUANTILE_LEVELS) // 2
    median = quantiles[:, middle - 1 : middle + 1].mean(1)
    least = LEAST_WIDTH * (1 + median)
    above = (z_spec - median) / np.maximum(quantiles[:, -1] - median, least)
    below = (median - z_spec) / np.maximum(median - quantiles[:, 0], least)
    return np.maximum(above, below)


def suspects(pairs: Pairs, count: int) -> Table:
    """The `count` most disbelieved redshifts of those with a p(z), the worst first.

    Raises InputRefused where there is no p(z).
    """
    told = pairs.columns.keys() >= {ID, QUANTILES, *INTERVALS}
    has_pdf = np.isfinite(pairs.columns[QUANTILES]).all(1) if told else np.zeros(0, bool)
    if not has_pdf.any():
        raise InputRefused("the catalogue has no p(z) to doubt redshifts by")
    columns, z_spec = take(pairs.columns, has_pdf), pairs.z_spec[has_pdf]
    far = distance(columns[QUANTILES], z_spec)
    worst = np.argsort(-far, kind="stable")[:count]
    found = {
        ID: columns[ID],
        Z_SPEC: z_spec,
        "PHOTOZ": columns[pairs.z_phot_column],
        **{name: columns[name] for name in INTERVALS[2:]},
        DISTANCE: far,
    }
    if IN_TRAINING in columns:
        found[IN_TRAINING] = columns[IN_TRAINING]
    table = Table({name: values[worst] for name, values in found.items()})
    for name in table.colnames:
        table[name].description = DESCRIPTIONS[name]
    return table


def write(table: Table, out: Path, images: Place | None) -> list[str]:
    """Write the table, and a page of their images from a store; returns the names of the files.

    Raises InputRefused for a store without these objects.
    """
    composites, drawn = None, table[:MOST_DRAWN]
    if images is not None:
        store = open_store(images)
        rows = locate(store.column("object_id"), np.asarray(drawn[ID]))
        if (missing := drawn[ID][rows < 0]).size:
            raise InputRefused(f"{images} lacks object {missing[0]}: name the store that was inferred on")
        composites = read_composites(store, rows.tolist())
    out.mkdir(parents=True, exist_ok=True)
    (out / PAGE).unlink(missing_ok=True)
    with atomic.replacing(out / TABLE) as temporary:
        table.write(temporary, format="ascii.ecsv")
    if composites is None:
        return [TABLE]
    labels = [f"{row[ID]}\nspec {row[Z_SPEC]:.3f} phot {row['PHOTOZ']:.3f}" for row in drawn]
    contact_sheet(composites, labels, out / PAGE)
    return [TABLE, PAGE]
