"""The planes of a FITS file: images, and their variances and masks, by band.

A file may hold a plane of one band in its primary HDU or its first extension (fpack); IMAGE, MASK and
VARIANCE side by side (HSC, Rubin: EXTNAME, or EXTTYPE); an image and an invvar a band (Legacy Surveys: IMTYPE
or IMAGETYP, BAND); HDUs named by band; or a cube of bands (Legacy viewer: BAND0, BAND1, ..., else in the
order of --bands).
"""

import contextlib
import math
import re
import warnings
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from catalogs import bands as band_table
from catalogs import fits_strict
from catalogs.errors import InputRefused


class Kind(StrEnum):
    """What the numbers of a plane are."""

    IMAGE = "image"
    VARIANCE = "variance"
    IVAR = "inverse variance"
    SIGMA = "sigma"
    MASK = "mask"


KINDS = {
    **dict.fromkeys(("IMAGE", "SCI"), Kind.IMAGE),
    **dict.fromkeys(("VARIANCE", "VAR"), Kind.VARIANCE),
    **dict.fromkeys(("INVVAR", "IVAR", "WGT"), Kind.IVAR),  # a WEIGHT need not be one: SWarp's is relative
    **dict.fromkeys(("ERR", "SIGMA", "RMS"), Kind.SIGMA),
    **dict.fromkeys(("MASK", "MASKBITS", "MSK", "DQ"), Kind.MASK),
}
"""What surveys call them: in EXTNAME and in the other cards of NAMES."""
SIDES = {"--variance": Kind.VARIANCE, "--ivar": Kind.IVAR, "--mask": Kind.MASK}
"""Flags with a pattern of files beside the images -> what these hold."""
NAMES = ("EXTNAME", "EXTTYPE", "IMTYPE", "IMAGETYP")
NO_NAME = {"", "PRIMARY", "COMPRESSED_IMAGE"}


@dataclass(frozen=True)
class Plane:
    """A plane of a file that is not open."""

    path: Path
    hdu: int
    layer: tuple[int, ...]
    """Which of a cube: indices of the axes before the last two."""
    shape: tuple[int, int]
    """Rows and columns."""

    @property
    def where(self) -> str:
        return f"{self.path}[{self.hdu}]" if self.hdu else str(self.path)

    def rows(self, hdus: fits.HDUList, start: int, stop: int) -> np.ndarray:
        """Rows start:stop, (stop - start, columns) in native byte order, scaled (BSCALE), NaN for BLANK."""
        with _decoding():
            values = np.asarray(hdus[self.hdu].section[(*self.layer, slice(start, stop))])
        return values.astype(values.dtype.newbyteorder("="), copy=False)


Cards = ChainMap[str, Any]
"""The header of an HDU, and that of the primary HDU for what it lacks."""
Found = dict[tuple[str, Kind], tuple[Plane, Cards]]
"""Planes with their cards, by band, by the name under which it was asked for, and kind."""


@dataclass(frozen=True)
class Asked:
    """What is looked for in a file."""

    bands: tuple[str, ...]
    """Names of the bands as the user says them."""
    survey: str
    band: str = ""
    """The one that the name of the file tells; "" where it may hold all of them."""
    kind: Kind | None = None
    """What the file is said to hold; None: what its names tell, an image where they tell nothing."""

    def find(self, name: str) -> str:
        """Which of the bands a name of the file stands for; "" for none of them."""
        if name in self.bands:
            return name
        ours = [band_table.canonical(band, self.survey) for band in self.bands]
        places = band_table.match(ours, [band_table.canonical(name.lower(), self.survey)])
        return next((band for band, place in zip(self.bands, places, strict=True) if place is not None), "")


def find_planes(path: Path, hdus: Sequence[Any], asked: Asked) -> Found:
    """The planes of an open file that are asked for.

    Raises InputRefused where two of them are of one band and kind, or a cube does not say its bands.
    """
    images = [(k, hdu) for k, hdu in enumerate(hdus) if _is_image(hdu)]
    found: Found = {}
    for k, hdu in images:
        rest, kind = _named(hdu.header)
        if asked.kind is not None:
            kind = asked.kind
        elif kind is None:
            if asked.find(rest) or len(images) == 1:
                kind = Kind.IMAGE
            else:
                continue  # a model, a PSF, the number of exposures
        cards = ChainMap(hdu.header, hdus[0].header)
        name = str(hdu.header.get("BAND", "")).strip() or rest
        for layer, band in _layers(path, hdu, name, kind, asked):
            if (band, kind) in found:
                raise InputRefused(f"{path} has two {kind} planes of the band {band}: leave one in it")
            found[band, kind] = Plane(path, k, layer, hdu.shape[-2:]), cards
    return found


def _is_image(hdu: Any) -> bool:
    """Whether an HDU is an image, told without its pixels."""
    return bool(getattr(hdu, "is_image", False)) and len(hdu.shape) >= 2 and 0 not in hdu.shape


def _named(header: fits.Header) -> tuple[str, Kind | None]:
    """The kind that an HDU is named by, and what else its name says, as the band in G_VARIANCE."""
    names = [str(header.get(card, "")).strip() for card in NAMES]
    names = [name for name in names if name.upper() not in NO_NAME]
    kinds = [KINDS[name.upper()] for name in names if name.upper() in KINDS]
    if kinds:
        return "", kinds[0]
    if not names:
        return "", Kind.IMAGE
    for word, kind in KINDS.items():
        if match := re.fullmatch(rf"(.+)[_ -]{word}|{word}[_ -](.+)", names[0], re.IGNORECASE):
            return match[1] or match[2], kind
    return names[0], None


def _layers(path: Path, hdu: Any, name: str, kind: Kind, asked: Asked) -> list[tuple[tuple[int, ...], str]]:
    """The planes of an HDU, each with its band; a plane whose name is of no band is left out.

    A mask that tells no band is of all.
    """
    leading = hdu.shape[:-2]
    count = math.prod(leading)
    places = [tuple(map(int, np.unravel_index(k, leading))) for k in range(count)] if leading else [()]
    if count == 1:
        band = asked.band or asked.find(name)
        if not band and not name and kind is Kind.MASK:
            return [(places[0], each) for each in asked.bands]
        return [(places[0], band or _only(path, asked))] if band or not name else []
    cards = [str(hdu.header.get(f"BAND{k}", "")).strip() for k in range(count)]
    if not all(cards) and count != len(asked.bands):
        raise InputRefused(
            f"{path} holds {count} planes and does not name them (BAND0, ...): pass {count} --bands"
        )
    bands = map(asked.find, cards) if all(cards) else asked.bands
    return [(place, band) for place, band in zip(places, bands, strict=True) if band]


def _only(path: Path, asked: Asked) -> str:
    if len(asked.bands) != 1:
        raise InputRefused(
            f"{path} does not say of which band its image is: put {{band}} into the pattern of its name, or "
            "BAND into its header"
        )
    return asked.bands[0]


# ---------------------------------------------------------------- open files


@contextlib.contextmanager
def opened(path: Path) -> Iterator[fits.HDUList]:
    """Open a file that was checked before (`fits_strict`), to read rows of it: none of it is mapped."""
    with fits_strict.unpacked(path) as file:
        # not while it is open: others may be opened and closed meanwhile
        with _decoding(), warnings.catch_warnings():
            warnings.simplefilter("ignore", AstropyWarning)
            hdus = fits.open(file, memmap=False, lazy_load_hdus=False)
        with hdus:
            yield hdus


@contextlib.contextmanager
def _decoding() -> Iterator[None]:
    """Turn what astropy raises for cards and tiles that it cannot decode into ValueError."""
    try:
        yield
    except Exception as error:
        if isinstance(error, fits.VerifyError) or type(error).__name__ == "CfitsioException":
            raise ValueError(str(error)) from error  # of the latter, no version has a public name
        raise


def version(path: Path) -> tuple[int, int]:
    """Size and modification time of a file: when they change, so may what it holds."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns
