"""Which cutouts a redshift may be drawn from, and with what caution."""

import numpy as np

from catalogs.schema import Flag, Reject

MAX_NAN = 0.1
"""Share of NaN pixels in any band above which a cutout is refused."""
REASON_DTYPE = "U16"


def screen_images(image: np.ndarray, damaged: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Judge (N, bands, H, W) cutouts before the model sees them.

    Returns
    -------
    clean : (N, bands, H, W), the few NaN pixels of usable cutouts and all pixels of refused ones set to 0,
        the mean sky, so that a refused row cannot disturb its batch
    reason : (N,) str, a `Reject`, or "" for a usable cutout
    flags : (N,) int64 of `Flag`
    """
    pixels = image.reshape(*image.shape[:2], image.shape[2] * image.shape[3])  # (N, bands, H * W)
    nan = np.isnan(pixels)
    share = nan.mean(-1)  # (N, bands)
    low = np.where(nan, np.inf, pixels).min(-1)
    high = np.where(nan, -np.inf, pixels).max(-1)
    verdicts = {
        Reject.DAMAGED: damaged,
        Reject.ALL_NAN: (share == 1).all(-1),
        Reject.INFINITE: np.isinf(pixels).any((-2, -1)),
        Reject.MANY_NAN: (share > MAX_NAN).any(-1),
        Reject.ZERO_BAND: ((low == 0) & (high == 0)).any(-1),
        Reject.CONSTANT_BAND: (low == high).any(-1),
    }
    reason = np.select(list(verdicts.values()), [str(r) for r in verdicts], "").astype(REASON_DTYPE)
    flags = np.where(share.any(-1), Flag.MASKED_PIXELS.value, 0).astype(np.int64)
    clean = np.where(nan | (reason != "")[:, None, None], np.float32(0), pixels).reshape(image.shape)
    return clean, reason, flags


def screen_redshifts(
    redshift: np.ndarray, reason: np.ndarray, z_range: tuple[float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Judge what came out of the model: (N,) redshifts; gives (reason, flags) as above.

    A redshift that is no number, or not above -1, is rejected; one beyond the training set is flagged.
    """
    possible = np.isfinite(redshift) & (redshift > -1)
    reason = np.where((reason == "") & ~possible, str(Reject.BAD_OUTPUT), reason).astype(REASON_DTYPE)
    outside = possible & ((redshift < z_range[0]) | (redshift > z_range[1]))
    return reason, np.where(outside, Flag.Z_LIMIT.value, 0).astype(np.int64)
