"""The stages: an Informer that takes a bundle for a model, and an Estimator that gives its p(z) by id."""

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import qp
from ceci.config import StageParameter
from rail.core.common_params import SharedParams
from rail.core.data import ModelHandle, TableHandle
from rail.core.enums import DistributionType
from rail.estimation.estimator import CatEstimator
from rail.estimation.informer import CatInformer

from catalogs.errors import InputRefused, UsageError
from catalogs.products import schema
from catalogs.products.qp_ensemble import PDF, ancil_name
from catalogs.products.schema import CATALOGUE
from mmae.bundles.bundle import Bundle, open_bundle
from mmae.rail.sources import Found, FromCatalogue, FromStore, Source, ids_of

KNOWN = "has_pdf"
"""Column of ancil: 1 where there is a p(z), 0 where it is flat over the grid, as nothing is known."""


class MmaeInformer(CatInformer):
    """Takes a bundle of `mmae export` for a model of RAIL: its path, and the sha256 of all that decides.

    It trains nothing, and has no input: `mmae train` and `mmae export` have made the bundle.
    """

    name = "MmaeInformer"
    entrypoint_function = "inform"
    inputs: ClassVar[list] = []
    config_options = CatInformer.config_options.copy()
    config_options.update(
        bundle=StageParameter(str, required=True, msg="Folder of the model bundle: RUN/bundle."),
    )

    def run(self) -> None:
        """Raises UsageError or InputRefused where there is no whole bundle, or one without p(z)."""
        bundle = open_bundle(Path(self.config.bundle).resolve())
        if not bundle.card["grid"]:
            raise InputRefused(f"the model of {bundle.path} gives a redshift alone, no p(z)")
        model = {"bundle": str(bundle.path), "sha256": bundle.sha256, "precision": bundle.precision}
        self.add_data("model", model)

    def inform(self, training_data: Any = None, **kwargs: Any) -> ModelHandle:
        """The model. Nothing is trained: training data are not looked at."""
        self.run()
        self.finalize()
        return self.get_handle("model")


class MmaeEstimator(CatEstimator):
    """Gives the p(z) of objects, by their ids in the input table, on RAIL's grid from zmin to zmax.

    They are those of a finished catalogue of the model, or are computed from a cutout store; other columns of
    the input are not looked at. The columns of the catalogue are in ancil, as `mmae qp` writes them. An
    object that is not there, or was rejected, has a flat p(z), and `has_pdf` 0.
    """

    name = "MmaeEstimator"
    entrypoint_function = "estimate"
    inputs: ClassVar[list] = [("model", ModelHandle), ("input", TableHandle)]
    config_options = CatEstimator.config_options.copy()
    config_options.update(
        store=StageParameter(str, "", msg="Cutout store (Zarr) of the objects; or:"),
        catalogue=StageParameter(str, "", msg="Catalogue of `mmae infer`, TILE.photoz.fits, of this model."),
        id_col=SharedParams.copy_param("id_col"),
    )

    def open_model(self, tag: str = "model", **kwargs: Any) -> dict[str, str]:
        """Open the bundle, and what the objects are in.

        Raises UsageError or InputRefused where there is neither catalogue nor store, or both, or they are of
        another model; where the bundle is not the one that the Informer has seen.
        """
        self.model = super().open_model(tag, **kwargs)
        bundle = open_bundle(Path(self.model["bundle"]), self.model["precision"])
        if bundle.sha256 != self.model["sha256"]:
            raise InputRefused(f"{bundle.path} is no longer the bundle of the Informer: inform again")
        self.source = self._open_source(bundle)
        return self.model

    def _open_source(self, bundle: Bundle) -> Source:
        store, catalogue = self.config.store, self.config.catalogue
        if bool(store) == bool(catalogue):
            raise UsageError(
                "name a cutout store or a catalogue in the stage's configuration, one of the two"
            )
        if store:
            return FromStore(Path(store), bundle)
        return FromCatalogue(Path(catalogue), bundle.sha256)

    def validate(self) -> None:
        """Check that the input has ids. Raises KeyError where it has none."""
        self.stage_columns = [self.config.id_col]
        self._check_column_names(self.get_handle("input", allow_missing=True), self.stage_columns)

    @classmethod
    def default_distribution_type(cls) -> DistributionType:
        return DistributionType.posterior

    def _process_chunk(self, start: int, end: int, data: Any, first: bool) -> None:
        grid = np.linspace(self.config.zmin, self.config.zmax, self.config.nzbins)
        found = self.source.find(ids_of(data[self.config.id_col], self.config.id_col), grid)
        self._do_chunk_output(ensemble(found, grid), start, end, first, data=data)


def ensemble(found: Found, grid: np.ndarray) -> qp.Ensemble:
    """Objects as an ensemble of densities on a grid, with the columns of the catalogue."""
    known = np.isfinite(found.density).all(1)
    density = np.where(known[:, None], found.density, 1 / (grid[-1] - grid[0]))
    ancil = {
        ancil_name(column.name): found.rows[column.name].astype(np.dtype(column.dtype).newbyteorder("="))
        for column in schema.columns(CATALOGUE)
        if column.name != PDF
    }
    made = qp.Ensemble(qp.interp_gen, {"xvals": grid, "yvals": density})
    made.set_ancil(ancil | {KNOWN: known.astype(np.int64)})
    return made
