"""Quality screening of cutouts and of redshift estimates: reject reasons and flags."""

import numpy as np

from catalogs.products.schema import Flag, Reject

MAX_NAN = 0.1
"""Share of NaN pixels in any band above which a cutout is rejected."""
REASON_DTYPE = "U16"
BROAD = 0.15
"""Half of the 68 % interval, over 1 + z, above which a p(z) is flagged as broad."""
ATYPICAL = 0.001
"""OOD_SCORE, the share of galaxies less like the training set, below which a galaxy is flagged."""


def screen_images(image: np.ndarray, damaged: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Screen (N, bands, H, W) cutouts before the model sees them.

    Returns
    -------
    clean : (N, bands, H, W), the few NaN pixels of usable cutouts and all pixels of rejected ones set to 0,
        the mean sky, so that a rejected row cannot disturb its batch; `image` itself if nothing is set
    reason : (N,) str, a `Reject`, or "" for a usable cutout
    flags : (N,) int64 of `Flag`
    """
    pixels = image.reshape(*image.shape[:2], image.shape[2] * image.shape[3])  # (N, bands, H * W)
    low, high = pixels.min(-1), pixels.max(-1)  # (N, bands), NaN where any pixel is, which is rare
    has_nan = np.isnan(low).any(-1)
    nan = np.isnan(pixels[has_nan])
    nan_share = np.zeros(low.shape)
    nan_share[has_nan] = nan.mean(-1)
    low[has_nan] = np.where(nan, np.inf, pixels[has_nan]).min(-1)
    high[has_nan] = np.where(nan, -np.inf, pixels[has_nan]).max(-1)
    masks = {
        Reject.DAMAGED: damaged,
        Reject.ALL_NAN: (nan_share == 1).all(-1),
        Reject.INFINITE: ((low == -np.inf) | (high == np.inf)).any(-1),
        Reject.MANY_NAN: (nan_share > MAX_NAN).any(-1),
        Reject.ZERO_BAND: ((low == 0) & (high == 0)).any(-1),
        Reject.CONSTANT_BAND: (low == high).any(-1),
    }
    reason = np.select(list(masks.values()), [str(r) for r in masks], "").astype(REASON_DTYPE)
    flags = np.where(nan_share.any(-1), Flag.MASKED_PIXELS.value, 0).astype(np.int64)
    rejected = reason != ""
    if not (has_nan | rejected).any():
        return image, reason, flags
    clean = pixels.copy()
    clean[has_nan] = np.where(nan, np.float32(0), pixels[has_nan])
    clean[rejected] = 0
    return clean.reshape(image.shape), reason, flags


def screen_estimates(
    redshift: np.ndarray, columns: dict[str, np.ndarray], reason: np.ndarray, z_range: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Screen the output of the model: (N,) redshifts, and columns of the catalogue by name.

    Returns (reason, flags) as above. A redshift that is not finite, or not above -1, is rejected; one outside
    the training set, with a broad or two-peaked p(z), or of a galaxy unlike the training set, is flagged.
    """
    possible = np.isfinite(redshift) & (redshift > -1)
    reason = np.where((reason == "") & ~possible, str(Reject.BAD_OUTPUT), reason).astype(REASON_DTYPE)
    outside = possible & ((redshift < z_range[0]) | (redshift > z_range[1]))
    flags = np.where(outside, Flag.Z_LIMIT.value, 0).astype(np.int64)
    if "OOD_SCORE" in columns:
        flags |= np.where(columns["OOD_SCORE"] < ATYPICAL, Flag.ATYPICAL.value, 0)
    if "PHOTOZ_MODE2" in columns:
        flags |= np.where(np.isfinite(columns["PHOTOZ_MODE2"]), Flag.TWO_PEAKS.value, 0)
        width = (columns["PHOTOZ_ERR68_MAX"] - columns["PHOTOZ_ERR68_MIN"]) / 2
        flags |= np.where(width > BROAD * (1 + redshift), Flag.BROAD.value, 0)
    return reason, flags
