"""DESI coadds: the spectra of the three arms, joined into one.

For each arm (B, R, Z) a coadd file holds the images `B_WAVELENGTH` (p,), `B_FLUX` and `B_IVAR` (n, p) and, as
a rule, `B_MASK` (n, p); the table `FIBERMAP`, where there is one, says what the n fibres were put on. Images
turned round, (p, n), are read too: the length of the wavelengths tells.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from astropy.io import fits

from catalogs import fits_strict
from catalogs.errors import InputRefused, UsageError

ARMS = ("B", "R", "Z")
FIRST, STEP, PIXELS = 3600.0, 0.8, 7781
"""DESI's grid, 3600 to 9824 A in vacuum; every arm stands on a part of it."""
ROUNDING = 0.01
"""Pixels by which a wavelength may miss the grid."""

IMAGES = {f"{arm}_{kind}" for arm in ARMS for kind in ("WAVELENGTH", "FLUX", "IVAR", "MASK")}
FIBERMAP, COLUMNS = "FIBERMAP", ("TARGETID", "TARGET_RA", "TARGET_DEC")


@dataclass
class Spectra:
    """Spectra of n fibres on one grid of P pixels; None for what the file does not say of their targets."""

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
    """Spectra of one arm; flux and ivar are 0 in pixels that are not valid."""

    place: np.ndarray
    """(p,) int, places of its pixels on the grid"""
    flux: np.ndarray
    """(n, p)"""
    ivar: np.ndarray
    """(n, p)"""


def read_coadd(path: Path) -> Spectra:
    """Read a coadd and join its arms: flux = sum(ivar flux) / sum(ivar), ivar = sum(ivar).

    The sums, over the arms that see a pixel, give the least-squares mean of independent measurements. A pixel
    of an arm is valid where flux and ivar are finite, ivar > 0 and the mask, if the file has one, is 0.

    Raises
    ------
    UsageError : there is no file `path`.
    InputRefused : it is damaged, cut short, not laid out as a coadd, or on another wavelength grid.
    """
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a coadd" if path.is_dir() else f"there is no file {path}")
    arrays = _load(path)
    arms = [_arm(path, arrays, name) for name in ARMS]
    fibres = {len(arm.flux) for arm in arms} | {len(arrays[name]) for name in COLUMNS if name in arrays}
    if len(fibres) > 1:
        raise InputRefused(f"{path}: arms and {FIBERMAP} have different numbers of fibres: fetch it again")
    target_id, ra, dec = (arrays.get(name) for name in COLUMNS)
    flux, ivar = _join(arms)
    return Spectra(target_id, ra, dec, FIRST + STEP * np.arange(PIXELS), flux, ivar)


def _load(path: Path) -> dict[str, np.ndarray]:
    """The images of the arms and the columns of the fibermap, as many as there are, in native byte order."""
    found = {}
    with fits_strict.opened(path) as hdus:
        for hdu in hdus:
            if hdu.is_image and hdu.name in IMAGES:
                found[hdu.name] = np.asarray(hdu.data)
            elif hdu.name == FIBERMAP and isinstance(hdu, fits.BinTableHDU):
                found |= {name: hdu.data[name] for name in COLUMNS if name in hdu.columns.names}
        return {name: data.astype(data.dtype.newbyteorder("=")) for name, data in found.items()}


def _arm(path: Path, arrays: dict[str, np.ndarray], name: str) -> Arm:
    """Check the images of an arm and set what is not valid in them to 0."""
    names = [f"{name}_{kind}" for kind in ("WAVELENGTH", "FLUX", "IVAR")]
    if missing := [image for image in names if image not in arrays]:
        raise InputRefused(f"{path} has no image {', '.join(missing)}: it is not a DESI coadd")
    wave, *images = (arrays[image] for image in names)
    images.append(arrays.get(f"{name}_MASK", np.zeros(images[0].shape, np.int32)))
    place = _places(path, name, wave)
    flux, ivar, mask = (image if image.shape[-1:] == wave.shape else image.T for image in images)
    if not flux.shape == ivar.shape == mask.shape or flux.shape[1:] != wave.shape:
        shapes = ", ".join(str(image.shape) for image in images)
        raise InputRefused(
            f"{path}: flux, ivar and mask of arm {name} have shapes {shapes}, not (n, {len(wave)})"
        )
    valid = np.isfinite(flux) & np.isfinite(ivar) & (ivar > 0) & (mask == 0)
    return Arm(place, *(np.where(valid, image, 0.0).astype(np.float64) for image in (flux, ivar)))


def _places(path: Path, name: str, wave: np.ndarray) -> np.ndarray:
    """Places of wavelengths (p,) on the grid; they must fall on neighbouring ones."""
    exact = (wave - FIRST) / STEP
    place = np.rint(exact)
    on_grid = (np.abs(exact - place) < ROUNDING) & (place >= 0) & (place < PIXELS)
    if wave.ndim != 1 or not on_grid.all() or (np.diff(place) != 1).any():
        raise InputRefused(
            f"{path}: arm {name} is not on DESI's wavelength grid, {FIRST:g} A and on in steps of {STEP} A"
        )
    return place.astype(int)


def _join(arms: list[Arm]) -> tuple[np.ndarray, np.ndarray]:
    """Flux and ivar on the whole grid, (n, PIXELS) float32 each."""
    ivar = np.zeros((len(arms[0].flux), PIXELS))
    weighted = np.zeros_like(ivar)
    for arm in arms:
        ivar[:, arm.place] += arm.ivar
        weighted[:, arm.place] += arm.ivar * arm.flux
    flux = np.divide(weighted, ivar, out=np.zeros_like(ivar), where=ivar > 0)
    return flux.astype(np.float32), ivar.astype(np.float32)
