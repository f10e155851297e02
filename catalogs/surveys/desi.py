"""Reader of DESI coadds: the spectra of the three arms, or of those there are, joined into one.

For each arm (B, R, Z) that was read out, a coadd file holds the images `B_WAVELENGTH` (p,), `B_FLUX` and
`B_IVAR` (n, p) and, usually, `B_MASK` (n, p); the table `FIBERMAP`, if present, lists the targets of the n
fibres. Transposed images, (p, n), are recognised by the length of the wavelengths. The redshifts are in
redrock.py.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

from catalogs import fits_strict
from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special

ARMS = {"B": (3600.0, 5800.0), "R": (5760.0, 7620.0), "Z": (7520.0, 9824.0)}
"""Wavelength ranges of the spectrograph's arms, A; neighbours overlap."""


def in_vacuum(air: np.ndarray) -> np.ndarray:
    """Wavelengths in vacuum of those in air, A: the inverse of Morton (2000, ApJS 130, 403), as in VALD."""
    squared = (1e4 / air) ** 2
    refraction = 8.336624212083e-5 + 0.02408926869968 / (130.1065924522 - squared)
    return air * (1 + refraction + 0.0001599740894897 / (38.92568793293 - squared))


SKY_LINES = in_vacuum(
    np.array(
        [
            *(5577.3, 5893.0, 6300.3, 6363.8, 7276.4, 7316.3, 7340.9, 7750.6, 7794.1, 7821.5, 7913.7, 7964.7),
            *(7993.3, 8344.6, 8399.2, 8430.2, 8465.4, 8827.1, 8885.9, 8919.6, 8957.9, 9375.9, 9439.6, 9476.0),
            *(9567.0, 9719.6),
        ]
    )
)
"""Strongest sky lines of [O I], Na I and OH, A in vacuum (in air Osterbrock et al. 1996)."""
FIRST, STEP, PIXELS = 3600.0, 0.8, 7781
"""DESI's wavelength grid, 3600 to 9824 A in vacuum; every arm covers a part of it."""
BLOCK = 64
"""Fibres joined at a time, in float64."""
TOLERANCE = 0.01
"""Tolerance of wavelengths with respect to the grid, in pixels."""

KINDS = ("WAVELENGTH", "FLUX", "IVAR")
IMAGES = {f"{arm}_{kind}" for arm in ARMS for kind in (*KINDS, "MASK")}
NO_COADD = "it is not a DESI coadd"
FIBERMAP, COLUMNS = "FIBERMAP", ("TARGETID", "TARGET_RA", "TARGET_DEC")


@dataclass
class Spectra:
    """Spectra of n fibres on one grid of P pixels; columns missing from the file are None."""

    target_id: np.ndarray | None
    """(n,) int64"""
    ra: np.ndarray | None
    """(n,) float64, degrees, ICRS"""
    dec: np.ndarray | None
    """(n,) float64, degrees, ICRS"""
    wave: np.ndarray
    """(P,) float64, angstrom, vacuum"""
    flux: np.ndarray
    """(n, P) float32, 1e-17 erg/s/cm2/A; 0 where nothing is valid"""
    ivar: np.ndarray
    """(n, P) float32, inverse variance of `flux`; 0 where nothing is valid"""


class Arm(NamedTuple):
    """Images of one arm, as they are on disk."""

    grid_index: np.ndarray
    """(p,) int, indices of its pixels on the grid"""
    flux: np.ndarray
    """(n, p)"""
    ivar: np.ndarray
    """(n, p)"""
    mask: np.ndarray
    """(n, p) int, 0 where the pixel is good"""


def read_coadd(path: Path, targets: np.ndarray | None = None) -> Spectra:
    """Read a coadd and join its arms: flux = sum(ivar flux) / sum(ivar), ivar = sum(ivar).

    The sums, over the arms that see a pixel, give the least-squares mean of independent measurements. A pixel
    of an arm is valid where flux and ivar are finite, ivar > 0 and the mask, if the file has one, is 0.

    Parameters
    ----------
    targets : (m,) int64, TARGETIDs of the spectra to return, in this order; None: all fibres, in the order of
        the file. Other spectra are neither joined nor held in memory.

    Raises
    ------
    UsageError : there is no file `path`.
    InputRefused : it is damaged, truncated, not laid out as a coadd, on another wavelength grid, or lacks one
        of the targets.
    """
    refuse_special(path)
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a coadd" if path.is_dir() else f"there is no file {path}")
    with fits_strict.opened(path, {*IMAGES, FIBERMAP}) as hdus:
        arrays = _arrays(hdus)
        there = [name for name in ARMS if {f"{name}_{kind}" for kind in KINDS} & arrays.keys()]
        if not there:
            raise InputRefused(
                f"{path} has no image {' or '.join(f'{arm}_FLUX' for arm in ARMS)}: {NO_COADD}"
            )
        arms = [_arm(path, arrays, name) for name in there]
        fibres = {len(arm.flux) for arm in arms} | {len(arrays[name]) for name in COLUMNS if name in arrays}
        if len(fibres) > 1:
            raise InputRefused(f"{path}: arms and {FIBERMAP} differ in number of fibres: fetch it again")
        rows = np.arange(fibres.pop()) if targets is None else _rows(path, arrays, targets)
        flux, ivar = _join(arms, rows)
        target_id, ra, dec = (_native(arrays[name][rows]) if name in arrays else None for name in COLUMNS)
        return Spectra(target_id, ra, dec, FIRST + STEP * np.arange(PIXELS), flux, ivar)


def locate(target_id: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Rows (m,) of the first occurrence of the ids `wanted` (m,) in `target_id` (n,); -1 if missing."""
    if not len(target_id):
        return np.full(len(wanted), -1)
    order = np.argsort(target_id, kind="stable")
    position = np.searchsorted(target_id, wanted, sorter=order)
    rows = order[np.minimum(position, len(order) - 1)]
    return np.where(target_id[rows] == wanted, rows, -1)


def _arrays(hdus: list[fits.hdu.base.ExtensionHDU]) -> dict[str, np.ndarray]:
    """Images of the arms and columns of the fibermap that the file has, by name, as they are on disk."""
    arrays = {}
    for hdu in hdus:
        if hdu.is_image:
            arrays[hdu.name] = np.asarray(hdu.data)
        elif isinstance(hdu, fits.BinTableHDU):
            arrays |= {name: hdu.data[name] for name in COLUMNS if name in hdu.columns.names}
    return arrays


def _native(array: np.ndarray) -> np.ndarray:
    """A copy in memory, in native byte order."""
    return array.astype(array.dtype.newbyteorder("="))


def _rows(path: Path, arrays: dict[str, np.ndarray], targets: np.ndarray) -> np.ndarray:
    if "TARGETID" not in arrays:
        raise InputRefused(f"{path} has no {FIBERMAP} with TARGETID: it does not say whose its spectra are")
    rows = locate(arrays["TARGETID"], targets)
    if (rows < 0).any():
        raise InputRefused(
            f"{path} has no spectrum of target {targets[rows < 0][0]}: fetch coadds and redshifts of one and "
            "the same release"
        )
    return rows


def _arm(path: Path, arrays: dict[str, np.ndarray], name: str) -> Arm:
    """Check the images of an arm, and transpose them where needed."""
    names = [f"{name}_{kind}" for kind in KINDS]
    if missing := [image for image in names if image not in arrays]:
        raise InputRefused(f"{path} has no image {', '.join(missing)}: {NO_COADD}")
    wave, *images = (arrays[image] for image in names)
    images.append(arrays.get(f"{name}_MASK", np.zeros(images[0].shape, np.int32)))
    index = _grid_indices(path, name, _native(wave))
    flux, ivar, mask = (image if image.shape[-1:] == wave.shape else image.T for image in images)
    if not flux.shape == ivar.shape == mask.shape or flux.shape[1:] != wave.shape:
        shapes = ", ".join(str(image.shape) for image in images)
        raise InputRefused(
            f"{path}: flux, ivar and mask of arm {name} have shapes {shapes}, not (n, {len(wave)})"
        )
    return Arm(index, flux, ivar, mask)


def _grid_indices(path: Path, name: str, wave: np.ndarray) -> np.ndarray:
    """Grid indices of wavelengths (p,), which must be consecutive."""
    exact = (wave - FIRST) / STEP
    index = np.rint(exact)
    on_grid = (np.abs(exact - index) < TOLERANCE) & (index >= 0) & (index < PIXELS)
    if wave.ndim != 1 or not on_grid.all() or (np.diff(index) != 1).any():
        raise InputRefused(
            f"{path}: arm {name} is not on DESI's wavelength grid, {FIRST:g} A and on in steps of {STEP} A"
        )
    return index.astype(int)


def _join(arms: list[Arm], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flux and ivar of some fibres on the whole grid, (len(rows), PIXELS) float32 each."""
    flux, ivar = np.zeros((2, len(rows), PIXELS), np.float32)
    for start in range(0, len(rows), BLOCK):
        block = slice(start, start + BLOCK)
        flux[block], ivar[block] = _weighted_mean(arms, rows[block])
    return flux, ivar


def _weighted_mean(arms: list[Arm], rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    weight = np.zeros((len(rows), PIXELS))
    weighted = np.zeros_like(weight)
    for arm in arms:
        flux, ivar = (image[rows].astype(np.float64) for image in (arm.flux, arm.ivar))
        valid = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0) & (arm.mask[rows] == 0)
        weight[:, arm.grid_index] += np.where(valid, ivar, 0.0)
        weighted[:, arm.grid_index] += np.where(valid, ivar * flux, 0.0)
    return np.divide(weighted, weight, out=np.zeros_like(weight), where=weight > 0), weight
