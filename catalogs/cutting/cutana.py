"""The batches of Cutana (ESA): batch_*/images.zarr and, beside it, images_metadata.parquet.

The archive holds `images` (n, H, W, channels); a row of the metadata source_id, ra, dec, idx_in_zarr, and
diameter_pixel or diameter_arcsec. Cutouts of each diameter were resized to H pixels, so that those of another
have another pixel scale; that of the first is what --pixel-scale says, or its diameter in arcsec over H (of a
padding_factor of 1). What was stretched for the eye is no flux.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from catalogs.cutting.universe import REMEDY, Item
from catalogs.errors import InputRefused
from catalogs.store.checks import METADATA, check_codecs, refusing
from catalogs.store.chunks import check_chunk, chunks_of
from catalogs.store.format import get_array

IMAGES, META = "images.zarr", "images_metadata.parquet"
DIAMETERS = ("diameter_arcsec", "diameter_pixel")
LOOKED = 16
"""Cutouts of a batch that are looked at: among the pixels of their sky, some are negative."""


class CutanaPart:
    """A batch."""

    has_spectra = False

    def __init__(self, folder: Path, bands: Sequence[str], pixel_scale: float | None):
        from pyarrow import parquet

        self.path, self.bands = folder / META, list(bands)
        self.fields = {"flux", "band"}
        self.images = _open_images(folder / IMAGES, len(bands))
        with refusing(f"{self.path} cannot be read as Parquet", REMEDY):
            self.table = parquet.read_table(self.path, partitioning=None)
        self.names = list(self.table.column_names)
        self.n = self.table.num_rows
        self.index = self.column("idx_in_zarr") if "idx_in_zarr" in self.names else np.arange(self.n)
        if self.n and (self.index.max() >= self.images.shape[0] or self.index.min() < 0):
            raise InputRefused(f"{self.path} has more rows than {folder / IMAGES} images: {REMEDY}")
        name = next((name for name in DIAMETERS if name in self.names), "")
        self.diameter = self.column(name).astype(float) if name else np.ones(self.n)
        self.scale = pixel_scale
        """arcsec a pixel, of cutouts of the diameter `reference`."""
        self.reference = float(self.diameter[0]) if self.n else math.nan
        self.held = (-1, np.empty(0))
        if pixel_scale is None and name == DIAMETERS[0] and self.n:
            self.scale = self.reference / self.images.shape[1]
        if self.scale is not None:
            self.fields.add("scale")

    @property
    def files(self) -> list[Path]:
        """All that it is read from."""
        archive = self.path.with_name(IMAGES)
        return [self.path, *sorted(file for file in archive.rglob("*") if file.is_file())]

    def column(self, name: str) -> np.ma.MaskedArray:
        """A column of the metadata, (n,), see tables.columns."""
        from catalogs.tables.arrow import from_arrow

        return from_arrow(self.table[name])

    def items(self, rows: Sequence[int], fields: Iterable[str]) -> list[Item]:
        """As of universe.Hdf5Part."""
        return [self._item(row, set(fields) & self.fields) for row in rows]

    def _item(self, row: int, fields: set[str]) -> Item:
        image = {}
        if "flux" in fields:
            image["flux"] = np.moveaxis(self._pixels(int(self.index[row])), -1, 0)
        if "scale" in fields and self.scale is not None:
            scale = self.scale * self.diameter[row] / self.reference
            image["scale"] = np.full(len(self.bands), scale)
        return Item(self.bands, image, {})

    def _pixels(self, index: int) -> np.ndarray:
        """An image, (H, W, channels); the others of its chunk stay in memory until one of another is read."""
        rows, archive = self.images.chunks[0], self.path.with_name(IMAGES)
        first = index - index % rows
        if self.held[0] != first:
            with refusing(f"{archive} cannot be read", REMEDY):
                last = min(first + rows, self.images.shape[0])
                for chunk in chunks_of(self.images, first, last):
                    check_chunk(archive, self.images, chunk)
                self.held = first, np.asarray(self.images[first:last])
        return self.held[1][index - first]


def open_batches(path: Path, bands: Sequence[str], pixel_scale: float | None) -> list[CutanaPart]:
    """The batches of a folder, in the order of their names; none where it holds none.

    Raises InputRefused where they are not what Cutana writes, or were not made to be measured.
    """
    folders = sorted(file.parent for file in path.rglob(IMAGES) if (file.parent / META).is_file())
    if folders and not bands:
        raise InputRefused(f"{path} does not name its bands: pass --bands, in the order of the channels")
    parts = [CutanaPart(folder, bands, pixel_scale) for folder in folders]
    for part in parts:  # of one diameter, whichever batch it is in
        part.reference, part.scale = parts[0].reference, parts[0].scale
    return parts


def _open_images(path: Path, channels: int) -> Any:
    for name in METADATA:
        if (path / "images" / name).is_file() and name != ".zattrs":
            check_codecs(path / "images" / name)
    with refusing(f"{path} is no archive of Cutana", REMEDY):
        images = get_array(zarr.open_group(path, mode="r", use_consolidated=False), "images")
        sample = np.asarray(images[:LOOKED])
    if images.ndim != 4 or images.shape[-1] != channels:
        raise InputRefused(
            f"{path} has images of shape {images.shape}: pass --bands, one for each of the last axis"
        )
    if images.dtype.kind != "f" or (sample.size and not (sample < 0).any()):
        raise InputRefused(
            f"{path} has images that were stretched for the eye: make them with normalisation_method none, "
            "data_type float32 and flux_conserved_resizing"
        )
    return images
