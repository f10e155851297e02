"""Requirements of surveys: the galaxies they are of, and what fulfils them, worked by hand."""

import math

import numpy as np
import pytest

from mmae.scores.catalogue import requirements
from mmae.scores.catalogue.requirements import FAIL, OPEN, PASS, PRESETS, verdict
from mmae.scores.metrics import POINT_METRICS


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (-0.002, 0.002, PASS),
        (0.0, 0.003, OPEN),  # below the limit, not at it
        (-0.004, -0.001, OPEN),
        (-0.004, 0.004, OPEN),
        (0.003, 0.005, FAIL),
        (-0.005, -0.003, FAIL),
        (math.nan, math.nan, OPEN),
    ],
)
def test_a_verdict_needs_the_whole_interval(low, high, said):
    assert verdict(low, high, 0.003) == said


def measured(preset, z_phot, z_spec, magnitude):
    found = requirements.measure(PRESETS[preset], z_phot, z_spec, magnitude, 40, np.random.default_rng(0))
    return {(outcome.document, outcome.metric): outcome for outcome in found}


def test_galaxies_that_all_are_off_alike():
    """dz = 0.004 of all: too much of a bias for the SRD, no scatter at all, no outliers; Euclid asks less."""
    z_spec = np.linspace(0.5, 1.5, 50)
    outcomes = measured("lsst", z_spec + 0.004 * (1 + z_spec), z_spec, ("MAG_I", np.full(50, 24.0)))
    bias = outcomes["LSST SRD", "bias"]
    assert (bias.value, bias.low, bias.high) == pytest.approx((0.004, 0.004, 0.004))
    assert {key: outcome.verdict for key, outcome in outcomes.items()} == {
        ("LSST SRD", "sigma_IQR"): PASS,
        ("LSST SRD", "bias"): FAIL,
        ("LSST SRD", "|dz|>max(0.06,3s)"): PASS,
        ("DMTN-049", "sigma_IQR"): PASS,
        ("DMTN-049", "|dz|>max(0.06,3s)"): PASS,
    }
    euclid = measured("euclid", z_spec + 0.004 * (1 + z_spec), z_spec, None)
    assert [outcome.verdict for outcome in euclid.values()] == [PASS, PASS]
    assert measured("hsc", z_spec, z_spec, None) == {}


def test_only_the_galaxies_of_the_document_count():
    """Of ten, those that are nearer, farther, too faint, of no magnitude or of no z_phot do not."""
    z_phot = np.array([0.29, 0.3, 1.99, 2.0, 2.99, 3.0, 1.0, 1.0, 1.0, np.nan])
    magnitude = np.array([20.0, 20.0, 20.0, 20.0, 20.0, 20.0, 24.99, 25.0, np.nan, 20.0])
    outcomes = measured("lsst", z_phot, np.ones(10), ("MAG_LSST_I", magnitude))
    assert outcomes["LSST SRD", "bias"].n == 5
    assert outcomes["LSST SRD", "bias"].sample == "0.3 <= z_phot < 3, MAG_LSST_I < 25"
    assert outcomes["DMTN-049", "sigma_IQR"].n == 4  # 0.29, too, and neither 2.0 nor 2.99
    # dz of 0.3, 1.0, 1.99, 2.0, 2.99 is -0.35, 0, 0.495, 0.5, 0.995
    assert outcomes["LSST SRD", "bias"].value == pytest.approx(0.495)
    unknown = measured("lsst", z_phot, np.ones(10), None)["LSST SRD", "bias"]
    assert (unknown.n, unknown.sample) == (7, "0.3 <= z_phot < 3, no magnitudes in i to cut by")


def test_a_sample_of_nobody_is_open():
    outcomes = measured("euclid", np.full(3, 5.0), np.ones(3), None)
    assert [(outcome.n, outcome.verdict) for outcome in outcomes.values()] == [(0, OPEN), (0, OPEN)]


def test_every_required_metric_is_one():
    for preset in PRESETS.values():
        assert all(metric in POINT_METRICS for required in preset.required.values() for metric, _ in required)


def test_bins_of_as_many_galaxies():
    z_phot = np.append(np.arange(101) / 100, [np.nan, np.inf])
    assert requirements.edges(5, z_phot) == (-np.inf, 0.2, 0.4, 0.6, 0.8, np.inf)
    assert requirements.edges(5, np.full(4, 0.5)) == (-np.inf, 0.5, np.inf)  # no two alike
    assert requirements.edges(5, np.full(4, np.nan)) == (-np.inf, np.inf)
    assert requirements.edges(PRESETS["hsc"].bins, z_phot) == (0.3, 0.6, 0.9, 1.2, 1.5)
