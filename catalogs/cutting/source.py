"""What all ways in have in common: what is asked of them, what they give, and how their files must agree."""

import hashlib
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from catalogs import atomic
from catalogs.bands import canonical
from catalogs.cutting.objects import Objects
from catalogs.cutting.rejects import Rejects
from catalogs.cutting.stamps import Stamps
from catalogs.errors import InputRefused
from catalogs.store.cutouts import SCALE_TOLERANCE

Progress = Callable[[Sequence[Any], str], Iterable[Any]]
"""A sequence and what is done with it -> the same sequence, shown as progress."""
ZERO_POINT_TOLERANCE = 1e-3
"""mag; a thousandth is less than any zero point is known to."""


@dataclass(frozen=True)
class Wanted:
    """What a store shall be like, as far as the user says it."""

    bands: tuple[str, ...]
    """As the files call them, in the order of the store."""
    survey: str
    size: int
    """Pixels on a side of the stamps."""
    zero_point: float | None
    """AB magnitude of flux 1; None: as the files say."""
    pixel_scale: float | None
    """arcsec; None: as the files say."""
    bad_planes: tuple[str, ...]
    """Planes of masks that make a pixel bad."""

    @property
    def names(self) -> list[str]:
        """Of the bands, in the table of bands."""
        return [canonical(band, self.survey) for band in self.bands]


class Source(Protocol):
    """Stamps to be cut, in the order of the store."""

    wanted: Wanted
    """With the bands, whoever named them."""
    objects: Objects
    """Those that become rows, in their order."""
    rejects: Rejects
    """The other rows of the table."""
    zero_point: float
    pixel_scale: float
    known: tuple[str, ...]
    """Which of noise, psf_fwhm and mask it knows."""
    wave: np.ndarray | None
    """(P,) angstrom, of spectra; None where it has none"""
    fingerprint: str
    """sha256 of all that decides the stamps."""

    def cut(self, start: int, stop: int) -> Stamps: ...

    def close(self) -> None: ...


def agreed(name: str, unit: str, flag: float | None, stated: Iterable[tuple[str, float | None]]) -> float:
    """The one value that a flag and files state, or leave unsaid.

    Raises InputRefused where nobody states it, or two state different ones.
    """
    option = "--" + name.replace(" ", "-")
    first, silent = (option, flag), ""
    for where, value in stated:
        if value is None:
            silent = silent or where
        elif first[1] is None:
            first = (where, value)
        elif not same(name, value, first[1]):
            if first[0] == option:
                raise InputRefused(
                    f"{where} has {name} {value:g}, {option} says {flag:g}: leave the flag out"
                )
            raise InputRefused(
                f"{first[0]} has {name} {first[1]:g}, {where} has {value:g}: a store has one, make two"
            )
    if first[1] is None:
        raise InputRefused(f"{silent or 'the input'} does not say its {name} ({unit}): pass {option}")
    if silent and first[0] != option:
        raise InputRefused(
            f"{silent} does not say its {name} ({unit}), {first[0]} has {first[1]:g}: pass {option} "
            f"{first[1]:g} if it is that of all"
        )
    return first[1]


def check_bands(wanted: Wanted, found: Container[str]) -> None:
    """Raise InputRefused where no image at all is of one of the bands: it may be misspelt."""
    if absent := [band for band in wanted.bands if band not in found]:
        raise InputRefused(f"no image is of the band {absent[0]}: correct it, or leave it out of --bands")


def same(name: str, a: float, b: float) -> bool:
    """Whether two zero points, or two pixel scales, are the same."""
    if name == "zero point":
        return abs(a - b) <= ZERO_POINT_TOLERANCE
    return abs(a / b - 1) <= SCALE_TOLERANCE


def fingerprint(wanted: Wanted, objects: Objects, *others: Any) -> str:
    """sha256 of what is wanted, of a table of objects, and of other JSON content."""
    arrays = {"id": objects.object_id, "ra": objects.ra, "dec": objects.dec}
    arrays |= objects.known | objects.columns
    sums = {
        name: hashlib.sha256(np.ascontiguousarray(values).data).hexdigest() for name, values in arrays.items()
    }
    return atomic.digest([vars(wanted), sums, *others])
