"""Pairs of a galaxy image and a DESI spectrum: matched on the sky, then selected by cuts that are counted.

The cuts are those of the paper (Himes et al. 2025, section 3): stars (unless they are to be kept),
duplicates, inconsistent redshifts, and spectra with more than 80 % missing, which is known only when they are
read (writer.py). The pairs kept depend neither on the order of rows in any file nor on their division into
blocks.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np

from catalogs.crossmatch.cutflow import Cut
from catalogs.crossmatch.sky import Positions
from catalogs.surveys.targets import Targets


@dataclass
class Pairs:
    """m pairs of a galaxy and a spectrum."""

    galaxy: np.ndarray
    """(m,) int, rows of the galaxies"""
    target: Targets
    """m rows"""
    separation: np.ndarray
    """(m,) float64, arcsec"""

    def __len__(self) -> int:
        return len(self.galaxy)

    def take(self, rows: np.ndarray) -> Self:
        return type(self)(self.galaxy[rows], self.target.take(rows), self.separation[rows])


def match(galaxies: Positions, blocks: Iterable[Targets], radius: float) -> Pairs:
    """All pairs of a galaxy and a spectrum up to `radius` arcsec apart; memory holds them and one block."""
    parts = []
    for targets in blocks:
        row, galaxy, separation = galaxies.within(targets.ra, targets.dec, radius)
        parts.append(Pairs(galaxy, targets.take(row), separation))
    return Pairs(
        np.concatenate([pairs.galaxy for pairs in parts]),
        Targets.join([pairs.target for pairs in parts]),
        np.concatenate([pairs.separation for pairs in parts]),
    )


def cut(
    pairs: Pairs, object_id: np.ndarray, redshift: np.ndarray, max_dz: float, keep_stars: bool = False
) -> tuple[Pairs, list[Cut]]:
    """Apply, one after the other, the cuts that need no pixels.

    Parameters
    ----------
    object_id, redshift : (N,) of the galaxies; a redshift that is not a number above 0 is unknown.
    max_dz : largest |dz| / (1 + z) between redshifts that agree.
    keep_stars : whether spectra of stars are kept, too, whose Z is near 0 or below.

    Returns
    -------
    pairs : the remaining pairs, in the order of their coadds' paths, then of TARGETID
    cuts : numbers of pairs before and after each cut
    """
    cuts: list[tuple[str, str, Callable[[Pairs], np.ndarray]]] = [
        ("repeated spectra", "of a target that has a better one", _is_best_spectrum),
        *([] if keep_stars else [("stars", "SPECTYPE STAR", lambda pairs: ~_is_star(pairs))]),
        (
            "duplicates",
            "the galaxy has a nearer target, or the target a nearer galaxy",
            lambda pairs: _is_mutual_nearest(pairs, object_id),
        ),
        ("bad redshifts", "ZWARN not 0, or Z below 0 (but of stars) or not a number", _has_redshift),
        (
            "inconsistent redshifts",
            f"|Z - specz_redshift| / (1 + Z) over {max_dz:g}",
            lambda pairs: _is_consistent(pairs, redshift, max_dz),
        ),
    ]
    flow = []
    for name, meaning, keep in cuts:
        remaining = pairs.take(keep(pairs))
        flow.append(Cut(name, meaning, len(pairs), len(remaining)))
        pairs = remaining
    return pairs.take(np.lexsort((pairs.target.target_id, pairs.target.coadd))), flow


def _is_best_spectrum(pairs: Pairs) -> np.ndarray:
    """Mask of each target's best spectrum: the primary one; else, as DESI selects it, ZWARN 0, then depth.

    Ties go to the first in the order of the coadds' paths.
    """
    target = pairs.target
    order = np.lexsort((target.coadd, -target.tsnr2, target.zwarn != 0, ~target.primary, target.target_id))
    _, first, inverse = np.unique(target.target_id[order], return_index=True, return_inverse=True)
    best = np.empty(len(pairs), target.coadd.dtype)
    best[order] = target.coadd[order][first][inverse]
    return target.coadd == best


def _is_mutual_nearest(pairs: Pairs, object_id: np.ndarray) -> np.ndarray:
    """Mask of pairs whose target and galaxy are each other's nearest; ties go to the lowest ids.

    One pair of a galaxy with duplicates is kept: it is no worse than other pairs, and cannot be in training
    and test set at once. If the spectrum is that of a neighbour, the redshifts will disagree.
    """
    order = np.lexsort((object_id[pairs.galaxy], pairs.target.target_id, pairs.separation))
    nearest_target, nearest_galaxy = (
        order[np.unique(ids[order], return_index=True)[1]] for ids in (pairs.galaxy, pairs.target.target_id)
    )
    return np.isin(np.arange(len(pairs)), np.intersect1d(nearest_target, nearest_galaxy))


def _is_star(pairs: Pairs) -> np.ndarray:
    return np.asarray(pairs.target.spectype == "STAR")


def _has_redshift(pairs: Pairs) -> np.ndarray:
    possible = np.isfinite(pairs.target.z) & ((pairs.target.z >= 0) | _is_star(pairs))
    return (pairs.target.zwarn == 0) & possible


def _is_consistent(pairs: Pairs, redshift: np.ndarray, max_dz: float) -> np.ndarray:
    known, z = redshift[pairs.galaxy], pairs.target.z
    return ~(np.isfinite(known) & (known > 0)) | (np.abs(z - known) <= max_dz * (1 + z))
