"""Stamps about positions out of coadds: patches of one survey, a file a band or one for all.

Objects are sorted by patch and by row of pixels, so that a shard of the store is a strip of a patch: the rows
of pixels that its stamps need are read once, a block of them at a time. Memory does not grow with the coadds,
nor with the number of objects on them. Of several patches that an object lies on, that in which it lies
deepest counts.
"""

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from catalogs.cutting.objects import Objects
from catalogs.cutting.patches import Patch, assign, check_distinct, find_files, look, middle
from catalogs.cutting.planes import Kind, opened, version
from catalogs.cutting.rejects import Reason, Rejects
from catalogs.cutting.source import Progress, Wanted, agreed, check_bands, fingerprint
from catalogs.cutting.stamps import SPREADS, Block, Stamps, corner
from catalogs.errors import InputRefused
from catalogs.store.checks import refusing

BLOCK_BYTES = 2**24
"""Of pixels of a plane read at a time, unless a single stamp is taller."""


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
            _check_unchanged(patch)
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
        _check_unchanged(patch)
        for path in patch.versions:
            self._files[path] = self._open.enter_context(opened(path))


def _check_unchanged(patch: Patch) -> None:
    for path, before in patch.versions.items():
        if version(path) != before:
            raise InputRefused(f"{path} was changed while it was being read: run the command again")


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
    keyed = find_files(wanted, pattern, sides)
    keys = sorted(keyed)[comm.Get_rank() :: comm.Get_size()]
    looked = [look(keyed[key], wanted) for key in progress(keys, "looking at coadds")]
    patches = sorted(
        (patch for part in comm.allgather(looked) for patch in part), key=lambda patch: patch.name
    )
    check_distinct(patches)
    check_bands(wanted, {band for patch in patches for band, kind in patch.planes if kind is Kind.IMAGE})
    stated = [said for patch in patches for said in patch.zero_points]
    zero_point = agreed("zero point", "AB mag of flux 1", wanted.zero_point, stated)
    pixel_scale = agreed("pixel scale", "arcsec", wanted.pixel_scale, (patch.scale for patch in patches))
    patch, x, y = assign(patches, objects.ra, objects.dec)
    placed = np.isfinite(objects.ra + objects.dec)
    rejects = Rejects()
    where = "" if (patch >= 0).any() else f"the middle of {patches[0].name} is at {middle(patches[0])}"
    for row in np.flatnonzero(patch < 0).tolist():
        rejects.add(row, Reason.OFF_COADDS, where) if placed[row] else rejects.add(row, Reason.NO_POSITION)
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


def _known(patches: Sequence[Patch]) -> tuple[str, ...]:
    kinds = {kind for patch in patches for _, kind in patch.planes}
    told = {
        "noise": bool(kinds & {*SPREADS}),
        "psf_fwhm": any(np.isfinite(patch.seeing).any() for patch in patches),
        "mask": Kind.MASK in kinds,
    }
    return tuple(name for name, is_told in told.items() if is_told)
