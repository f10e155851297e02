"""Sets of cutouts with a catalogue of their own as a source of stamps, and of spectra.

They are of the Multimodal Universe (Angeloudi et al. 2024; universe.py), or of Cutana (cutana.py). Their
images are cut about the middle. The Multimodal Universe does not say in what unit they are, nor, of all sets,
whether a pixel whose mask is True is good, as in its Legacy Surveys, or bad.
"""

import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from catalogs.cutting.cutana import CutanaPart, open_batches
from catalogs.cutting.objects import Objects, Selection, read_objects
from catalogs.cutting.planes import Asked, Kind, version
from catalogs.cutting.rejects import Reason, Rejects
from catalogs.cutting.source import Progress, Wanted, agreed, check_bands, fingerprint, same
from catalogs.cutting.stamps import Block, Stamps
from catalogs.cutting.universe import ENDINGS, NUMBERS, PLANES, Hdf5Part, Item, ParquetPart, open_parts
from catalogs.errors import InputRefused, UsageError
from catalogs.tables.columns import Columns

__all__ = ["ENDINGS", "MaskTrue", "open_set"]

Part = Hdf5Part | ParquetPart | CutanaPart

MaskTrue = Literal["", "good", "bad", "unused"]
"""What a mask means where it is True."""
KINDS = {"flux": Kind.IMAGE, "ivar": Kind.IVAR, "mask": Kind.MASK}
GRID_TOLERANCE = 0.1
"""angstrom"""
ROWS = 256
"""Objects whose bands and scales are looked at at a time."""


def columns_of(path: Path, parts: Sequence[Part]) -> Columns:
    """The catalogue of a set, its files one after the other."""
    common = set.intersection(*(set(part.names) for part in parts))
    return Columns(
        path,
        tuple(sorted(common)),
        sum(part.n for part in parts),
        lambda name: np.ma.concatenate([part.column(name) for part in parts]),
    )


@dataclass
class SetStamps:
    """Stamps out of a set, see source.Source."""

    wanted: Wanted
    objects: Objects
    parts: list[Part]
    rows: np.ndarray = field(repr=False)
    """(n,) row of each object in the set"""
    mask_true: MaskTrue
    zero_point: float
    pixel_scale: float
    wave: np.ndarray | None = field(repr=False)
    versions: list[list] = field(repr=False)
    rejects: Rejects
    known: tuple[str, ...]
    fingerprint: str

    def close(self) -> None:
        """Nothing is kept open."""

    def cut(self, start: int, stop: int) -> Stamps:
        """Stamps and spectra of rows start:stop.

        Raises InputRefused where a file has changed, or a spectrum is on another grid than the first.
        """
        pixels = 0 if self.wave is None else len(self.wave)
        stamps = Stamps.empty(stop - start, len(self.wanted.bands), self.wanted.size, pixels)
        for k, item in enumerate(_items(self.parts, self.rows[start:stop], (*PLANES, *NUMBERS, "band"))):
            self._fill(item, stamps.of(k))
            if self.wave is not None and item.spectrum:
                _check_grid(item.spectrum["lambda"], self.wave, self.objects.object_id[start + k])
                stamps.flux[k], stamps.ivar[k] = item.spectrum["flux"], item.spectrum["ivar"]
        if self.versions != _versions(self.parts):
            raise InputRefused("a file of the set was changed while it was being read: run the command again")
        return stamps

    def _fill(self, item: Item, stamps: Stamps) -> None:
        for k, plane in enumerate(_planes(item, self.wanted)):
            if plane is None:
                continue
            planes = {kind: item.image[name][plane] for name, kind in KINDS.items() if name in item.image}
            if Kind.MASK in planes:
                true = planes[Kind.MASK] != 0
                planes[Kind.MASK] = {"good": ~true, "bad": true}.get(self.mask_true, 0 * true).astype(
                    np.uint8
                )
            shape, size = planes[Kind.IMAGE].shape, self.wanted.size
            y0, x0 = (length // 2 - size // 2 for length in shape)
            part = stamps.part(slice(0, 1), k)
            part.fill([(Block.of(planes.__getitem__, planes, (1, 0)), 0, [(0, y0, x0)])])
            if "psf_fwhm" in item.image:
                part.psf_fwhm[:] = item.image["psf_fwhm"][plane]


def open_set(
    path: Path, wanted: Wanted, chosen: Selection, mask_true: MaskTrue, comm: Any, progress: Progress
) -> tuple[SetStamps, Objects]:
    """Look at all files of a set, and at bands and scales of all objects.

    Returns the source, and all objects of the set.

    Raises
    ------
    UsageError : there is no such set.
    InputRefused : a file is damaged, or something is ambiguous.
    """
    batches = open_batches(path, wanted.bands, wanted.pixel_scale)
    parts: list[Part] = [part for part in batches or open_parts(path) if part.n]
    if not parts or not all("flux" in part.fields for part in parts):
        raise UsageError(
            f"{path} is no set with images of the Multimodal Universe (HDF5, or Parquet) nor of Cutana: name "
            "one, or pass --coadds or --files beside a table"
        )
    if mask_true == "" and any("mask" in part.fields for part in parts):
        raise InputRefused(
            f"{path} has masks and does not say if True is a good pixel, as in its Legacy Surveys: pass "
            "--mask-true good, bad or unused"
        )
    first = next(_items(parts, np.array([0]), ("band", "scale")))
    wanted = wanted if wanted.bands else replace(wanted, bands=tuple(first.band))
    table = columns_of(path, parts)
    if not chosen.redshift and "Z" in table.names and all(part.has_spectra for part in parts):
        chosen = replace(chosen, redshift="Z")  # of DESI, SDSS, VIPERS
    objects = read_objects(table, replace(chosen, bands=wanted.bands), needs_positions=False)
    zero_point = agreed("zero point", "AB mag of flux 1", wanted.zero_point, [(str(path), None)])
    scale = next(iter(_stated(first.image.get("scale", ()))), None)
    pixel_scale = agreed("pixel scale", "arcsec", wanted.pixel_scale, [(str(path), scale)])
    chunks = np.array_split(np.arange(len(objects)), max(1, len(objects) // ROWS))
    own = chunks[comm.Get_rank() :: comm.Get_size()]
    found = [
        _looked(parts, objects, chunk, wanted, pixel_scale) for chunk in progress(own, "looking at objects")
    ]
    looked = [each for part in comm.allgather(found) for each in part]
    check_bands(wanted, set().union(*(bands for _, bands in looked)))
    rejects = Rejects.joined([rejects for rejects, _ in looked])
    kept = np.setdiff1d(np.arange(len(objects)), rejects.rows)
    told = {"noise": "ivar", "psf_fwhm": "psf_fwhm", "mask": "mask" if mask_true != "unused" else ""}
    versions = _versions(parts)
    return (
        SetStamps(
            wanted=wanted,
            objects=objects.take(kept),
            parts=parts,
            rows=objects.row[kept],
            mask_true=mask_true,
            zero_point=zero_point,
            pixel_scale=pixel_scale,
            wave=_wave(parts, objects.row[kept]),
            versions=versions,
            rejects=rejects,
            known=tuple(name for name, of in told.items() if all(of in part.fields for part in parts)),
            fingerprint=fingerprint(wanted, objects, zero_point, pixel_scale, mask_true, versions),
        ),
        objects,
    )


def _wave(parts: Sequence[Part], rows: np.ndarray) -> np.ndarray | None:
    """Wavelengths of the first spectrum of the set, (P,) angstrom; None where it has none."""
    if not all(part.has_spectra for part in parts):
        return None
    spectra = (item.spectrum for item in _items(parts, rows, (*PLANES, "band")))
    return next((spectrum["lambda"].astype(np.float64) for spectrum in spectra if spectrum), None)


def _looked(
    parts: Sequence[Part], objects: Objects, chunk: np.ndarray, wanted: Wanted, pixel_scale: float
) -> tuple[Rejects, set[str]]:
    """Those of a chunk of the objects that have no image in the bands, or one of another pixel scale.

    Returns them, and the bands in which any has one.
    """
    rejects, bands = Rejects(), set[str]()
    items = _items(parts, objects.row[chunk], ("band", "scale"))
    for row, item in zip(chunk.tolist(), items, strict=True):
        by_band = zip(wanted.bands, _planes(item, wanted), strict=True)
        found = {band: plane for band, plane in by_band if plane is not None}
        bands |= found.keys()
        scales = _stated(np.asarray(item.image["scale"])[[*found.values()]]) if "scale" in item.image else []
        other = next((scale for scale in scales if not same("pixel scale", scale, pixel_scale)), None)
        if not found:
            rejects.add(row, Reason.NO_IMAGE)
        elif other is not None:
            rejects.add(row, Reason.PIXEL_SCALE, f"it has pixel scale {other:g}, the store {pixel_scale:g}")
    return rejects, bands


def _stated(scales: Iterable[float]) -> list[float]:
    """Pixel scales of planes, arcsec, of those that have one."""
    return [round(float(scale), 6) for scale in scales if math.isfinite(scale) and scale > 0]


def _planes(item: Item, wanted: Wanted) -> list[int | None]:
    """Which plane of an object is of each of the bands; None where it has none."""
    found = [_asked(wanted).find(name) for name in item.band]
    return [found.index(band) if band in found else None for band in wanted.bands]


@functools.cache
def _asked(wanted: Wanted) -> Asked:
    return Asked(wanted.bands, wanted.survey)


def _items(parts: Sequence[Part], rows: np.ndarray, fields: Iterable[str]) -> Iterator[Item]:
    """Rows of the set, ascending, a few at a time."""
    starts = np.cumsum([0, *(part.n for part in parts)])
    number = np.searchsorted(starts, rows, "right") - 1
    fields = tuple(fields)
    for k, part in enumerate(parts):
        own = (rows[number == k] - starts[k]).tolist()
        for begin in range(0, len(own), 64):
            yield from part.items(own[begin : begin + 64], fields)


def _versions(parts: Sequence[Part]) -> list[list]:
    return [[str(file), *version(file)] for part in parts for file in part.files]


def _check_grid(found: np.ndarray, wave: np.ndarray, object_id: int) -> None:
    if found.shape != wave.shape or not np.allclose(found, wave, rtol=0, atol=GRID_TOLERANCE):
        raise InputRefused(
            f"the spectrum of the object {object_id} has another wavelength grid than the first: put all "
            "spectra on one grid"
        )
