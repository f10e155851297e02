"""Cutouts in files: one a band, or one for all bands, whose names are made of columns of the table.

All files are read twice: before anything is written, to find out which objects become rows, and when these
are written. So the number of rows is known from the beginning, and each object is either in the store or
among the rejects.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.wcs import WCS

from catalogs import atomic, fits_strict
from catalogs.cutting import headers, patterns
from catalogs.cutting.objects import Objects
from catalogs.cutting.planes import SIDES, Asked, Cards, Kind, find_planes, version
from catalogs.cutting.rejects import Reason, Rejects
from catalogs.cutting.source import Progress, Wanted, agreed, check_bands, fingerprint, same
from catalogs.cutting.stamps import SPREADS, Block, Stamps, corner
from catalogs.errors import InputRefused

Arrays = dict[tuple[str, Kind], tuple[str, np.ndarray, Cards]]
"""By band and kind: where a plane is, its pixels, its cards."""
UNITS = {"zero point": "AB mag of flux 1", "pixel scale": "arcsec"}


class Rejected(Exception):
    """An object is rejected: reason, and a sentence."""

    def __init__(self, reason: Reason, detail: object = ""):
        super().__init__(reason, str(detail))


@contextlib.contextmanager
def _rejecting(reason: Reason) -> Iterator[None]:
    """Turn what is refused of a file into the rejection of its object."""
    try:
        yield
    except InputRefused as error:
        raise Rejected(reason, error) from error


@dataclass(frozen=True)
class Files:
    """The files of the objects of a table."""

    wanted: Wanted
    patterns: dict[str, str]
    """--files, and flags of SIDES -> pattern"""

    def of(self, texts: dict[str, str]) -> Iterator[tuple[Path, Asked]]:
        """Files of an object that are there, each with what is looked for in it. Raises Rejected."""
        for flag, pattern in self.patterns.items():
            for band in self.wanted.bands if patterns.BAND in pattern else ("",):
                with _rejecting(Reason.REFUSED):
                    path = patterns.cutout(pattern, band, texts)
                if path:
                    yield path, Asked(self.wanted.bands, self.wanted.survey, band, SIDES.get(flag))

    def read(self, texts: dict[str, str]) -> tuple[Arrays, list]:
        """All planes of an object, and the versions of its files. Raises Rejected."""
        arrays: Arrays = {}
        versions = []
        for path, asked in self.of(texts):
            with _rejecting(Reason.DAMAGED), fits_strict.opened(path) as hdus:
                with _rejecting(Reason.REFUSED):
                    found = find_planes(path, hdus, asked)
                for key, (plane, cards) in found.items():
                    arrays[key] = plane.where, plane.rows(hdus, 0, plane.shape[0]), cards
            versions.append([str(path), *version(path)])  # after it was read: it may change meanwhile
        if not any(kind is Kind.IMAGE for _, kind in arrays):
            raise Rejected(Reason.NO_FILE)
        return arrays, versions


@dataclass
class FileStamps:
    """Stamps out of files, see source.Source."""

    wanted: Wanted
    objects: Objects
    files: Files
    zero_point: float
    pixel_scale: float
    rejects: Rejects = field(default_factory=Rejects)
    known: tuple[str, ...] = ()
    fingerprint: str = ""
    wave: np.ndarray | None = None
    versions: np.ndarray = field(default_factory=lambda: np.array([], "S16"), repr=False)
    """(n,) digests of the versions of the files of each object"""

    def close(self) -> None:
        """Nothing is kept open."""

    def cut(self, start: int, stop: int) -> Stamps:
        """Stamps of rows start:stop. Raises InputRefused where a file has changed since it was checked."""
        stamps = Stamps.empty(stop - start, len(self.wanted.bands), self.wanted.size)
        for k, row in enumerate(range(start, stop)):
            try:
                seen, _ = self.read(row, stamps.of(k))
            except Rejected as rejected:
                raise InputRefused(
                    f"{rejected.args[1]}; it was whole a while ago: run the command again"
                ) from rejected
            if seen != self.versions[row]:
                raise InputRefused(
                    f"a file of the object {self.objects.object_id[row]} was changed while they were read: "
                    "run the command again"
                )
        return stamps

    def read(self, row: int, stamps: Stamps) -> tuple[bytes, set[str]]:
        """Fill the stamps (1, bands, N, N) of an object.

        Returns a digest of the versions of its files, and what they tell: their bands, and which of noise,
        psf_fwhm and mask. Raises Rejected.
        """
        arrays, versions = self.files.read(_texts(self.objects, row))
        told = set()
        for k, band in enumerate(self.wanted.bands):
            if (band, Kind.IMAGE) in arrays:
                with _rejecting(Reason.REFUSED):
                    told |= {band, *self._fill(row, arrays, band, stamps.part(slice(0, 1), k))}
        return atomic.digest(versions)[:16].encode(), told

    def _fill(self, row: int, arrays: Arrays, band: str, stamps: Stamps) -> set[str]:
        where, image, header = arrays[band, Kind.IMAGE]
        wcs = headers.celestial(where, header)
        self._check(Reason.ZERO_POINT, "zero point", where, headers.zero_point(where, header))
        self._check(Reason.PIXEL_SCALE, "pixel scale", where, headers.pixel_scale(wcs))
        planes = {kind: pixels for (other, kind), (_, pixels, _) in arrays.items() if other == band}
        for kind, pixels in planes.items():
            if pixels.shape != image.shape:
                raise InputRefused(
                    f"{where}: the {kind} is of {pixels.shape} pixels, the image of {image.shape}"
                )
        bits = (0, 0)
        if Kind.MASK in planes:
            where_mask, _, cards = arrays[band, Kind.MASK]
            bits = headers.bad_bits(where_mask, cards, self.wanted.bad_planes)
        y0, x0 = self._place(row, where, wcs, image.shape)
        stamps.fill([(Block.of(planes.__getitem__, planes, bits), 0, [(0, y0, x0)])])
        stamps.psf_fwhm[:, 0] = headers.seeing(header)
        told = {"noise": bool({*SPREADS} & {*planes}), "mask": Kind.MASK in planes}
        told["psf_fwhm"] = bool(np.isfinite(stamps.psf_fwhm).any())
        return {name for name, is_told in told.items() if is_told}

    def _check(self, reason: Reason, name: str, where: str, value: float | None) -> None:
        """Raise Rejected where a file states another zero point or pixel scale than that of the store."""
        ours = self.zero_point if reason is Reason.ZERO_POINT else self.pixel_scale
        flag = self.wanted.zero_point if reason is Reason.ZERO_POINT else self.wanted.pixel_scale
        if value is None and flag is None:
            raise Rejected(reason, f"{where} does not say its {name} ({UNITS[name]}), the store has {ours:g}")
        if value is not None and not same(name, value, ours):
            raise Rejected(reason, f"{where} has {name} {value:g}, the store {ours:g} ({UNITS[name]})")

    def _place(self, row: int, where: str, wcs: WCS | None, shape: tuple[int, ...]) -> tuple[int, int]:
        """First row and column of a stamp in its file: about the object, or the middle if it is not known."""
        size = self.wanted.size
        middle = [length // 2 - size // 2 for length in shape]
        ra, dec = self.objects.ra[row], self.objects.dec[row]
        if wcs is None or not np.isfinite([ra, dec]).all():
            return middle[0], middle[1]
        x, y = (float(v[0]) for v in headers.pixels(wcs, np.array([ra]), np.array([dec])))
        if not (-0.5 <= x <= shape[1] - 0.5 and -0.5 <= y <= shape[0] - 0.5):
            raise Rejected(Reason.OFF_FILE, f"{where} does not show its position, {ra:.6f} {dec:+.6f}")
        y0, x0 = (
            begin(position, length, about, size)
            for position, length, about in zip((y, x), shape, middle, strict=True)
        )
        return y0, x0


def begin(position: float, length: int, middle: int, size: int) -> int:
    """First pixel of a stamp of `size` about a position on an axis of `length` pixels.

    Where it would not quite fit, but that about the middle does, and is within a pixel of it, it is that one:
    cutouts are made to whole pixels, and one of the size asked for is taken as it is.
    """
    own = int(corner(np.array(position), size))
    fits_in = 0 <= own <= length - size
    return own if fits_in or length < size or abs(own - middle) > 1 else middle


def _texts(objects: Objects, row: int) -> dict[str, str]:
    return {name: str(values[row]) for name, values in objects.texts.items()}


# ---------------------------------------------------------------- plan


def open_files(
    wanted: Wanted, objects: Objects, pattern: str, sides: dict[str, str], comm: Any, progress: Progress
) -> FileStamps:
    """Check the files of all objects.

    Parameters
    ----------
    pattern : of the names of images, see patterns.py
    sides : flags of SIDES -> patterns of the files beside them
    comm : communicator of the ranks, each of which checks some of the objects

    Raises InputRefused where no object has a file, or the first does not tell zero point and pixel scale.
    """
    files = Files(wanted, {"--files": pattern, **sides})
    zero_point, pixel_scale = _reference(files, objects)
    source = FileStamps(wanted, objects, files, zero_point, pixel_scale)
    rows = range(comm.Get_rank(), len(objects), comm.Get_size())
    parts = comm.allgather(_checked(source, progress(rows, "checking files")))
    versions = dict(entry for seen, _, _ in parts for entry in seen.items())
    told = set().union(*(part[1] for part in parts))
    if versions:
        _check_told(wanted, sides, told)
    kept = np.array(sorted(versions), np.int64)
    return FileStamps(
        wanted=wanted,
        objects=objects.take(kept),
        files=files,
        zero_point=zero_point,
        pixel_scale=pixel_scale,
        rejects=Rejects.joined([part[2] for part in parts]),
        known=tuple(name for name in ("noise", "psf_fwhm", "mask") if name in told),
        fingerprint=fingerprint(
            wanted, objects, zero_point, pixel_scale, [versions[row].decode() for row in sorted(versions)]
        ),
        versions=np.array([versions[row] for row in sorted(versions)], "S16"),
    )


def _check_told(wanted: Wanted, sides: dict[str, str], told: set[str]) -> None:
    """Raise InputRefused where a band, or a pattern of files beside the images, is of no object."""
    check_bands(wanted, told)
    for flag, pattern in sides.items():
        if ("mask" if SIDES[flag] is Kind.MASK else "noise") not in told:
            raise InputRefused(f"no object has a file {pattern} ({flag}): see --help on patterns")


def _checked(source: FileStamps, rows: Any) -> tuple[dict[int, bytes], set[str], Rejects]:
    """Versions of the files of good rows, what files tell, and the rejects, of some rows of the table."""
    versions, told, rejects = {}, set[str](), Rejects()
    for row in rows:
        try:
            stamps = Stamps.empty(1, len(source.wanted.bands), source.wanted.size)
            versions[row], own = source.read(row, stamps)
            told |= own
        except Rejected as rejected:
            rejects.add(row, *rejected.args)
    return versions, told, rejects


def _reference(files: Files, objects: Objects) -> tuple[float, float]:
    """Zero point and pixel scale of the store: of the flags, and of the first object that can be read."""
    why = ""
    for row in range(len(objects)):
        try:
            arrays, _ = files.read(_texts(objects, row))
        except Rejected as rejected:
            why = why or rejected.args[1]
            continue
        images = [(where, header) for (_, kind), (where, _, header) in arrays.items() if kind is Kind.IMAGE]
        zero_points = [(where, headers.zero_point(where, header)) for where, header in images]
        scales = [(where, headers.pixel_scale(headers.celestial(where, header))) for where, header in images]
        wanted = files.wanted
        return (
            agreed("zero point", UNITS["zero point"], wanted.zero_point, zero_points),
            agreed("pixel scale", UNITS["pixel scale"], wanted.pixel_scale, scales),
        )
    raise InputRefused(
        f"none of the {len(objects):,} objects has a file {files.patterns['--files']} that can be read"
        + (f" ({why})" if why else "")
        + ": see --help on patterns"
    )
