"""What surveys require of photo-z, and whether a catalogue fulfils it.

LSST SRD: Science Requirements Document, LPM-17, for i < 25, as Graham et al. (2018, AJ 155, 1) measure it,
over 0.3 <= z_phot < 3: scatter, bias and outliers of dz = (z_phot - z) / (1 + z).
DMTN-049: minimum for the Object table of Rubin, i < 25 and z_phot < 2; a draft, whose text gives the scatter
and the outliers, and no bias.
Euclid: Red Book, Laureijs et al. (2011, arXiv:1110.3193), with outliers as in Euclid preparation X (Desprez
et al. 2020, A&A 644, A31), over its range 0.2 to 2.6.
DESC SRD: arXiv:1809.01669, sources of weak lensing: uncertainty of the mean redshift of each of five bins of
as many galaxies, 0.002 (1 + z) after a year and 0.001 (1 + z) after ten. Euclid: 0.002 (1 + z).
HSC has no numbers that it requires; its bins are those of the third year (Rau et al. 2023, MNRAS 524, 5109).

The scatter of LSST is sigma_IQR, the width of the core, as Graham et al. and DMTN-049 measure it, not the rms
that the document names, which outliers dominate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from mmae.scores import metrics

PASS, FAIL, OPEN = "pass", "fail", "open"
"""All of the 95 % interval fulfils the requirement, none of it does, some does."""


class Sample(NamedTuple):
    """The galaxies that a document speaks of."""

    document: str
    low: float
    high: float
    """Range of z_phot: low <= z_phot < high."""
    faintest: float | None
    """Magnitude in i, AB; None: no limit."""


class Requirement(NamedTuple):
    metric: str
    """One of metrics.POINT_METRICS."""
    limit: float
    """That its absolute value must be below."""


class Preset(NamedTuple):
    """How a survey judges photo-z."""

    required: dict[Sample, tuple[Requirement, ...]]
    bins: tuple[float, ...] | int
    """Edges of tomographic bins of z_phot, or their number, each with as many objects."""
    mean: dict[str, float]
    """Limits of the error of the mean redshift of a bin, over 1 + that redshift, by document."""


PRESETS = {
    "lsst": Preset(
        {
            Sample("LSST SRD", 0.3, 3.0, 25.0): (
                Requirement("sigma_IQR", 0.02),
                Requirement("bias", 0.003),
                Requirement("|dz|>max(0.06,3s)", 0.1),
            ),
            Sample("DMTN-049", 0.0, 2.0, 25.0): (
                Requirement("sigma_IQR", 0.05),
                Requirement("|dz|>max(0.06,3s)", 0.1),
            ),
        },
        5,
        {"DESC Y1": 0.002, "DESC Y10": 0.001},
    ),
    "euclid": Preset(
        {
            Sample("Euclid", 0.2, 2.6, None): (
                Requirement("sigma_NMAD", 0.05),
                Requirement("|dz|>0.15", 0.1),
            )
        },
        (0.001, 0.418, 0.560, 0.678, 0.789, 0.900, 1.019, 1.155, 1.324, 1.576, 2.5),
        {"Euclid": 0.002},
    ),
    "hsc": Preset({}, (0.3, 0.6, 0.9, 1.2, 1.5), {}),
}
"""The edges of Euclid are those of Euclid preparation VII (Blanchard et al. 2020, A&A 642, A191)."""


class Outcome(NamedTuple):
    """One requirement, measured."""

    document: str
    sample: str
    """In words."""
    n: int
    metric: str
    value: float
    error: float
    low: float
    high: float
    """Ends of the 95 % interval."""
    limit: float
    verdict: str


def verdict(low: float, high: float, limit: float) -> str:
    """Whether numbers from `low` to `high` are within `limit` of 0; OPEN where some are, or none is known."""
    if -limit < low and high < limit:
        return PASS
    return FAIL if low >= limit or high <= -limit else OPEN


def measure(
    preset: Preset,
    z_phot: np.ndarray,
    z_spec: np.ndarray,
    magnitude: tuple[str, np.ndarray] | None,
    draws: int,
    rng: np.random.Generator,
    track: metrics.Track = iter,
) -> list[Outcome]:
    """Measure what a survey requires.

    z_phot (N,), NaN where there is none; z_spec (N,); magnitude in i: name and (N,), or None: the limit in
    magnitude is left out, and `Outcome.sample` does not have it. draws, rng, track: as in `metrics.table`.
    """
    outcomes = []
    for sample, required in track(list(preset.required.items())):
        inside = (sample.low <= z_phot) & (z_phot < sample.high)
        words = f"{sample.low:g} <= z_phot < {sample.high:g}"
        if sample.faintest and magnitude:
            inside &= magnitude[1] < sample.faintest
            words += f", {magnitude[0]} < {sample.faintest:g}"
        elif sample.faintest:
            words += ", no magnitudes in i to cut by"
        value = metrics.point_metrics(z_phot[inside], z_spec[inside])
        spread = metrics.bootstrap(z_phot[inside], z_spec[inside], draws, rng)
        outcomes += [
            Outcome(
                sample.document,
                words,
                int(inside.sum()),
                name,
                value[name],
                spread.error[name],
                spread.low[name],
                spread.high[name],
                limit,
                verdict(spread.low[name], spread.high[name], limit),
            )
            for name, limit in required
        ]
    return outcomes


def edges(bins: Sequence[float] | int, z_phot: np.ndarray) -> tuple[float, ...]:
    """Edges of tomographic bins: given, or with as many of the z_phot (N,) in each, to 0.001."""
    if not isinstance(bins, int):
        return tuple(bins)
    known = z_phot[np.isfinite(z_phot)]
    inner = np.quantile(known, np.arange(1, bins) / bins).round(3) if len(known) else np.array([])
    return (-np.inf, *np.unique(inner).tolist(), np.inf)
