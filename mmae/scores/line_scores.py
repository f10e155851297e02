"""Scores of rebuilt emission lines: detection, and errors of centre, height, width and flux."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from astropy.table import Table

from mmae.scores.lines import LIGHT_SPEED, LINES, Line, max_fwhm, max_shift, observed_lines, signal_to_noise

N_SIGMA = 3.0
"""Detection threshold of a rebuilt line: on its height in units of the scatter of the rebuilt spectrum about
the fit, and on its S/N in the noise of the true spectrum."""
ABSENT_SNR, PRESENT_SNR, CLEAR_SNR = 2.0, 5.0, 10.0
"""S/N of a true line: below the first it counts as absent, from the second on as present, and above the
third it counts in the summary."""
BINS = {
    ">10": (CLEAR_SNR, np.inf),
    "5-10": (PRESENT_SNR, CLEAR_SNR),
    "10-20": (CLEAR_SNR, 20.0),
    ">20": (20.0, np.inf),
}
"""Bins of S/N of the true line; the first is that of the summary."""
ALL = "all lines"
RATIOS = (("[O III]", "Hβ"), ("Hα", "Hβ"))
MISSED_RATIO_ERROR = 1.0
"""Error of a ratio with a line that was not rebuilt, dex."""


class LineFits(NamedTuple):
    """Lines of N galaxies in the true and in the rebuilt spectrum; L = len(LINES)."""

    true: np.ndarray
    """(N, L) of lines.FIT"""
    rebuilt: np.ndarray
    """(N, L) of lines.FIT; NaN where the line was not hidden"""
    noise: np.ndarray
    """(N, L), noise of the true spectrum per pixel of 4.8 A; NaN where it is not known"""
    redshift: np.ndarray
    """(N,)"""

    @property
    def evaluated(self) -> np.ndarray:
        """(N, L) bool: lines within the spectrum that were hidden."""
        return np.isfinite(self.true["height"] + self.rebuilt["height"])

    @property
    def signal_to_noise(self) -> np.ndarray:
        """(N, L), S/N of the true lines, NaN for lines that are not evaluated."""
        return np.where(self.evaluated, signal_to_noise(self.true, self.noise), np.nan)


class Scores(NamedTuple):
    """Scores of L lines of N galaxies."""

    signal_to_noise: np.ndarray
    """(N, L), of the true lines, NaN for those not evaluated"""
    detected: np.ndarray
    """(N, L) bool"""
    claimed: np.ndarray
    """(N, L) bool"""
    errors: dict[str, np.ndarray]
    """(N, L) each"""
    ratios: dict[str, np.ndarray]
    """(N, L) each"""


def claimed(fits: LineFits) -> np.ndarray:
    """(N, L) bool: a rebuilt spectrum has a line, whether or not the true one has."""
    height, scatter = fits.rebuilt["height"], fits.rebuilt["scatter"]
    return (height > N_SIGMA * scatter) & (signal_to_noise(fits.rebuilt, fits.noise) > N_SIGMA)


def detected(fits: LineFits) -> np.ndarray:
    """(N, L) bool: claimed, and within `max_shift` of the true line."""
    shift = np.abs(fits.rebuilt["centre"] - fits.true["centre"])
    return claimed(fits) & (shift <= for_lines(max_shift, fits.redshift))


def for_lines(limit: Callable[[Line, np.ndarray], np.ndarray], redshift: np.ndarray) -> np.ndarray:
    """Evaluate a limit of lines.py for each galaxy and line: (N, L)."""
    return np.stack([limit(line, redshift) for line in LINES.values()], 1)


def errors(fits: LineFits) -> dict[str, np.ndarray]:
    """Errors of rebuilt lines, (N, L) each, defined so that a missing line is worse than a poor one.

    centre error (A), velocity error (km/s); height, width and flux error: |x / x0 - 1|. A line that was not
    detected has height and flux 0, a centre off by `max_shift`, and the FWHM `max_fwhm`, or an error of 1
    where the true line is nearly as wide.
    """
    is_detected, (true, rebuilt) = detected(fits), (fits.true, fits.rebuilt)
    shift = np.abs(rebuilt["centre"] - true["centre"])
    centre = np.where(is_detected, shift, for_lines(max_shift, fits.redshift))
    width = np.maximum(for_lines(max_fwhm, fits.redshift) / true["fwhm"] - 1, 1)
    return {
        "centre error": centre,
        "velocity error": LIGHT_SPEED * centre / observed_lines(fits.redshift),
        "height error": np.where(is_detected, np.abs(rebuilt["height"] / true["height"] - 1), 1),
        "width error": np.where(is_detected, np.abs(rebuilt["fwhm"] / true["fwhm"] - 1), width),
        "flux error": np.where(is_detected, np.abs(flux(rebuilt) / flux(true) - 1), 1),
    }


def ratios(fits: LineFits) -> dict[str, np.ndarray]:
    """Ratios of rebuilt to true height and width, (N, L) each."""
    columns = {"height ratio": "height", "width ratio": "fwhm"}
    return {name: fits.rebuilt[column] / fits.true[column] for name, column in columns.items()}


def flux(lines: np.ndarray) -> np.ndarray:
    """Flux of lines of FIT, up to a constant factor."""
    return lines["height"] * lines["fwhm"]


def median(values: np.ndarray) -> float:
    """Median of the values that are not NaN; NaN if there are none."""
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else float("nan")


def fraction(mask: np.ndarray) -> float:
    """Fraction that is True; NaN if the mask is empty."""
    return float(np.mean(mask)) if mask.size else float("nan")


def scorecard(fits: LineFits) -> Table:
    """Table of medians: a row for all lines together and for each line, in every bin of S/N of the true line.

    `false lines` is the fraction of the `n without` spectra without the line (S/N < 2) that were rebuilt with
    it; height ratio and width ratio, rebuilt over true, are of detected lines alone.
    """
    names = np.array(list(LINES))
    masks = {ALL: np.full(len(names), True)} | {name: names == name for name in LINES}
    scores = Scores(fits.signal_to_noise, detected(fits), claimed(fits), errors(fits), ratios(fits))
    return Table(
        rows=[
            {"line": name, "true S/N": label} | _row(scores, mask, low, high)
            for name, mask in masks.items()
            for label, (low, high) in BINS.items()
        ]
    )


def _row(scores: Scores, mask: np.ndarray, low: float, high: float) -> dict[str, float]:
    present = (scores.signal_to_noise >= low) & (scores.signal_to_noise < high) & mask
    absent = (scores.signal_to_noise < ABSENT_SNR) & mask
    return {
        "n": int(present.sum()),
        "detected": fraction(scores.detected[present]),
        "n without": int(absent.sum()),
        "false lines": fraction(scores.claimed[absent]),
        **{name: median(error[present]) for name, error in scores.errors.items()},
        **{name: median(ratio[present & scores.detected]) for name, ratio in scores.ratios.items()},
    }


def ratio_table(fits: LineFits) -> Table:
    """Table of ratios of line fluxes where both true lines are clear: median |log10(rebuilt / true)|, dex.

    A ratio with an undetected line has the error MISSED_RATIO_ERROR; `offset` is the signed median of the
    others.
    """
    rows, names = [], list(LINES)
    strength, is_detected = fits.signal_to_noise, detected(fits)
    for pair in RATIOS:
        above, below = (names.index(name) for name in pair)
        clear = (strength[:, above] > CLEAR_SNR) & (strength[:, below] > CLEAR_SNR)
        both_detected = (is_detected[:, above] & is_detected[:, below])[clear]
        lines = (flux(lines)[clear][both_detected] for lines in (fits.rebuilt, fits.true))
        rebuilt, true = (fluxes[:, above] / fluxes[:, below] for fluxes in lines)
        offset = np.log10(rebuilt / true)
        error = np.full(len(both_detected), MISSED_RATIO_ERROR)
        error[both_detected] = np.abs(offset)
        row = {"ratio": "/".join(pair), "n": len(both_detected), "both detected": fraction(both_detected)}
        rows.append(row | {"ratio error": median(error), "offset": median(offset)})
    return Table(rows=rows)
