"""Whether to believe a catalogue: a traffic light, with its reasons, and what to do about each."""

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple

import numpy as np

from catalogs.products.drift import ADVICE, colour_finding
from catalogs.products.photoz import COLOUR_CHANCE, COLOUR_DRIFT
from catalogs.products.schema import FLAG_MEANINGS, Flag
from catalogs.products.screen import ATYPICAL
from mmae.layers.pdf import HSC_WIDTH
from mmae.scores import metrics
from mmae.scores.calibration import within
from mmae.scores.page.facts import Facts

Colour = Literal["green", "amber", "red"]
ORDER: tuple[Colour, ...] = ("green", "amber", "red")
REJECTED = (0.01, 0.1)
"""Shares of rejected objects above which the light is amber, and red."""
OFF_COLOUR = 1.0
"""Distance of the mean colours above which a catalogue is of another population, or another unit."""
UNLIKE = 0.15
"""Distance of the distribution of OOD_SCORE (drift.py) above which a catalogue is of another population."""
SHARES = {
    Flag.UNLIKE_TRAINING_PIXELS: (0.05, 0.5),
    Flag.MISSING_BAND: (0.1, 0.9),
    Flag.NO_DATA_REGION: (0.1, 0.5),
    Flag.BROAD: (0.2, 0.5),
    Flag.Z_LIMIT: (0.05, 0.3),
    Flag.NO_SPECTRA_LIKE_IT: (0.05, 0.3),
}
"""Shares of flagged objects, in the same way."""
REMEDIES = {
    Flag.UNLIKE_TRAINING_PIXELS: "compare unit, zero point and sky of the store with the training set's "
    "(`mmae store info`)",
    Flag.MISSING_BAND: "p(z) of these is wider, and calibrated for the bands they have; look why the band is "
    "missing (`mmae store info`)",
    Flag.NO_DATA_REGION: "leave them out where the sample must be complete in quality",
    Flag.BROAD: "use p(z), not point estimates, and cut on PHOTOZ_RISK_BEST or PHOTOZ_CONF_BEST",
    Flag.NO_SPECTRA_LIKE_IT: "no calibration holds there: leave them out, or take spectra of such and "
    "`mmae train --from`",
    Flag.Z_LIMIT: "there is nothing behind these redshifts: leave them out, or train on spectra that go on",
}
WIDE = 0.05
"""By how much the share of truths in 68 % intervals may differ from it."""
LEAST_TRUTHS = 100
"""Spectroscopic redshifts from which anything is concluded."""


class Reason(NamedTuple):
    colour: Colour
    finding: str
    remedy: str


class Judged(NamedTuple):
    """Objects with a spectroscopic redshift, not of the training set, with a p(z): m of them."""

    z_phot: np.ndarray
    z_spec: np.ndarray
    low: np.ndarray
    """Lower ends of 68 % intervals."""
    high: np.ndarray
    risk: np.ndarray
    confidence: np.ndarray
    source: str
    """Where the redshifts came from."""

    @property
    def held(self) -> float:
        """Share of the redshifts in 68 % intervals."""
        return float(np.mean(within(self.low, self.high, self.z_spec)))


def reasons(facts: Facts, judged: Judged | None) -> list[Reason]:
    """All that is not as it should be, the worst first; none: green."""
    found = [_rejected(facts), _drifted(facts), _atypical(facts), *_flagged(facts), *_coloured(facts)]
    found += [_coverage(judged), _risk(judged)] if judged else []
    return sorted((reason for reason in found if reason), key=lambda r: -ORDER.index(r.colour))


def colour(found: list[Reason]) -> Colour:
    return found[0].colour if found else "green"


def _level(value: float, limits: tuple[float, float]) -> Colour:
    return ORDER[int(value > limits[0]) + int(value > limits[1])]


def _rejected(facts: Facts) -> Reason | None:
    share = sum(facts.rejects.values()) / max(1, facts.objects)
    if (level := _level(share, REJECTED)) == "green":
        return None
    most = facts.rejects.most_common(1)[0][0]
    finding = f"{share:.1%} of the objects have no redshift, most of them for {most}"
    return Reason(level, finding, "see the table of rejects; DAMAGED: `mmae store verify`")


def _drifted(facts: Facts) -> Reason | None:
    if not facts.drift.finding:
        return None
    remedy = (
        "widths of p(z) and RISK hold for galaxies like the training set's: look for stars, another depth, a "
        "wrong zero point or band names; judge by spectra of this survey, or train on them (`--from`)"
    )
    return Reason("red" if facts.drift.distance > UNLIKE else "amber", facts.drift.finding, remedy)


def _coloured(facts: Facts) -> Iterator[Reason]:
    """Of each catalogue whose mean colours are off."""
    for path, header in zip(facts.paths, facts.headers, strict=True):
        distance, chance = (float(header.get(key, 0)) for key in (COLOUR_DRIFT, COLOUR_CHANCE))
        if distance > chance:
            finding = f"{path.name}: {colour_finding(distance, chance)}"
            yield Reason("red" if distance > OFF_COLOUR else "amber", finding, ADVICE.removeprefix("; "))


def _atypical(facts: Facts) -> Reason | None:
    share = facts.flags[Flag.ATYPICAL] / max(1, facts.rows)
    if (level := _level(share, (10 * ATYPICAL, 100 * ATYPICAL))) == "green":
        return None
    finding = f"{share:.1%} of the objects are ATYPICAL, where {ATYPICAL:.1%} would be"
    return Reason(level, finding, "look at the atypical examples below; leave out what has the flag")


def _flagged(facts: Facts) -> list[Reason | None]:
    found: list[Reason | None] = []
    for flag, limits in SHARES.items():
        share = facts.flags[flag] / max(1, facts.rows)
        if (level := _level(share, limits)) != "green":
            finding = f"{share:.0%} of the objects are {flag.name}: {FLAG_MEANINGS[flag]}"
            found.append(Reason(level, finding, REMEDIES[flag]))
    return found


def _coverage(judged: Judged) -> Reason | None:
    number = len(judged.z_spec)
    if number < LEAST_TRUTHS:
        return None
    held = judged.held
    error = math.sqrt(0.68 * 0.32 / number)
    off = abs(held - 0.68) - 2 * error  # what is beyond chance
    if off <= 0 or abs(held - 0.68) <= WIDE:
        return None
    remedy = "widen or narrow p(z) by this sample's own spectra, or say so where it is used"
    return Reason(
        "red" if off > WIDE else "amber", f"68 % intervals hold {held:.0%} of the redshifts", remedy
    )


def _risk(judged: Judged) -> Reason | None:
    """Whether the risk that the catalogue claims is the loss that it has."""
    if len(judged.z_spec) < LEAST_TRUTHS:
        return None
    loss = losses(judged)
    claimed, found, error = judged.risk.mean(), loss.mean(), loss.std() / math.sqrt(len(loss))
    if abs(found - claimed) < max(0.25 * claimed, 3 * error):
        return None
    finding = f"PHOTOZ_RISK_BEST claims a loss of {claimed:.3f}, the redshifts show {found:.3f} ± {error:.3f}"
    remedy = "do not cut on RISK or CONF at their face value: see how they run with the true loss below"
    return Reason("red" if found > 1.5 * claimed else "amber", finding, remedy)


def losses(judged: Judged) -> np.ndarray:
    """1 - 1 / (1 + (dz / 0.15)^2) of each object (Tanaka et al. 2018)."""
    return 1 - 1 / (1 + (metrics.dz(judged.z_phot, judged.z_spec) / HSC_WIDTH) ** 2)
