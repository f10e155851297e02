"""What the header of a FITS image says of its unit, its pixels, its seeing and the planes of its mask.

FLUXMAG0 is of HSC's pipeline (the flux of magnitude 0), MAGZERO of the Legacy Surveys, DES and Euclid, PHOTZP
of CFHT, MAGZPT of the NOIRLab archive; BUNIT is nJy in Rubin's coadds. MP_NAME = bit is a plane of a mask of
the LSST pipelines, HSC's among them.
"""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import astropy.units as u
import numpy as np
from astropy.coordinates import ICRS, SkyCoord
from astropy.io.fits import VerifyError
from astropy.utils.exceptions import AstropyWarning
from astropy.wcs import WCS, NoConvergence
from astropy.wcs.utils import proj_plane_pixel_area, skycoord_to_pixel, wcs_to_celestial_frame

from catalogs.cutting.planes import Cards
from catalogs.errors import InputRefused

ZERO_POINTS = ("MAGZERO", "PHOTZP", "MAGZPT")
"""Cards with the AB magnitude of flux 1."""
UNITS = {
    **dict.fromkeys(("nanomaggy", "nanomaggies", "nanomaggie", "nmgy"), 22.5),
    **{"njy": 31.4, "ujy": 23.9, "µjy": 23.9, "mjy": 16.4, "jy": 8.9},
}
"""Units of flux, in lower case -> AB magnitude of 1 of them."""
ASINH = "BSOFTEN"
"""Card of pixels that are asinh magnitudes: Pan-STARRS stacks, not its warps, nor what its cutout service
gives (Waters et al. 2020)."""
MILLIJANSKY = "mJy"
"""The unit that MJy, a million jansky, must not be taken for."""
SEEING = ("PSF_FWHM", "PSFFWHM", "SEEING")
"""Cards with the FWHM of the seeing, arcsec."""
MAX_SEEING = 10.0
"""arcsec; a card with more, or with nothing above 0, is of something else."""
PLANE = re.compile(r"MP_(\w+)")
BITS = 63
"""Of a mask, without the sign."""
NO_DATA, ANY, NONE = "NO_DATA", "any", "none"
"""The plane of pixels without data in a band; what stands for all planes of a mask, and for none."""
WCSLIB = re.compile(r"ERROR \d+ in \w+\(\) at line \d+ of file \S+:")
"""Where in its own source wcslib found an error."""
SQUARE = 1.02
"""Largest ratio of the scales of a pixel, any way: a galaxy is longer by a hundredth, as by distortion."""
DECIMALS = 6
"""To which a zero point and a pixel scale are rounded: those of two headers differ in the last bits."""


def zero_point(where: str, header: Mapping[str, Any]) -> float | None:
    """AB magnitude of flux 1; None where the header does not say.

    Raises InputRefused where it says two different things, or is not in AB, or pixels are no flux.
    """
    if ASINH in header:
        raise InputRefused(
            f"{where} holds asinh magnitudes (card {ASINH}), as stacks of Pan-STARRS do: bring its pixels C "
            "to flux, BOFFSET + 2 BSOFTEN sinh(C / 1.0857362), and remove the card"
        )
    found: dict[str, float] = {}
    flux = _number(header, "FLUXMAG0")
    if flux is not None and flux > 0:
        found["FLUXMAG0"] = 2.5 * math.log10(flux)
    for card in ZERO_POINTS:
        value = _number(header, card)
        if value is not None and value > 0:
            found[card] = value
    unit = str(_value(header, "BUNIT") or "").strip()
    if unit.lower() in UNITS and (unit.lower() != "mjy" or unit == MILLIJANSKY):
        found["BUNIT"] = UNITS[unit.lower()]
    system = str(_value(header, "MAGSYS") or "AB").strip()
    if found and system.upper() != "AB":
        raise InputRefused(f"{where} has magnitudes of {system}: leave its band out, or bring its flux to AB")
    values = {card: round(value, DECIMALS) for card, value in found.items()}
    if values and max(values.values()) - min(values.values()) > 10**-3:
        said = ", ".join(f"{card} {value:g}" for card, value in values.items())
        raise InputRefused(f"{where} has two zero points ({said}): remove the wrong card from its header")
    return next(iter(values.values()), None)


def seeing(header: Mapping[str, Any]) -> float:
    """FWHM of the seeing, arcsec; NaN where the header does not say."""
    values = (_number(header, card) for card in SEEING)
    return next((value for value in values if value is not None and 0 < value < MAX_SEEING), math.nan)


def mask_planes(header: Mapping[str, Any]) -> dict[str, int]:
    """Planes of a mask by name -> their bits, 0 the lowest."""
    found = ((match, _value(header, card)) for card in header if (match := PLANE.fullmatch(card)))
    return {match[1]: bit for match, bit in found if isinstance(bit, int) and 0 <= bit < BITS}


def bad_bits(where: str, header: Mapping[str, Any], bad_planes: Sequence[str]) -> tuple[int, int]:
    """Bits of a mask that make a pixel bad, and those that say that it holds no data.

    bad_planes : names of planes, of which those that the header does not name are not in this mask; where it
        names none, numbers of bits, 0 the lowest; or ANY, or NONE

    Raises InputRefused where they tell nothing of this mask.
    """
    if tuple(bad_planes) in ((ANY,), (NONE,)):
        return (-1, 0) if bad_planes[0] == ANY else (0, 0)
    planes = mask_planes(header)
    numbers = [int(name) for name in bad_planes if name.isdecimal()]
    known = [name.upper().removeprefix("MP_") for name in bad_planes if not name.isdecimal()]
    bits = [planes[name] for name in known if name in planes and name != NO_DATA] + numbers
    lost = [planes[NO_DATA]] if NO_DATA in known and NO_DATA in planes else []
    pixel = header.get("BITPIX", 0)
    width = pixel if 0 < pixel < BITS else BITS  # a mask of floats is read as integers of 64 bits
    if (highest := max(bits + lost, default=0)) >= width:
        raise InputRefused(f"{where} has no bit {highest}: pass --bad-planes with bits below {width}")
    if not bits and not lost:
        named = ", ".join(planes) or "none"
        raise InputRefused(
            f"{where} is a mask with the planes {named} (cards MP_NAME): pass --bad-planes with their names, "
            f"with numbers of bits (0 is the lowest), {ANY} or {NONE}"
        )
    return sum(1 << bit for bit in set(bits)), sum(1 << bit for bit in lost)


def _value(header: Mapping[str, Any], card: str) -> Any:
    """What a card says; None where there is none, or it cannot be parsed, as 27,0."""
    try:
        return header.get(card)
    except VerifyError:
        return None


def _number(header: Mapping[str, Any], card: str) -> float | None:
    value = _value(header, card)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


# ---------------------------------------------------------------- where its pixels are


def celestial(where: str, cards: Cards) -> WCS | None:
    """The WCS of an image, of its two axes on the sky; None where neither header has one.

    Raises InputRefused where it has one that is not understood, or its pixels are not square.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            header = next((header for header in cards.maps if "CTYPE1" in header), {})
            naxis = 2 if "A_ORDER" in header else None  # astropy distorts the first two axes of a cube alone
            wcs = WCS(header, naxis=naxis)
            found = wcs.celestial if wcs.has_celestial else None
    except (ValueError, TypeError, LookupError, MemoryError, VerifyError) as error:
        reason = " ".join(WCSLIB.sub("", str(error)).split())
        raise InputRefused(
            f"{where} has a WCS that is not understood ({reason}): repair its header"
        ) from error
    if found is not None:
        _check_square(where, found)
    return found


def _check_square(where: str, wcs: WCS) -> None:
    # where they stretch the sky most and least, as skewed pixels may have equal sides
    with np.errstate(invalid="ignore"):
        scales = wcs.pixel_scale_matrix
    if not np.isfinite(scales).all():
        raise InputRefused(
            f"{where} has a WCS that is not understood (a scale is not finite): repair its header"
        )
    longest, shortest = np.linalg.svd(scales, compute_uv=False) * 3600
    if longest > SQUARE * shortest:
        raise InputRefused(
            f"{where} has pixels of {longest:.4g} x {shortest:.4g} arcsec: bring it onto square ones "
            "(reproject, SWarp)"
        )


def pixel_scale(wcs: WCS | None) -> float | None:
    """arcsec a pixel, the root of the area of one; None without a WCS."""
    if wcs is None:
        return None
    return round(math.sqrt(proj_plane_pixel_area(wcs)) * 3600, DECIMALS)


def pixels(wcs: WCS, ra: np.ndarray, dec: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where positions are, (n,) each in degrees, ICRS -> x and y of pixels, (n,) each, from 0.

    They are those of `astropy.nddata.Cutout2D`; NaN where a position is on the other side of the sky, or its
    distortion is not known. The first axis may be either that of longitude or that of latitude.
    """
    swapped = wcs.wcs.lng > wcs.wcs.lat
    with np.errstate(invalid="ignore"):
        try:
            if isinstance(wcs_to_celestial_frame(wcs), ICRS) and set(wcs.wcs.cunit) == {u.deg}:
                world = (dec, ra) if swapped else (ra, dec)
                x, y = wcs.all_world2pix(*world, 0)  # as below, without SkyCoord, which takes a millisecond
            else:
                x, y = skycoord_to_pixel(SkyCoord(ra * u.deg, dec * u.deg), wcs)
                x, y = (y, x) if swapped else (x, y)  # it sorts both the world's axes and those of pixels
        except NoConvergence as error:
            x, y = error.best_solution.T
            for bad in (error.divergent, error.slow_conv):
                x[bad], y[bad] = np.nan, np.nan
    return np.asarray(x), np.asarray(y)
