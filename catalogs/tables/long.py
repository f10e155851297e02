"""Tables with a row an object and band, as the downloader of Hyrax writes (`manifest.fits`): a row an object.

Such a row names one file. Of a column of text, NAME_BAND is the value in the row of that band.
"""

from collections.abc import Sequence

import numpy as np

from catalogs.errors import InputRefused
from catalogs.tables import names
from catalogs.tables.columns import Columns
from catalogs.tables.ids import as_ids

BAND = ("filter", "band")
"""Names, in any case, of the column that says which band a row is of."""


def folded(table: Columns, candidates: Sequence[str]) -> tuple[Columns, np.ndarray]:
    """The table with a row an object, in the order in which they come first, and the numbers of those rows.

    candidates : columns that may be the id, the likeliest first; it is the first whose values repeat

    One whose ids are there once, or that has no column BAND, comes back as it is. Raises InputRefused where
    an object has two rows of a band.
    """
    as_it_is = table, np.arange(table.rows)
    band_name = next((found for name in BAND if (found := names.find(table.names, name))), None)
    if band_name is None or not candidates:
        return as_it_is
    try:
        ids = as_ids(table.read(candidates[0]))
    except ValueError:  # who reads the ids says what is wrong
        return as_it_is
    _, first, inverse = np.unique(ids.data, return_index=True, return_inverse=True)
    if len(first) == table.rows or np.ma.is_masked(ids):
        return as_it_is
    order = np.argsort(first, kind="stable")
    first, place = first[order], np.argsort(order)[inverse.reshape(-1)]  # of each row, its object's number
    bands = table.texts(band_name)
    rows_of = {band: np.flatnonzero(bands == band) for band in dict.fromkeys(bands.tolist())}
    for band, rows in rows_of.items():
        objects, counts = np.unique(place[rows], return_counts=True)
        if (counts > 1).any():
            twice = ids.data[first[objects[counts > 1][0]]]
            raise InputRefused(
                f"{table.path} has the object {twice} in {counts.max()} rows of {band_name} {band}: keep one"
            )
    texts = [name for name in table.names if name != band_name and table.read(name).dtype.kind == "U"]
    of_band = {f"{name}_{band}": (name, rows) for band, rows in rows_of.items() for name in texts}

    def read(name: str) -> np.ma.MaskedArray:
        if name not in of_band:
            return table.read(name)[first]
        whole, rows = of_band[name]
        column = table.read(whole)
        values = np.ma.masked_all(len(first), column.dtype)
        values[place[rows]] = column[rows]
        return values

    return table._replace(names=(*table.names, *of_band), rows=len(first), read=read), first
