"""Where the p(z) of objects come from: a finished catalogue, or a cutout store and a bundle."""

import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from catalogs.errors import InputRefused
from catalogs.products import photoz, schema
from catalogs.products.finished import open_finished
from catalogs.products.model_input import Cutouts
from catalogs.products.pdf_grid import density_of_bins
from catalogs.products.quantiles import density_on
from catalogs.products.schema import CATALOGUE
from catalogs.store.cutouts import BLOCK, open_store
from catalogs.tables.columns import plain
from catalogs.tables.ids import as_ids
from mmae.bundles import columns
from mmae.bundles.bundle import Bundle
from mmae.production.predictor import Predictor, Setup
from mmae.production.units import Rows


class Found(NamedTuple):
    """What is known of n objects."""

    rows: np.ndarray
    """(n,) rows of the catalogue; null where it has none"""
    density: np.ndarray
    """(n, M) of p(z) at the points of a grid; NaN where there is no p(z)"""


class Source(Protocol):
    def find(self, object_id: np.ndarray, grid: np.ndarray) -> Found:
        """Objects by id (n,) int64, and p(z) at a grid (M,) of equal steps."""


class FromCatalogue:
    """The rows of a catalogue of `mmae infer`; p(z) is the polyline through its quantiles."""

    def __init__(self, path: Path, model_sha256: str):
        """Read the ids, and check all rows.

        Raises UsageError or InputRefused where there is no whole catalogue, or one of another model.
        """
        tile = open_finished(path)
        if (made_by := tile.provenance.get("PZMODEL")) != model_sha256:
            raise InputRefused(f"{path} was made by model {made_by}, not by the bundle's, {model_sha256}")
        ids = [block["OBJECT_ID"].astype(np.int64) for block in tile.blocks()]
        self.ids = Ids(np.concatenate(ids) if ids else np.zeros(0, np.int64))
        self.rows = np.memmap(path, tile.rows.dtype, "r", tile.rows.start, (tile.n,))

    def find(self, object_id: np.ndarray, grid: np.ndarray) -> Found:
        rows = schema.nulls(CATALOGUE, len(object_id))
        place = self.ids.find(object_id)
        rows[place >= 0] = self.rows[place[place >= 0]]
        density = np.full((len(rows), len(grid)), np.nan)
        known = np.isfinite(rows["PDF_QUANT"]).all(1)
        density[known] = density_on(rows["PDF_QUANT"][known], grid)
        return Found(rows, density)


class FromStore:
    """Rows of a cutout store, predicted when they are asked for; p(z) is the model's own, in all its bins."""

    def __init__(self, path: Path, bundle: Bundle):
        """Raises UsageError or InputRefused where there is no store that the model takes."""
        self.store, self.bundle = open_store(path), bundle
        bundle.input.check(self.store)
        umask = os.umask(0)
        os.umask(umask)
        self.predictor = Predictor(Setup.of(bundle, umask))
        self.predictor.begin()
        self.ids = Ids(self.store.column("object_id").astype(np.int64))
        self.edges = photoz.pdf_edges(**bundle.card["grid"])

    def find(self, object_id: np.ndarray, grid: np.ndarray) -> Found:
        rows = schema.nulls(CATALOGUE, len(object_id))
        density = np.full((len(rows), len(grid)), np.nan)
        place = self.ids.find(object_id)
        for block in np.unique(place[place >= 0] // BLOCK).tolist():
            wanted = np.flatnonzero((place >= 0) & (place // BLOCK == block))
            start = block * BLOCK
            kept, found, mass = self.predict(start, place[wanted] - start)
            rows[wanted[kept]] = found
            density[wanted[kept]] = density_of_bins(mass, self.edges, grid)
        return Found(rows, density)

    def predict(self, start: int, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of rows `wanted` (m,) of the block at `start`: which are not rejected, their rows, p(z) (k, K)."""
        store, stop = self.store, min(self.store.n, start + BLOCK)
        known = {name: store.column(name, start, stop)[wanted] for name in ("object_id", "ra", "dec")}
        known["object_id"] = known["object_id"].astype(np.int64)
        cutouts = Cutouts(*(part[wanted] for part in self.predictor.read(store, start, stop)))
        table, pdf, reason, flags, observed = self.predictor.predict(
            cutouts, known["object_id"], self.bundle.z_range, with_pdf=True
        )
        values = columns.named(table)
        ids = store.column("object_id", start, stop).astype(np.int64)
        ra, dec = (store.column(name, start, stop) for name in ("ra", "dec"))
        more = self.predictor.known(store, Rows(0, start, stop), object_id=ids, ra=ra, dec=dec)
        values |= {name: column[wanted] for name, column in more.items()}
        catalogue, _ = photoz.rows(**known, columns=values, flags=flags, reason=reason, observed=observed)
        kept = reason == ""
        return kept, catalogue, pdf[kept]


NO_ID = np.iinfo(np.int64).min
"""In the place of an id that is absent: it is that of no object."""


def ids_of(column: Any, name: str) -> np.ndarray:
    """Ids (n,) int64 of a column of an input table; NO_ID where there is none.

    Raises InputRefused where they are no such ids, or floats that are not exact: a rounded id is another's.
    """
    try:
        return as_ids(plain(np.ma.asarray(column))).filled(NO_ID)
    except ValueError as error:
        raise InputRefused(f"the column {name} of the input has {error}") from error


class Ids:
    """Finds rows by id."""

    def __init__(self, ids: np.ndarray):
        self.order = np.argsort(ids, kind="stable")
        self.sorted = ids[self.order]

    def find(self, wanted: np.ndarray) -> np.ndarray:
        """The row of each id, (n,) int64; -1 where there is none."""
        if not len(self.sorted):
            return np.full(len(wanted), -1)
        place = np.searchsorted(self.sorted, wanted).clip(max=len(self.sorted) - 1)
        return np.where(self.sorted[place] == wanted, self.order[place], -1)
