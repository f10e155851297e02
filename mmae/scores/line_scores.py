"""How well emission lines are rebuilt: is a line there, at its place, as high and wide as it was?"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from astropy.table import Table

from mmae.scores.lines import LIGHT_SPEED, LINES, Line, observed_lines, search, signal_to_noise, widest

DETECTED = 3.0
"""A rebuilt line is one if its height is this many times the scatter of the rebuilt spectrum about the fit,
and its S/N in the noise of the true spectrum as much."""
ABSENT, FAINTEST, CLEAR = 2.0, 5.0, 10.0
"""S/N of a true line: below, there is none; from here on, there is one; such count in the summary."""
BINS = {">10": (CLEAR, np.inf), "5-10": (FAINTEST, CLEAR), "10-20": (CLEAR, 20.0), ">20": (20.0, np.inf)}
"""Of the S/N of the true line; first that of the summary."""
ALL = "all lines"
RATIOS = (("[O III]", "Hβ"), ("Hα", "Hβ"))
MISSED_RATIO = 1.0
"""Error of a ratio one of whose lines was not rebuilt, dex."""


class LineFits(NamedTuple):
    """Lines of N galaxies in the true and in the rebuilt spectrum; L = len(LINES)."""

    true: np.ndarray
    """(N, L) of lines.FIT"""
    rebuilt: np.ndarray
    """(N, L) of lines.FIT; NaN where the line was not hidden"""
    noise: np.ndarray
    """(N, L), of the true spectrum, a pixel of 4.8 A; NaN where it is not known"""
    redshift: np.ndarray
    """(N,)"""

    @property
    def judged(self) -> np.ndarray:
        """(N, L) bool: lines in the spectrum that were hidden."""
        return np.isfinite(self.true["height"] + self.rebuilt["height"])

    @property
    def signal_to_noise(self) -> np.ndarray:
        """(N, L) of the true lines, NaN for lines that are not judged."""
        return np.where(self.judged, signal_to_noise(self.true, self.noise), np.nan)


class Scores(NamedTuple):
    """Of N galaxies and L lines."""

    strength: np.ndarray
    """(N, L), S/N of the true lines, NaN for those not judged"""
    detected: np.ndarray
    """(N, L) bool"""
    claimed: np.ndarray
    """(N, L) bool"""
    errors: dict[str, np.ndarray]
    """(N, L) each"""
    ratios: dict[str, np.ndarray]
    """(N, L) each"""


def claimed(fits: LineFits) -> np.ndarray:
    """(N, L) bool: a rebuilt spectrum has a line there, whatever the true one has."""
    height, scatter = fits.rebuilt["height"], fits.rebuilt["scatter"]
    return (height > DETECTED * scatter) & (signal_to_noise(fits.rebuilt, fits.noise) > DETECTED)


def detected(fits: LineFits) -> np.ndarray:
    """(N, L) bool: claimed, and no farther from the true line than lines are looked for."""
    shift = np.abs(fits.rebuilt["centre"] - fits.true["centre"])
    return claimed(fits) & (shift <= of_lines(search, fits.redshift))


def of_lines(limit: Callable[[Line, np.ndarray], np.ndarray], redshift: np.ndarray) -> np.ndarray:
    """A limit of lines.py for each galaxy and line: (N, L)."""
    return np.stack([limit(line, redshift) for line in LINES.values()], 1)


def errors(fits: LineFits) -> dict[str, np.ndarray]:
    """What is wrong with rebuilt lines, (N, L) each, so that no line at all is worse than a poor one.

    centre error (A), velocity error (km/s); height, width and flux error: |x / x0 - 1|. A line that was not
    detected has height and flux 0, its centre where the search ends, and the widest FWHM of a fit, or an
    error of 1 where the true line is nearly as wide.
    """
    found, (true, rebuilt) = detected(fits), (fits.true, fits.rebuilt)
    centre = np.where(found, np.abs(rebuilt["centre"] - true["centre"]), of_lines(search, fits.redshift))
    width = np.maximum(of_lines(widest, fits.redshift) / true["fwhm"] - 1, 1)
    return {
        "centre error": centre,
        "velocity error": LIGHT_SPEED * centre / observed_lines(fits.redshift),
        "height error": np.where(found, np.abs(rebuilt["height"] / true["height"] - 1), 1),
        "width error": np.where(found, np.abs(rebuilt["fwhm"] / true["fwhm"] - 1), width),
        "flux error": np.where(found, np.abs(flux(rebuilt) / flux(true) - 1), 1),
    }


def ratios(fits: LineFits) -> dict[str, np.ndarray]:
    """Rebuilt over true, (N, L) each."""
    columns = {"height ratio": "height", "width ratio": "fwhm"}
    return {name: fits.rebuilt[column] / fits.true[column] for name, column in columns.items()}


def flux(lines: np.ndarray) -> np.ndarray:
    """Of lines of FIT, but for a factor that they share."""
    return lines["height"] * lines["fwhm"]


def median(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN without any."""
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else float("nan")


def share(which: np.ndarray) -> float:
    """NaN without any."""
    return float(np.mean(which)) if which.size else float("nan")


def scorecard(fits: LineFits) -> Table:
    """A row for all lines together and for each, at every S/N of the true line; medians over its lines.

    `false lines` is the share of spectra without the line (S/N < 2), `n without` many, that were rebuilt with
    it; height ratio and width ratio, rebuilt over true, are of detected lines alone.
    """
    names = np.array(list(LINES))
    columns = {ALL: np.full(len(names), True)} | {name: names == name for name in LINES}
    scores = Scores(fits.signal_to_noise, detected(fits), claimed(fits), errors(fits), ratios(fits))
    return Table(
        rows=[
            {"line": name, "true S/N": label} | _row(scores, which, low, high)
            for name, which in columns.items()
            for label, (low, high) in BINS.items()
        ]
    )


def _row(scores: Scores, which: np.ndarray, low: float, high: float) -> dict[str, float]:
    there = (scores.strength >= low) & (scores.strength < high) & which
    without = (scores.strength < ABSENT) & which
    return {
        "n": int(there.sum()),
        "detected": share(scores.detected[there]),
        "n without": int(without.sum()),
        "false lines": share(scores.claimed[without]),
        **{name: median(error[there]) for name, error in scores.errors.items()},
        **{name: median(ratio[there & scores.detected]) for name, ratio in scores.ratios.items()},
    }


def ratio_table(fits: LineFits) -> Table:
    """Ratios of line fluxes where both true lines are clear: median |log10(rebuilt / true)|, dex.

    A ratio one of whose lines was not detected is MISSED_RATIO off; `offset` is the signed median of others.
    """
    rows, names = [], list(LINES)
    strength, found = fits.signal_to_noise, detected(fits)
    for pair in RATIOS:
        above, below = (names.index(name) for name in pair)
        clear = (strength[:, above] > CLEAR) & (strength[:, below] > CLEAR)
        both = (found[:, above] & found[:, below])[clear]
        lines = (flux(lines)[clear][both] for lines in (fits.rebuilt, fits.true))
        made, true = (part[:, above] / part[:, below] for part in lines)
        offset = np.log10(made / true)
        error = np.full(len(both), MISSED_RATIO)
        error[both] = np.abs(offset)
        row = {"ratio": "/".join(pair), "n": len(both), "both detected": share(both)}
        rows.append(row | {"ratio error": median(error), "offset": median(offset)})
    return Table(rows=rows)
