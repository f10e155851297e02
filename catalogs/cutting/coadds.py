"""Stamps about positions out of coadds: patches of one survey, a file a band or one for all.

Objects are sorted by patch and by row of pixels, so that a shard of the store is a strip of a patch: the rows
of pixels that its stamps need are read once, a block of them at a time. Memory does not grow with the coadds,
nor with the number of objects on them. Of several patches that an object lies on, that in which it lies
deepest counts.
"""

import contextlib
import itertools
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from catalogs import fits_strict
from catalogs.cutting import headers, patterns
from catalogs.cutting.objects import Objects
from catalogs.cutting.planes import SIDES, Asked, Cards, Found, Kind, Plane, find_planes, opened, version
from catalogs.cutting.rejects import Reason, Rejects
from catalogs.cutting.source import Progress, Wanted, agreed, fingerprint
from catalogs.cutting.stamps import SPREADS, Block, Stamps, corner
from catalogs.errors import InputRefused
from catalogs.store.checks import refusing

BLOCK_BYTES = 2**24
"""Of pixels of a plane read at a time, unless a single stamp is taller."""
ALIGNED = 0.05
"""Pixels by which the bands of a patch may be apart."""


@dataclass
class Patch:
    """A patch of the sky with the planes of its bands, all on the same pixels."""

    name: str
    wcs: WCS
    shape: tuple[int, int]
    zero_points: list[tuple[str, float | None]]
    """Of each image: where, and AB magnitude of flux 1."""
    scale: tuple[str, float | None]
    """Where, and arcsec a pixel."""
    planes: dict[tuple[str, Kind], Plane]
    bits: dict[str, tuple[int, int]]
    """Band -> bits of its mask that make a pixel bad, and that say it holds no data."""
    seeing: list[float]
    """FWHM by band, arcsec; NaN: not said."""
    versions: dict[Path, tuple[int, int]]
    """Size and time of each file when it was looked at."""


@dataclass
class CoaddStamps:
    """Stamps out of patches, see source.Source."""

    wanted: Wanted
    objects: Objects
    rejects: Rejects
    patches: list[Patch]
    patch: np.ndarray = field(repr=False)
    """(n,) number of the patch of each object"""
    x0: np.ndarray = field(repr=False)
    """(n,) first column of each stamp; y0: first row"""
    y0: np.ndarray = field(repr=False)
    zero_point: float
    pixel_scale: float
    known: tuple[str, ...]
    fingerprint: str
    wave: np.ndarray | None = None
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)
    _files: dict[Path, fits.HDUList] = field(default_factory=dict, repr=False)

    def close(self) -> None:
        self._open.close()
        self._files.clear()

    def cut(self, start: int, stop: int) -> Stamps:
        """Stamps of rows start:stop.

        Raises InputRefused where a coadd has changed since it was looked at, or does not decode.
        """
        stamps = Stamps.empty(stop - start, len(self.wanted.bands), self.wanted.size)
        row = start
        for number, group in itertools.groupby(self.patch[start:stop].tolist()):
            end = row + len(list(group))
            patch = self.patches[number]
            for k, band in enumerate(self.wanted.bands):
                if (band, Kind.IMAGE) in patch.planes:
                    self._cut_band(
                        patch, band, slice(row, end), stamps.part(slice(row - start, end - start), k)
                    )
            stamps.psf_fwhm[row - start : end - start] = patch.seeing
            row = end
        return stamps

    def _cut_band(self, patch: Patch, band: str, rows: slice, stamps: Stamps) -> None:
        """Fill stamps (n, 1, N, N) of a band; `rows` are theirs in the store."""
        y0, x0 = self.y0[rows], self.x0[rows]
        kinds = {kind for other, kind in patch.planes if other == band}
        bits = patch.bits.get(band, (0, 0))

        def block(first: int, last: int) -> Block:
            return Block.of(lambda kind: self._rows(patch, band, kind, first, last), kinds, bits)

        stamps.fill(
            (block(first, last), first, ((k, int(y0[k]), int(x0[k])) for k in members))
            for first, last, members in blocks(y0, self.wanted.size, patch.shape)
        )

    def _rows(self, patch: Patch, band: str, kind: Kind, first: int, last: int) -> np.ndarray:
        plane = patch.planes[band, kind]
        with refusing(f"{plane.where} cannot be read", "fetch it again"):
            if plane.path not in self._files:
                self._open_patch(patch)
            return plane.rows(self._files[plane.path], first, last)

    def _open_patch(self, patch: Patch) -> None:
        """Open the files of a patch, and close those of the one before."""
        self.close()
        for path, before in patch.versions.items():
            if version(path) != before:
                raise InputRefused(f"{path} was changed while it was being read: run the command again")
            self._files[path] = self._open.enter_context(opened(path))


def blocks(y0: np.ndarray, size: int, shape: tuple[int, int]) -> Iterator[tuple[int, int, range]]:
    """Blocks of rows of a plane of this shape that hold stamps whose first rows y0 (n,) ascend.

    Yields the first row of a block, the row after its last, and which stamps begin in it. A block shares rows
    with the next where stamps of both need them.
    """
    most = max(2 * size, BLOCK_BYTES // (4 * shape[1]))
    begin = 0
    while begin < len(y0):
        first, end = max(int(y0[begin]), 0), begin + 1
        last = int(y0[begin]) + size
        while end < len(y0) and y0[end] <= last and y0[end] + size <= first + most:
            last, end = int(y0[end]) + size, end + 1
        yield first, min(last, shape[0]), range(begin, end)
        begin = end


# ---------------------------------------------------------------- plan


def open_coadds(
    wanted: Wanted, objects: Objects, pattern: str, sides: dict[str, str], comm: Any, progress: Progress
) -> CoaddStamps:
    """Look at all coadds, and find the patch of each object.

    Parameters
    ----------
    pattern : of the names of images, see patterns.py
    sides : flags of SIDES -> patterns of the files beside them
    comm : communicator of the ranks, each of which looks at some of the coadds

    Raises InputRefused where there are none, one is damaged, or they do not fit together.
    """
    keyed = _files(wanted, pattern, sides)
    keys = sorted(keyed)[comm.Get_rank() :: comm.Get_size()]
    looked = [look(keyed[key], wanted) for key in progress(keys, "looking at coadds")]
    patches = sorted(
        (patch for part in comm.allgather(looked) for patch in part), key=lambda patch: patch.name
    )
    zero_point = agreed(
        "zero point",
        "AB mag of flux 1",
        wanted.zero_point,
        (said for patch in patches for said in patch.zero_points),
    )
    pixel_scale = agreed("pixel scale", "arcsec", wanted.pixel_scale, (patch.scale for patch in patches))
    patch, x, y = assign(patches, objects.ra, objects.dec)
    placed = np.isfinite(objects.ra) & (np.abs(objects.dec) <= 90)
    rejects = Rejects()
    for row in np.flatnonzero(patch < 0).tolist():
        rejects.add(row, Reason.OFF_COADDS if placed[row] else Reason.NO_POSITION)
    x0, y0 = corner(np.where(patch < 0, 0, x), wanted.size), corner(np.where(patch < 0, 0, y), wanted.size)
    order = np.lexsort((y0, patch))
    order = order[patch[order] >= 0]
    versions = [[str(path), *seen] for patch in patches for path, seen in patch.versions.items()]
    return CoaddStamps(
        wanted=wanted,
        objects=objects.take(order),
        rejects=rejects,
        patches=patches,
        patch=patch[order],
        x0=x0[order],
        y0=y0[order],
        zero_point=zero_point,
        pixel_scale=pixel_scale,
        known=_known(patches),
        fingerprint=fingerprint(wanted, objects, zero_point, pixel_scale, versions),
    )


def _files(
    wanted: Wanted, pattern: str, sides: dict[str, str]
) -> dict[tuple[str, ...], list[tuple[Path, Asked]]]:
    """Files by patch, each with what is looked for in it."""
    keyed: dict[tuple[str, ...], list[tuple[Path, Asked]]] = {}
    for flag, text in {"--coadds": pattern, **sides}.items():
        for band in wanted.bands if patterns.BAND in text else ("",):
            for key, path in patterns.coadds(text, band).items():
                asked = Asked(wanted.bands, wanted.survey, band, SIDES.get(flag))
                if flag == "--coadds" or key in keyed:
                    keyed.setdefault(key, []).append((path, asked))
                else:
                    raise InputRefused(
                        f"{path} ({flag}) is beside no coadd of {pattern}: name it as these are"
                    )
        if flag == "--coadds" and not keyed:
            raise InputRefused(f"no file is called {pattern}: put it in quotes, and see --help on patterns")
    return keyed


def look(files: Sequence[tuple[Path, Asked]], wanted: Wanted) -> Patch:
    """Check the files of a patch, and gather what they say."""
    found: Found = {}
    versions = {}
    for path, asked in files:
        versions[path] = version(path)
        with fits_strict.opened(path) as hdus:
            planes = find_planes(path, hdus, asked)
        if not planes:
            raise InputRefused(f"{path} has no image of the bands {' '.join(wanted.bands)}: see --bands")
        if twice := set(planes) & set(found):
            band, kind = min(twice)
            raise InputRefused(
                f"{path}: there is another {kind} of the band {band}: see the patterns of names"
            )
        found |= planes
    images = {band: found[band, Kind.IMAGE] for band in wanted.bands if (band, Kind.IMAGE) in found}
    plane, header = next(iter(images.values()))
    wcs = headers.celestial(plane.where, header)
    if wcs is None:
        raise InputRefused(
            f"{plane.where} has no WCS, by which objects are found on it: solve its astrometry"
        )
    for other, header in found.values():
        _check_aligned(plane, wcs, other, header)
    return Patch(
        name=str(min(path for path, _ in files)),
        wcs=wcs,
        shape=plane.shape,
        zero_points=[(p.where, headers.zero_point(p.where, header)) for p, header in images.values()],
        scale=(plane.where, headers.pixel_scale(wcs)),
        planes={key: plane for key, (plane, _) in found.items()},
        bits={
            band: headers.bad_bits(p.where, header, wanted.bad_planes)
            for (band, kind), (p, header) in found.items()
            if kind is Kind.MASK
        },
        seeing=[headers.seeing(images[band][1]) if band in images else np.nan for band in wanted.bands],
        versions=versions,
    )


def _check_aligned(plane: Plane, wcs: WCS, other: Plane, header: Cards) -> None:
    """Raise InputRefused where a plane is on other pixels than the first image of its patch."""
    own = headers.celestial(other.where, header)
    apart = 0.0
    if own is not None and other.shape == plane.shape:
        corners = np.array([0, plane.shape[1] - 1]), np.array([0, plane.shape[0] - 1])
        places = wcs.pixel_to_world(*corners)
        apart = float(np.abs(np.subtract(own.world_to_pixel(places), corners)).max())
    if other.shape != plane.shape or apart > ALIGNED:
        raise InputRefused(
            f"{other.where} is on other pixels than {plane.where}: bring all planes of a patch onto the same "
            "(reproject, SWarp)"
        )


def assign(
    patches: Sequence[Patch], ra: np.ndarray, dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patch in which each position lies deepest, -1 for none, and its x and y there; (N,) each."""
    patch = np.full(len(ra), -1)
    x, y, depth = np.full(len(ra), np.nan), np.full(len(ra), np.nan), np.full(len(ra), 0.0)
    rows = np.flatnonzero(np.isfinite(ra) & (np.abs(dec) <= 90))
    tree = cKDTree(_vectors(ra[rows], dec[rows]))
    for number, each in enumerate(patches):
        near = rows[tree.query_ball_point(*_circle(each), return_sorted=True)]
        if not len(near):
            continue
        height, width = each.shape
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            px, py = headers.pixels(each.wcs, ra[near], dec[near])
        inside = np.min([px + 0.5, width - 0.5 - px, py + 0.5, height - 0.5 - py], axis=0)
        deeper = inside > np.where(patch[near] < 0, -np.finfo(float).tiny, depth[near])
        chosen = near[deeper]
        patch[chosen], depth[chosen] = number, inside[deeper]
        x[chosen], y[chosen] = px[deeper], py[deeper]
    return patch, x, y


def _circle(patch: Patch) -> tuple[np.ndarray, float]:
    """The middle of a patch as a unit vector, and a chord beyond its corners."""
    height, width = patch.shape
    x = np.array([(width - 1) / 2, -0.5, -0.5, width - 0.5, width - 0.5])
    y = np.array([(height - 1) / 2, -0.5, height - 0.5, -0.5, height - 0.5])
    sky: SkyCoord = patch.wcs.pixel_to_world(x, y).icrs
    vectors = _vectors(sky.ra.deg, sky.dec.deg)
    return vectors[0], 1.05 * float(np.linalg.norm(vectors[1:] - vectors[0], axis=1).max())


def _vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3) of positions in degrees."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], -1)


def _known(patches: Sequence[Patch]) -> tuple[str, ...]:
    kinds = {kind for patch in patches for _, kind in patch.planes}
    told = {
        "noise": bool(kinds & {*SPREADS}),
        "psf_fwhm": any(np.isfinite(patch.seeing).any() for patch in patches),
        "mask": Kind.MASK in kinds,
    }
    return tuple(name for name, is_told in told.items() if is_told)
