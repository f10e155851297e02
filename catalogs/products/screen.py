"""Which cutouts a redshift may be drawn from, and with what caution."""

import numpy as np

from catalogs.products.schema import Flag, Reject

MAX_NAN = 0.1
"""Share of NaN pixels in any band above which a cutout is refused."""
REASON_DTYPE = "U16"
BROAD = 0.15
"""Half of the 68 % interval, over 1 + z, above which a p(z) says little."""
ATYPICAL = 0.001
"""Share of galaxies less like the training set, below which one is unlike it."""


def screen_images(image: np.ndarray, damaged: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judge (N, bands, H, W) cutouts before the model sees them.

    Returns
    -------
    clean : (N, bands, H, W), the few NaN pixels of usable cutouts and all pixels of refused ones set to 0,
        the mean sky, so that a refused row cannot disturb its batch; `image` itself where nothing is
    reason : (N,) str, a `Reject`, or "" for a usable cutout
    flags : (N,) int64 of `Flag`
    """
    pixels = image.reshape(*image.shape[:2], image.shape[2] * image.shape[3])  # (N, bands, H * W)
    low, high = pixels.min(-1), pixels.max(-1)  # (N, bands), NaN where any pixel is: few rows are
    holed = np.isnan(low).any(-1)
    nan = np.isnan(pixels[holed])
    share = np.zeros(low.shape)
    share[holed] = nan.mean(-1)
    low[holed] = np.where(nan, np.inf, pixels[holed]).min(-1)
    high[holed] = np.where(nan, -np.inf, pixels[holed]).max(-1)
    verdicts = {
        Reject.DAMAGED: damaged,
        Reject.ALL_NAN: (share == 1).all(-1),
        Reject.INFINITE: ((low == -np.inf) | (high == np.inf)).any(-1),
        Reject.MANY_NAN: (share > MAX_NAN).any(-1),
        Reject.ZERO_BAND: ((low == 0) & (high == 0)).any(-1),
        Reject.CONSTANT_BAND: (low == high).any(-1),
    }
    reason = np.select(list(verdicts.values()), [str(r) for r in verdicts], "").astype(REASON_DTYPE)
    flags = np.where(share.any(-1), Flag.MASKED_PIXELS.value, 0).astype(np.int64)
    refused = reason != ""
    if not (holed | refused).any():
        return image, reason, flags
    clean = pixels.copy()
    clean[holed] = np.where(nan, np.float32(0), pixels[holed])
    clean[refused] = 0
    return clean.reshape(image.shape), reason, flags


def screen_estimates(
    redshift: np.ndarray, said: dict[str, np.ndarray], reason: np.ndarray, z_range: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Judge what came out of the model: (N,) redshifts, and columns of the catalogue by name.

    Gives (reason, flags) as above. A redshift that is no number, or not above -1, is rejected; one beyond the
    training set, or with a p(z) that is no clear answer, or of a galaxy unlike the training set, is flagged.
    """
    possible = np.isfinite(redshift) & (redshift > -1)
    reason = np.where((reason == "") & ~possible, str(Reject.BAD_OUTPUT), reason).astype(REASON_DTYPE)
    outside = possible & ((redshift < z_range[0]) | (redshift > z_range[1]))
    flags = np.where(outside, Flag.Z_LIMIT.value, 0).astype(np.int64)
    if "OOD_SCORE" in said:
        flags |= np.where(said["OOD_SCORE"] < ATYPICAL, Flag.ATYPICAL.value, 0)
    if "PHOTOZ_MODE2" in said:
        flags |= np.where(np.isfinite(said["PHOTOZ_MODE2"]), Flag.TWO_PEAKS.value, 0)
        width = (said["PHOTOZ_ERR68_MAX"] - said["PHOTOZ_ERR68_MIN"]) / 2
        flags |= np.where(width > BROAD * (1 + redshift), Flag.BROAD.value, 0)
    return reason, flags
