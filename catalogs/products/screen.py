"""Quality screening of cutouts and of redshift estimates: reject reasons and flags."""

from typing import NamedTuple

import numpy as np

from catalogs.products.schema import Flag, Reject
from catalogs.products.sky import medians
from catalogs.products.trails import trails

MAX_NO_DATA = 0.5
"""Share of pixels without data above which a band counts as not observed."""
LEAST_BANDS = 2
"""Observed bands that a redshift takes: there is no colour in one."""
REGION = 0.05
"""Share of pixels without data in any band above which a cutout is flagged as having a region without."""
SENTINELS = np.array([-99, -999, -9999, -99999, -32768], np.float32)
"""Numbers that surveys write where there is none."""
IMPOSSIBLE = np.float32(1e15)
"""Flux of a pixel that no source has in any unit in use; sentinels such as 1e20, 1e30, 9.97e36 do."""
SENTINEL_SIGMA = 50.0
"""How far below the median of its cutout a pixel may be, in units of the noise."""
STRIDE = 61
"""One in so many pixels is looked at for the noise of a cutout."""
REASON_DTYPE = "U16"
BROAD = 0.15
"""Half of the 68 % interval, over 1 + z, above which a p(z) is flagged as broad."""
ATYPICAL = 0.001
"""OOD_SCORE, the share of galaxies less like the training set, below which a galaxy is flagged."""
LIKELY = 0.5
"""P_STAR above which an object is flagged as a star."""


class Screened(NamedTuple):
    """Cutouts of N objects, ready for a model."""

    image: np.ndarray
    """(N, bands, H, W); NaN: no data"""
    reason: np.ndarray
    """(N,) str, a `Reject`, or "" for a usable cutout"""
    flags: np.ndarray
    """(N,) int64 of `Flag`"""
    observed: np.ndarray
    """(N, bands) bool; the pixels of other bands are all NaN"""


def screen_images(
    image: np.ndarray,
    damaged: np.ndarray,
    flux_scale: float = 1.0,
    least_bands: int = LEAST_BANDS,
    most_no_data: float = MAX_NO_DATA,
    sentinels: bool = True,
) -> Screened:
    """Screen (N, bands, H, W) cutouts before the model sees them.

    Pixels without data are all treated alike, however they are written: NaN, exactly 0, or a sentinel; they
    become NaN. So do those under a bleed trail (trails.py), whose light is not the object's. A band with more
    than a share of `most_no_data` of them was not observed. Fluxes are multiplied by `flux_scale` when that
    is done, as a sentinel is a number of the file. All pixels of rejected cutouts are set to 0, so that they
    cannot disturb their batch. All of this is done in place: few rows are changed, but some in most blocks.

    least_bands : a cutout with fewer observed bands is rejected
    sentinels : whether numbers may stand for no data, and there may be trails; else NaN alone does
    """
    pixels = image.reshape(*image.shape[:2], image.shape[2] * image.shape[3])  # (N, bands, H * W)
    image = pixels.reshape(image.shape)
    low, high = pixels.min(-1), pixels.max(-1)  # (N, bands), NaN where any pixel is, which is rare
    trailed = np.zeros(len(pixels), bool)
    if sentinels:
        centre, noise = sky(pixels)
        has_zero = (pixels == 0).any(-1)  # twice as fast as all()
        changed = np.asarray((is_suspect(low, high, centre, noise) | has_zero).any(-1))
        if changed.any():
            remove(pixels, changed, no_data(pixels[changed]))
        trailed, trail = trails(image, noise)
        remove(pixels, trailed, trail.reshape(-1, *pixels.shape[1:]))
        changed |= trailed
    else:
        changed = np.isnan(low).any(-1)
    reason = np.zeros(len(pixels), REASON_DTYPE)
    flags, observed = np.zeros(len(pixels), np.int64), np.ones(low.shape, bool)
    odd = changed | damaged | ((low == high) | (low == -np.inf) | (high == np.inf)).any(-1)
    odd |= low.shape[1] < least_bands
    if odd.any():  # in most blocks a few rows are, in many none
        found = judge(pixels[odd], damaged[odd], least_bands, most_no_data)
        pixels[odd], reason[odd], flags[odd], observed[odd] = found
    flags |= np.where(trailed, Flag.BLEED_TRAIL.value, 0)
    if flux_scale != 1:
        image *= np.float32(flux_scale)
    return Screened(image, reason, flags, observed)


def judge(pixels: np.ndarray, damaged: np.ndarray, least_bands: int, most_no_data: float) -> Screened:
    """Pixels (N, bands, P), NaN: no data, as a model gets them, and what is wrong with them."""
    empty = np.isnan(pixels)
    share = empty.mean(-1)
    observed = share <= most_no_data
    empty |= ~observed[..., None]
    low = np.where(empty, np.inf, pixels).min(-1)
    high = np.where(empty, -np.inf, pixels).max(-1)
    masks = {
        Reject.DAMAGED: damaged,
        Reject.INFINITE: (observed & ((low == -np.inf) | (high == np.inf))).any(-1),
        Reject.NO_DATA: ~observed.any(-1),
        Reject.FEW_BANDS: observed.sum(-1) < least_bands,
        Reject.CONSTANT_BAND: (observed & (low == high)).any(-1),
    }
    reason = np.select(list(masks.values()), [str(r) for r in masks], "").astype(REASON_DTYPE)
    incomplete = observed & (share > 0)
    flags = np.where(incomplete.any(-1), Flag.MASKED_PIXELS.value, 0).astype(np.int64)
    flags |= np.where((incomplete & (share > REGION)).any(-1), Flag.NO_DATA_REGION.value, 0)
    flags |= np.where(~observed.all(-1), Flag.MISSING_BAND.value, 0)
    kept = np.where(empty, np.float32(np.nan), pixels)
    kept[reason != ""] = 0
    return Screened(kept, reason, flags, observed)


def remove(pixels: np.ndarray, rows: np.ndarray, empty: np.ndarray) -> None:
    """Make pixels (N, bands, P) NaN in rows (N,) where they are empty, (M, bands, P); in place."""
    if empty.any():
        pixels[rows] = np.where(empty, np.float32(np.nan), pixels[rows])


def is_suspect(low: np.ndarray, high: np.ndarray, centre: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """Bands (N, bands) that may hold NaN or sentinels, by their extremes and their sky."""
    return ~((low >= centre - SENTINEL_SIGMA * noise) & (np.maximum(-low, high) < IMPOSSIBLE))


def sky(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and noise (N, bands) of a sample of pixels (N, bands, P), NaN: no data.

    The noise is NaN where there is none to go by.
    """
    sample = pixels[..., ::STRIDE]
    with np.errstate(invalid="ignore", over="ignore"):  # infinite pixels
        centre = medians(sample)
        noise = 1.4826 * medians(np.abs(sample - centre[..., None]))
    return centre, np.where(noise > 0, noise, np.nan)


def no_data(pixels: np.ndarray) -> np.ndarray:
    """Which pixels (N, bands, P) hold no data: NaN, exactly 0, or a number that no sky can have.

    That is a common sentinel; an absurdly large one; or one as far below the others as noise never is.
    """
    empty = np.isnan(pixels) | (pixels == 0) | np.isin(pixels, SENTINELS)
    empty |= np.isfinite(pixels) & (np.abs(pixels) >= IMPOSSIBLE)
    seen = np.where(empty | ~np.isfinite(pixels), np.nan, pixels)
    centre, noise = sky(seen)
    return empty | (seen < (centre - SENTINEL_SIGMA * noise)[..., None])


def screen_estimates(
    redshift: np.ndarray, columns: dict[str, np.ndarray], reason: np.ndarray, z_range: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Screen the output of the model: (N,) redshifts, and columns of the catalogue by name.

    Returns (reason, flags) as above. A redshift that is not finite, or not above -1, is rejected; one outside
    the training set, with a broad or two-peaked p(z), of a likely star, of an object unlike the training
    set, or without galaxies with redshifts at its colours and magnitudes, is flagged.
    """
    possible = np.isfinite(redshift) & (redshift > -1)
    reason = np.where((reason == "") & ~possible, str(Reject.BAD_OUTPUT), reason).astype(REASON_DTYPE)
    outside = possible & ((redshift < z_range[0]) | (redshift > z_range[1]))
    flags = np.where(outside, Flag.Z_LIMIT.value, 0).astype(np.int64)
    if "OOD_SCORE" in columns:
        flags |= np.where(columns["OOD_SCORE"] < ATYPICAL, Flag.ATYPICAL.value, 0)
    if "SPEC_DISTANCE" in columns:
        flags |= np.where(columns["SPEC_DISTANCE"] > 1, Flag.NO_SPECTRA_LIKE_IT.value, 0)
    if "P_STAR" in columns:
        flags |= np.where(columns["P_STAR"] > LIKELY, Flag.LIKELY_STAR.value, 0)
    if "PHOTOZ_MODE2" in columns:
        flags |= np.where(np.isfinite(columns["PHOTOZ_MODE2"]), Flag.TWO_PEAKS.value, 0)
        width = (columns["PHOTOZ_ERR68_MAX"] - columns["PHOTOZ_ERR68_MIN"]) / 2
        flags |= np.where(width > BROAD * (1 + redshift), Flag.BROAD.value, 0)
    return reason, np.where(reason == "", flags, 0)  # the model saw nothing of a rejected cutout
