"""Stamps out of planes: where they are, their pixels, and what their variances and masks say.

The first pixel of a stamp of N pixels about x is ceil(x - N / 2), as that of `astropy.nddata.Cutout2D`; what
is beyond the plane is NaN, as with its mode "partial" and fill_value NaN.
"""

from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from catalogs.cutting.planes import Kind

BAD, LOST = np.uint8(1), np.uint8(2)
"""Flags of a pixel in a band: bad, and so not used in any; without data in this band."""
SPREADS = (Kind.VARIANCE, Kind.IVAR, Kind.SIGMA)
"""Planes of which one, the first that is there, tells the noise."""


def corner(position: np.ndarray, size: int) -> np.ndarray:
    """First pixel of stamps about positions (n,) along an axis, (n,) int64."""
    return np.ceil(position - size / 2).astype(np.int64)


def paste(stamp: np.ndarray, block: np.ndarray, first_row: int, y0: int, x0: int) -> None:
    """Copy to a stamp (N, N), whose first pixel is (y0, x0) of a plane, what a block of rows has of it.

    block : (rows, columns), whose first row is `first_row` of the plane
    """
    size = len(stamp)
    low, high = max(y0, first_row), min(y0 + size, first_row + len(block))
    left, right = max(x0, 0), min(x0 + size, block.shape[1])
    if low < high and left < right:
        stamp[low - y0 : high - y0, left - x0 : right - x0] = block[
            low - first_row : high - first_row, left:right
        ]


def _variance(values: np.ndarray, kind: Kind) -> np.ndarray:
    """Variances of pixels, float32, whatever the plane holds; NaN where it knows none."""
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        values = values.astype(np.float32, copy=False)
        found = 1 / values if kind is Kind.IVAR else values**2 if kind is Kind.SIGMA else values
        return np.where((values > 0) & np.isfinite(found), found, np.float32(np.nan))


def sigma(variances: np.ndarray) -> np.ndarray:
    """Sigma of the sky a pixel of stamps (n, N, N) of variances: the root of their median; (n,) float32.

    The pixels of a source have more variance than those of the sky, and are fewer. NaN where none is known.
    """
    ordered = np.sort(variances.reshape(len(variances), -1))  # NaN last
    known = np.isfinite(ordered).sum(1)
    rows = np.arange(len(ordered))
    middle = (ordered[rows, np.maximum(known - 1, 0) // 2] + ordered[rows, known // 2 * (known > 0)]) / 2
    return np.sqrt(np.where(known > 0, middle, np.float32(np.nan)))


@dataclass(frozen=True)
class Block:
    """Rows of the planes of a band."""

    image: np.ndarray
    """(rows, columns) float32"""
    flags: np.ndarray
    """(rows, columns) uint8, of BAD and LOST"""
    variance: np.ndarray | None
    """(rows, columns) float32, NaN: not known"""

    @classmethod
    def of(cls, read: Callable[[Kind], np.ndarray], kinds: Container[Kind], bits: tuple[int, int]) -> Self:
        """The rows that `read` gives of each plane; `bits` of the mask make a pixel BAD, or LOST."""
        with np.errstate(over="ignore"):  # to infinity, which is no data
            image = read(Kind.IMAGE).astype(np.float32, copy=False)
        flags, variances = np.zeros(image.shape, np.uint8), None
        if Kind.MASK in kinds:
            mask = read(Kind.MASK)
            if mask.dtype.kind not in "iu":  # where it is NaN, nothing speaks for the pixel
                mask = np.where(np.isfinite(mask), mask, -1).astype(np.int64)
            for flag, bit in zip((BAD, LOST), bits, strict=True):
                flags |= flag * ((mask & np.int64(bit).astype(mask.dtype)) != 0)
        for kind in SPREADS:
            if kind in kinds and variances is None:
                spread = read(kind)
                variances = _variance(spread, kind)
                if kind is Kind.IVAR:  # a pixel without weight
                    flags |= LOST * ~(spread > 0)
        return cls(image, flags, variances)


@dataclass
class Stamps:
    """Stamps of n objects, and their spectra where there are any."""

    image: np.ndarray
    """(n, bands, N, N) float32"""
    noise: np.ndarray
    """(n, bands) float32"""
    psf_fwhm: np.ndarray
    """(n, bands) float32, arcsec"""
    mask: np.ndarray
    """(n, N, N) uint8, not 0 where a pixel is bad in any band"""
    flux: np.ndarray
    """(n, P) float32, of spectra; 0 where an object has none; P is 0 where none has any"""
    ivar: np.ndarray
    """(n, P) float32, their inverse variance"""

    @classmethod
    def empty(cls, n: int, bands: int, size: int, pixels: int = 0) -> Self:
        """Stamps without data, and spectra of so many pixels."""
        image = np.full((n, bands, size, size), np.float32(np.nan))
        noise, mask = image[..., 0, 0].copy(), np.zeros((n, size, size), np.uint8)
        flux = np.zeros((n, pixels), np.float32)
        return cls(image, noise, noise.copy(), mask, flux, flux.copy())

    def of(self, k: int) -> Self:
        """That of one object, as views of length 1."""
        return self._views(slice(k, k + 1), slice(None))

    def part(self, rows: slice, band: int) -> Self:
        """Those of some rows in one band, as views."""
        return self._views(rows, slice(band, band + 1))

    def _views(self, rows: slice, bands: slice) -> Self:
        image, noise, psf_fwhm = (values[rows, bands] for values in (self.image, self.noise, self.psf_fwhm))
        return type(self)(image, noise, psf_fwhm, self.mask[rows], self.flux[rows], self.ivar[rows])

    def fill(self, blocks: Iterable[tuple[Block, int, Iterable[tuple[int, int, int]]]]) -> None:
        """Fill stamps of one band with blocks of rows.

        blocks : each with the number of its first row, and with the stamps that are in it: (which, y0, x0),
            of the first pixel of that stamp
        """
        flags = np.zeros(self.mask.shape, np.uint8)
        variances = None
        for block, first, members in blocks:
            if block.variance is not None and variances is None:
                variances = np.full(self.mask.shape, np.float32(np.nan))
            for k, y0, x0 in members:
                paste(self.image[k, 0], block.image, first, y0, x0)
                paste(flags[k], block.flags, first, y0, x0)
                if variances is not None and block.variance is not None:
                    paste(variances[k], block.variance, first, y0, x0)
        self.mask |= flags & BAD
        self.image[:, 0][flags & LOST != 0] = np.nan
        if variances is not None:
            variances[flags != 0] = np.nan
            self.noise[:, 0] = sigma(variances)
