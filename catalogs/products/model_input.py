"""What a model takes of a store: its bands, in its unit, on its pixels, without those that hold no data.

And what the store says of each object beside its image, the conditions of its observation: (N, 2 * bands + 1)
float32, sigma of the sky a pixel in each band (flux), FWHM of the seeing in each band (arcsec), and E(B - V)
of the Galaxy (mag); NaN: not known. After them stand the columns of a catalogue that the model takes, if any.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

from catalogs.bands import match
from catalogs.errors import InputRefused
from catalogs.products.schema import Flag
from catalogs.products.screen import screen_images
from catalogs.store.cutouts import CutoutStore, pad
from catalogs.store.format import COLUMNS
from catalogs.store.resampling import footprint, resample

TOLD = ("psf_fwhm", "ebv")
"""What a model can be told beside the noise, which it measures otherwise."""
NOTHING = (99, 99.9, 99.99, 999, 9999, -9, -99, -999, -9999, -99.9, 1e20, -1e20)
"""Numbers that stand in columns of catalogues for nothing; no magnitude or size is exactly one of them."""
MAX_ZERO_POINT_SHIFT = 32.0
"""mag; units in use are from nJy (31.4) to maggies (0) of AB."""


def is_something(values: np.ndarray) -> np.ndarray:
    """Which float32 numbers of a catalogue, of any shape, are finite, and none that stands for nothing."""
    return np.isfinite(values) & ~np.isin(values, np.array(NOTHING, np.float32))


class Cutouts(NamedTuple):
    """Cutouts of N objects for a model, screened."""

    image: np.ndarray
    """(N, bands, 64, 64) float32; NaN: no data"""
    conditions: np.ndarray
    """(N, 2 * bands + 1 + C) float32; see above"""
    reason: np.ndarray
    """(N,) str, a `Reject`, or "" for a usable cutout"""
    flags: np.ndarray
    """(N,) int64 of `Flag`"""
    observed: np.ndarray
    """(N, bands) bool; the pixels of other bands are all NaN"""


@dataclass(frozen=True)
class ModelInput:
    """The images of a model."""

    bands: tuple[str, ...]
    """Names in the order of its planes."""
    zero_point: float
    """AB magnitude of flux 1."""
    pixel_scale: float
    """arcsec"""
    least_bands: int
    """Observed bands that it needs of an object."""
    told: tuple[str, ...] = ()
    """Which of TOLD it learned from."""
    columns: tuple[str, ...] = ()
    """Names of the columns of a catalogue that it takes."""

    @classmethod
    def of(cls, trained_on: Mapping[str, Any], least_bands: int) -> Self:
        """The images of a model, by the description of its training data."""
        zero_point, pixel_scale = (float(trained_on[name]) for name in ("zero_point", "pixel_scale"))
        told = tuple(trained_on.get("told", ()))
        columns = tuple(trained_on.get("columns", ()))
        return cls(tuple(trained_on["bands"]), zero_point, pixel_scale, least_bands, told, columns)

    @property
    def told_width(self) -> int:
        """Numbers that are told of each object beside its image."""
        return 2 * len(self.bands) + 1 + len(self.columns)

    def check(self, store: CutoutStore) -> None:
        """Raise InputRefused for a store with too few bands, or whose unit or pixels are too unlike."""
        store.pixel_ratio(self.pixel_scale)
        missing = match(self.bands, store.bands).count(None)
        if len(self.bands) - missing < self.least_bands:
            raise InputRefused(
                f"{store.path} has the bands {' '.join(store.bands)}, the model knows {' '.join(self.bands)} "
                f"and needs {self.least_bands} of them: if they are the same, say so with --bands"
            )
        if abs(store.zero_point - self.zero_point) > MAX_ZERO_POINT_SHIFT:
            raise InputRefused(
                f"{store.path} has zero_point {store.zero_point} AB mag, the model was trained at "
                f"{self.zero_point}: no survey has such fluxes, state the right one"
            )

    def differences(self, store: CutoutStore) -> str:
        """How the bands of a store are taken for those of the model, where they are not the same.

        And what the model learned from that is not told here.
        """
        planes = match(self.bands, store.bands)
        pairs = [
            (store.own_bands[plane], band)
            for band, plane in zip(self.bands, planes, strict=True)
            if plane is not None
        ]
        taken = [f"{own} for {band}" for own, band in pairs if own != band]
        unknown = [band for plane, band in enumerate(store.bands) if plane not in planes]
        missing = [band for band, plane in zip(self.bands, planes, strict=True) if plane is None]
        missing += [name for name in self.told if not store.has(name)]
        missing += [name for name in self.columns if not store.has(f"{COLUMNS}/{name}")]
        said = [f"takes {', '.join(taken)}"] if taken else []
        said += [f"leaves out {', '.join(unknown)}, which the model does not know"] if unknown else []
        said += [f"goes on without {', '.join(missing)}"] if missing else []
        return "; ".join(said)

    def read(self, store: CutoutStore, start: int, stop: int) -> Cutouts:
        """Rows start:stop, screened.

        Pixels without data are found among the numbers of the file, before any is mixed with others. How many
        are too many is counted on the pixels that the model gets. Raises InputRefused for a pixel scale that
        is too far from that of the store.
        """
        flux_scale, ratio = store.flux_scale(self.zero_point), store.pixel_ratio(self.pixel_scale)
        if ratio == 1:
            image, damaged = store.images(start, stop, self.bands)
            screened = screen_images(pad(image), damaged, flux_scale, self.least_bands)
            image, reason, flags, observed = screened
            return Cutouts(image, self.conditions(store, start, stop), reason, flags, observed)
        image, damaged = store.images(start, stop, self.bands, footprint(ratio))
        own = screen_images(image, damaged, least_bands=0, most_no_data=1.0)
        resampled = resample(own.image, ratio)
        screened = screen_images(resampled, damaged, flux_scale, self.least_bands, sentinels=False)
        rejected = own.reason != ""
        screened.image[rejected] = 0
        reason = np.where(rejected, own.reason, screened.reason)
        return Cutouts(
            screened.image,
            self.conditions(store, start, stop),
            reason,
            screened.flags | own.flags & Flag.BLEED_TRAIL.value | Flag.RESAMPLED.value,
            screened.observed,
        )

    def conditions(self, store: CutoutStore, start: int, stop: int) -> np.ndarray:
        """Conditions of rows start:stop in the unit of the model, and columns.

        (m, 2 * bands + 1 + C) float32. The noise of resampled images is not that of the store.
        """
        planes, m = match(self.bands, store.bands), stop - start
        known = np.full((m, self.told_width), np.nan, np.float32)
        ebv = 2 * len(planes)
        known[:, ebv + 1 :] = self.columns_of(store, start, stop)
        factors = {"noise": store.flux_scale(self.zero_point), "psf_fwhm": 1.0}
        if store.pixel_ratio(self.pixel_scale) != 1:
            del factors["noise"]
        for first, name in ((0, "noise"), (len(planes), "psf_fwhm")):
            if name in factors and store.has(name):
                values = store.column(name, start, stop)
                values = np.where(values > 0, values, np.nan) * factors[name]
                for band, plane in enumerate(planes):
                    if plane is not None:
                        known[:, first + band] = values[:, plane]
        if store.has("ebv"):
            values = store.column("ebv", start, stop)
            known[:, ebv] = np.where(values >= 0, values, np.nan)
        return known

    def columns_of(self, store: CutoutStore, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Columns of the catalogue of rows start:stop, (m, C) float32; NaN: not known.

        What is infinite, or a number that catalogues write for nothing, is not known.
        """
        stop = store.n if stop is None else stop
        values = np.full((stop - start, len(self.columns)), np.nan, np.float32)
        for k, name in enumerate(self.columns):
            column = store.further(name, start, stop)
            if column is not None:
                with np.errstate(over="ignore"):
                    column = column.astype(np.float32)
                values[:, k] = np.where(is_something(column), column, np.nan)
        return values
