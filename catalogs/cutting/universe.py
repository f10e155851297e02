"""The files of a set of the Multimodal Universe: HDF5 of its version 1, or Parquet, as in HATS.

HDF5: image_band (N, bands); image_array, image_ivar (N, bands, H, W); image_mask, the same or (N, H, W);
image_psf_fwhm, image_scale (N, bands); spectrum_flux, _ivar, _lambda (N, P); the catalogue, a dataset (N,)
each. Parquet: image, a struct of lists or a list of structs with band, flux, ivar, mask, psf_fwhm, scale, the
lists along bands; spectrum, a struct of lists flux, ivar, lambda; the catalogue, a column each. All but band
and flux may be absent.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from catalogs.store.checks import refusing
from catalogs.surveys.hdf5_chunks import check_chunks
from catalogs.tables.columns import plain

PLANES = ("flux", "ivar", "mask")
NUMBERS = ("psf_fwhm", "scale")
DATASETS = {"flux": "image_array"} | {name: f"image_{name}" for name in ("ivar", "mask", "band", *NUMBERS)}
RANKS = {"flux": (4,), "ivar": (4,), "mask": (3, 4), "band": (2,), "psf_fwhm": (2,), "scale": (2,)}
"""Axes that each of them may have."""
SPECTRUM = ("flux", "ivar", "lambda")
REMEDY = "fetch it again"
ENDINGS = (".hdf5", ".h5", ".parquet")


@dataclass
class Item:
    """What a set has of one object."""

    band: list[str]
    image: dict[str, np.ndarray]
    """flux, ivar, mask (bands, H, W); psf_fwhm, scale (bands,): those that are there"""
    spectrum: dict[str, np.ndarray]
    """flux, ivar, lambda (P,); empty where the object has none"""


class Hdf5Part:
    """An HDF5 file."""

    def __init__(self, path: Path):
        self.path, self.files = path, [path]
        with refusing(f"{path} does not open as HDF5", REMEDY), h5py.File(path, "r") as file:
            datasets = {name: item for name, item in file.items() if isinstance(item, h5py.Dataset)}
            for name, item in datasets.items():
                if item.is_virtual or item.external or item.file.filename != file.filename:
                    raise ValueError(f"{name} keeps its data in other files")
            self.names = sorted(name for name, item in datasets.items() if item.ndim == 1)
            self.fields = {name for name, dataset in DATASETS.items() if dataset in datasets}
            self.has_spectra = all(f"spectrum_{name}" in datasets for name in SPECTRUM)
            self.n = len(datasets[self.names[0]]) if self.names else 0
            for name in self.fields:
                if datasets[DATASETS[name]].ndim not in RANKS[name]:
                    raise ValueError(f"{DATASETS[name]} is of shape {datasets[DATASETS[name]].shape}")

    def column(self, name: str) -> np.ma.MaskedArray:
        """A column of the catalogue, (n,), see tables.columns."""
        with refusing(f"{self.path}: {name} cannot be read", REMEDY), h5py.File(self.path, "r") as file:
            check_chunks(file[name], 0, self.n)
            return plain(file[name][:])

    def items(self, rows: Sequence[int], fields: Iterable[str]) -> list[Item]:
        """Some objects, with these fields of their images, and their spectra where PLANES are among them."""
        wanted = [field for field in fields if field in self.fields]
        spectra = SPECTRUM if self.has_spectra and set(PLANES) <= {*fields} else ()
        with refusing(f"{self.path} cannot be read", REMEDY), h5py.File(self.path, "r") as file:
            for name in (*(DATASETS[field] for field in wanted), *(f"spectrum_{name}" for name in spectra)):
                check_chunks(file[name], min(rows), max(rows) + 1)
            return [self._item(file, row, wanted, spectra) for row in rows]

    def _item(self, file: h5py.File, row: int, fields: Sequence[str], spectra: Sequence[str]) -> Item:
        read = {field: np.asarray(file[DATASETS[field]][row]) for field in fields}
        band = [name.decode() if isinstance(name, bytes) else str(name) for name in read.pop("band", ())]
        if "mask" in read and read["mask"].ndim == 2:  # one for all bands
            read["mask"] = np.broadcast_to(read["mask"], (len(band), *read["mask"].shape))
        return Item(band, read, {name: np.asarray(file[f"spectrum_{name}"][row]) for name in spectra})


class ParquetPart:
    """A Parquet file, of which a row group at a time is in memory."""

    def __init__(self, path: Path):
        from pyarrow import parquet

        self.path, self.files = path, [path]
        with refusing(f"{path} does not open as Parquet", REMEDY), parquet.ParquetFile(path) as file:
            schema, meta = file.schema_arrow, file.metadata
            self.leaves = [file.schema.column(k).path for k in range(len(file.schema.names))]
            sizes = [meta.row_group(k).num_rows for k in range(meta.num_row_groups)]
        nested = ("image", "spectrum")
        self.names = sorted(name for name in schema.names if name not in nested)
        self.fields = {name for name in (*PLANES, *NUMBERS, "band") if self._leaves("image", name)}
        self.has_spectra = all(self._leaves("spectrum", name) for name in SPECTRUM)
        self.starts = np.cumsum([0, *sizes])
        self.n = int(self.starts[-1])
        self.held: tuple[int, tuple[str, ...], Any] = (-1, (), None)

    def _leaves(self, column: str, field: str) -> list[str]:
        """Columns of the file that hold a field of a nested column."""
        steps = ((path, path.split(".")) for path in self.leaves)
        return [path for path, parts in steps if parts[0] == column and field in parts[1:]]

    def column(self, name: str) -> np.ma.MaskedArray:
        """A column of the catalogue, (n,), see tables.columns."""
        from catalogs.tables import arrow

        with refusing(f"{self.path}: {name} cannot be read", REMEDY), arrow.opened(self.path) as table:
            return table.read(name)

    def items(self, rows: Sequence[int], fields: Iterable[str]) -> list[Item]:
        """As of Hdf5Part."""
        wanted = tuple(field for field in fields if field in self.fields)
        whole = self.has_spectra and set(PLANES) <= {*fields}
        with refusing(f"{self.path} cannot be read", REMEDY):
            return [self._item(row, wanted, whole) for row in rows]

    def _item(self, row: int, fields: tuple[str, ...], whole: bool) -> Item:
        group = int(np.searchsorted(self.starts, row, "right")) - 1
        table = self._group(group, fields, whole)
        k = row - int(self.starts[group])
        image = _by_field(table["image"][k], fields) if fields else {}
        band = [str(name) for name in image.pop("band").to_pylist()] if "band" in image else []
        read = {name: _planes(values, len(band)) for name, values in image.items()}
        spectrum = _by_field(table["spectrum"][k], SPECTRUM) if whole else {}
        return Item(
            band, read, {name: values.to_numpy(zero_copy_only=False) for name, values in spectrum.items()}
        )

    def _group(self, group: int, fields: tuple[str, ...], whole: bool) -> Any:
        from pyarrow import parquet

        if self.held[:2] != (group, fields):
            columns = [leaf for field in fields for leaf in self._leaves("image", field)]
            columns += [leaf for name in SPECTRUM for leaf in self._leaves("spectrum", name)] if whole else []
            with parquet.ParquetFile(self.path) as file:
                self.held = (group, fields, file.read_row_group(group, columns=columns))
        return self.held[2]


def _by_field(scalar: Any, fields: Iterable[str]) -> dict[str, Any]:
    """The fields of an object as arrays along its bands, or pixels; none where it has nothing."""
    if not scalar.is_valid:
        return {}
    if hasattr(scalar, "keys"):  # a struct of lists
        return {name: scalar[name].values for name in fields if scalar[name].is_valid}
    return {name: scalar.values.field(name) for name in fields}


def _planes(values: Any, bands: int) -> np.ndarray:
    """An array along bands, of numbers or of images: (bands,) or (bands, H, W)."""
    lengths = []
    while hasattr(values, "flatten") and hasattr(values.type, "value_type"):
        lengths.append(len(values))
        values = values.flatten()
    flat = values.to_numpy(zero_copy_only=False)
    if not lengths:
        return flat
    height = lengths[1] // max(bands, 1)
    return flat.reshape(bands, height, -1)


def open_parts(path: Path) -> list[Hdf5Part | ParquetPart]:
    """The files of a set, in the order of their names; a file of it alone is one, too."""
    if path.is_file():
        files = [path]
    else:
        files = sorted(file for ending in ENDINGS for file in path.rglob(f"*{ending}"))
    return [
        ParquetPart(file) if file.suffix == ".parquet" else Hdf5Part(file) for file in files if _is_data(file)
    ]


def _is_data(file: Path) -> bool:
    """Whether a file holds objects: HATS has others beside them, and one of all points."""
    return not file.name.startswith(("_", ".", "data_thumbnail", "point_map"))
