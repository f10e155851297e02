"""Several GalaxiesML files read as one: the release has three, for training, validation and test."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from catalogs.errors import InputRefused
from catalogs.store.checks import refusing
from catalogs.surveys.galaxiesml import Z_HSC, GalaxiesML, open_galaxiesml
from catalogs.surveys.hdf5_chunks import check_chunks

I_MAG = "i_cmodel_mag"
CARRIED = (Z_HSC, *(f"{letter}_cmodel_mag" for letter in "grizy"))
"""Columns that are read if all files have them."""


@dataclass
class Galaxies:
    """The N galaxies of one or more GalaxiesML files, one after the other."""

    sources: list[GalaxiesML]
    object_id: np.ndarray
    """(N,) int64"""
    ra: np.ndarray
    """(N,) float64, degrees"""
    dec: np.ndarray
    """(N,) float64, degrees"""
    columns: dict[str, np.ndarray]
    """(N,) float64 each, those of CARRIED that all files have"""

    def column(self, name: str) -> np.ndarray:
        """Column (N,) float64; NaN if the files do not have it."""
        return self.columns.get(name, np.full(len(self.object_id), np.nan))

    @property
    def survey(self) -> str:
        return self.sources[0].survey

    @property
    def image_shape(self) -> tuple[int, ...]:
        return self.sources[0].file["image"].shape[1:]

    def images(self, rows: np.ndarray) -> np.ndarray:
        """Images (m, 5, S, S) float32 in their original size."""
        starts = np.cumsum([0, *(source.n for source in self.sources)])
        image = np.empty((len(rows), *self.image_shape), np.float32)
        for k, row in enumerate(rows):
            file_index = int(np.searchsorted(starts, row, "right")) - 1
            source = self.sources[file_index]
            with _refusing(source), np.errstate(over="ignore"):  # beyond float32 becomes Inf, as in ingest
                row_in_file = int(row - starts[file_index])
                check_chunks(source.file["image"], row_in_file, row_in_file + 1)
                image[k] = source.file["image"][row_in_file]
        return image


def _refusing(source: GalaxiesML) -> Any:
    return refusing(f"{source.path} cannot be read", "fetch it again")


@contextlib.contextmanager
def open_galaxies(paths: Sequence[Path]) -> Iterator[Galaxies]:
    """Open GalaxiesML files with positions, as a context manager.

    Raises
    ------
    UsageError : there is no such file.
    InputRefused : a file is damaged or has no positions, or the files do not fit together.
    """
    with contextlib.ExitStack() as stack:
        sources = [stack.enter_context(open_galaxiesml(path)) for path in paths]
        sizes = {source.file["image"].shape[1:] for source in sources}
        if len(sizes) > 1:
            raise InputRefused(
                f"{paths[0]} and the others have images of different sizes: name files of one size"
            )
        object_id = np.concatenate([source.object_id for source in sources])
        unique, counts = np.unique(object_id, return_counts=True)
        if (counts > 1).any():
            raise InputRefused(
                f"object_id {unique[counts > 1][0]} is in two of the files: name each file once"
            )
        columns = [_columns(source, ("ra", "dec", *CARRIED)) for source in sources]
        for path, file_columns in zip(paths, columns, strict=True):
            if "ra" not in file_columns or "dec" not in file_columns:
                raise InputRefused(f"{path} has no ra and dec: without positions it cannot be matched")
        common = [name for name in columns[0] if all(name in file_columns for file_columns in columns)]
        joined = {name: np.concatenate([part[name] for part in columns]) for name in common}
        yield Galaxies(sources, object_id, joined.pop("ra"), joined.pop("dec"), joined)


def _columns(source: GalaxiesML, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns by name, as far as the file has them, (n,) float64."""
    columns = {}
    for name in names:
        column = source.file.get(name)
        if column is None:
            continue
        if (
            not isinstance(column, h5py.Dataset)
            or column.shape != (source.n,)
            or column.dtype.kind not in "fiu"
        ):
            raise InputRefused(
                f"{source.path}: {name} must hold a number for each of its {source.n} galaxies"
            )
        with _refusing(source):
            check_chunks(column, 0, source.n)
            columns[name] = column[:].astype(np.float64)
    return columns
