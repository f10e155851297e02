"""Patches of a survey's coadds: which files are of one, what they say, and which objects lie on it."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs import WCS
from scipy.spatial import cKDTree

from catalogs import fits_strict
from catalogs.cutting import headers, patterns
from catalogs.cutting.planes import SIDES, Asked, Cards, Found, Kind, Plane, find_planes, version
from catalogs.cutting.source import Wanted
from catalogs.errors import InputRefused

ALIGNED = 0.05
"""Pixels by which the bands of a patch may be apart."""
LOOKED_AT = 9
"""Points along each side of planes that tell how far they are apart: distortions may differ within."""
SAME = 1.0
"""arcsec; patches whose middles are as close are one."""
COADDS = "--coadds"
Files = list[tuple[Path, Asked]]
"""Each with what is looked for in it."""


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


def find_files(wanted: Wanted, pattern: str, sides: dict[str, str]) -> dict[tuple[str, ...], Files]:
    """Files by patch, told by what stands in their names in the place of wild cards.

    Raises InputRefused where a band has no image, nothing is beside one, or something is beside none.
    """
    keyed: dict[tuple[str, ...], Files] = {}
    for flag, text in {COADDS: pattern, **sides}.items():
        of_band = {
            band: patterns.coadds(text, band) for band in (wanted.bands if patterns.BAND in text else ("",))
        }
        lacking = [band for band, found in of_band.items() if not found]
        if lacking and (flag == COADDS or len(lacking) == len(of_band)):
            raise InputRefused(
                f"no file is called {text.replace(patterns.BAND, lacking[0])} ({flag}): put the pattern in "
                "quotes, leave out a band that there is not, and see --help on patterns"
            )
        for band, found in of_band.items():
            for key, path in found.items():
                asked = Asked(wanted.bands, wanted.survey, band, SIDES.get(flag))
                if flag != COADDS and key not in keyed:
                    raise InputRefused(
                        f"{path} ({flag}) is beside no coadd of {pattern}: name it as these are"
                    )
                keyed.setdefault(key, []).append((path, asked))
    return keyed


def look(files: Files, wanted: Wanted) -> Patch:
    """Check the files of a patch, and gather what they say.

    Raises InputRefused where one is damaged, or holds nothing that is asked for, or they do not fit together.
    """
    versions = {path: version(path) for path, _ in files}
    found = _planes(files, wanted)
    images = {band: found[band, Kind.IMAGE] for band in wanted.bands if (band, Kind.IMAGE) in found}
    if not images:
        raise InputRefused(f"{files[0][0]} has no image of the bands {' '.join(wanted.bands)}: see --bands")
    plane, cards = next(iter(images.values()))
    wcs = headers.celestial(plane.where, cards)
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


def _planes(files: Files, wanted: Wanted) -> Found:
    """All planes of a patch."""
    found: Found = {}
    for path, asked in files:
        with fits_strict.opened(path) as hdus:
            planes = find_planes(path, hdus, asked)
        if not planes:
            raise InputRefused(f"{path} has no image of the bands {' '.join(wanted.bands)}: see --bands")
        if twice := set(planes) & set(found):
            band, kind = min(twice)
            raise InputRefused(
                f"{path} has another {kind} of the band {band}: see --help on patterns of names"
            )
        found |= planes
    return found


def check_distinct(patches: Sequence[Patch]) -> None:
    """Raise InputRefused where two patches are on the same pixels: they are bands of one, or the same."""
    if len(patches) < 2:
        return
    middles = np.stack([_circle(patch)[0] for patch in patches])
    for a, b in sorted(cKDTree(middles).query_pairs(np.radians(SAME / 3600))):
        if patches[a].shape == patches[b].shape:
            raise InputRefused(
                f"{patches[a].name} and {patches[b].name} are on the same pixels: put {patterns.BAND} in the "
                "place of the band in the pattern of their names, or leave one out"
            )


def _check_aligned(plane: Plane, wcs: WCS, other: Plane, header: Cards) -> None:
    """Raise InputRefused where a plane is on other pixels than the first image of its patch."""
    own = headers.celestial(other.where, header)
    apart = 0.0
    if own is not None and other.shape == plane.shape:
        y, x = (np.linspace(0, side - 1, LOOKED_AT) for side in plane.shape)
        points = [axis.ravel() for axis in np.meshgrid(x, y)]
        separation = wcs.pixel_to_world(*points).separation(own.pixel_to_world(*points)).arcsec
        on_sky = np.isfinite(separation)  # corners of a map of the whole sky are beyond it
        apart = separation[on_sky].max(initial=0.0) / (headers.pixel_scale(wcs) or 1.0)
    if other.shape != plane.shape or apart > ALIGNED:
        raise InputRefused(
            f"{other.where} is on other pixels than {plane.where}: bring all planes of a patch onto the same "
            "(reproject, SWarp)"
        )


def assign(
    patches: Sequence[Patch], ra: np.ndarray, dec: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The patch in which each position lies deepest, -1 for none, and its x and y there; (N,) each.

    Positions in degrees, NaN where there is none.
    """
    patch = np.full(len(ra), -1)
    x, y, depth = np.full(len(ra), np.nan), np.full(len(ra), np.nan), np.full(len(ra), 0.0)
    rows = np.flatnonzero(np.isfinite(ra + dec))
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


def middle(patch: Patch) -> str:
    """Position of the middle of a patch, degrees, in words."""
    sky: SkyCoord = patch.wcs.pixel_to_world((patch.shape[1] - 1) / 2, (patch.shape[0] - 1) / 2).icrs
    return f"{sky.ra.deg:.4f} {sky.dec.deg:+.4f}"


def _circle(patch: Patch) -> tuple[np.ndarray, float]:
    """The middle of a patch as a unit vector, and a chord beyond its corners."""
    height, width = patch.shape
    x = np.array([(width - 1) / 2, -0.5, -0.5, width - 0.5, width - 0.5])
    y = np.array([(height - 1) / 2, -0.5, height - 0.5, -0.5, height - 0.5])
    sky: SkyCoord = patch.wcs.pixel_to_world(x, y).icrs
    vectors = _vectors(sky.ra.deg, sky.dec.deg)
    chord = float(np.linalg.norm(vectors[1:] - vectors[0], axis=1).max())
    if chord < 1:
        return vectors[0], 1.05 * chord
    # so large a map, or one with corners beyond the sky (NaN), may be anywhere: nothing is farther than 2
    return np.nan_to_num(vectors[0]), 2.1


def _vectors(ra: np.ndarray, dec: np.ndarray) -> np.ndarray:
    """Unit vectors (n, 3) of positions in degrees."""
    a, d = np.radians(ra), np.radians(dec)
    return np.stack([np.cos(d) * np.cos(a), np.cos(d) * np.sin(a), np.sin(d)], -1)
