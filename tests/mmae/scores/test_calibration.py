"""Calibration against numbers worked by hand, brute-force integrals, and draws from known p(z)."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from catalogs.products.quantiles import LEVELS, polyline
from catalogs.products.schema import QUANTILE_LEVELS
from mmae.scores import calibration, metrics
from mmae.scores.calibration import METRICS, Sample, Scores

UNIFORM = np.array(QUANTILE_LEVELS)
"""p = 1 from z = 0 to 1: F(z) = z."""
SHARP = np.full(20, 0.5)
TWO_PEAKS = np.concatenate([0.5 + 0.02 * np.arange(10), 1.5 + 0.02 * np.arange(10)])
"""p(z) from 0.49 to 0.69 and 1.49 to 1.69, except for 5 % spread out from 0.68 to 1.5."""
NEAR_ZERO = np.linspace(0.001, 0.191, 20)


def many(n: int, rng: np.random.Generator) -> np.ndarray:
    """(n, 20) quantiles of irregular p(z)"""
    return rng.gamma(2, 0.3, (n, 1)) + np.cumsum(rng.uniform(0.003, 0.1, (n, 20)), axis=1)


def score(function, quantiles, z_spec):
    z_spec = np.atleast_1d(np.asarray(z_spec, float))
    return function(np.tile(quantiles, (len(z_spec), 1)), z_spec)


# ---------------------------------------------------------------- one p(z)


def test_polyline_continues_for_half_a_step_and_not_below_zero():
    line = polyline(np.stack([UNIFORM, TWO_PEAKS, NEAR_ZERO]))
    np.testing.assert_allclose(line[0], [0, 0.49, 0], atol=1e-12)
    np.testing.assert_allclose(line[-1], [1, 1.69, 0.196])


@pytest.mark.parametrize(
    ("quantiles", "z_spec", "expected"),
    [
        (UNIFORM, [-0.1, 0, 0.01, 0.6, 1, 1.1], [0, 0, 0.01, 0.6, 1, 1]),
        (TWO_PEAKS, [0.495, 0.68, 1.09, 1.5, 1.7], [0.0125, 0.475, 0.5, 0.525, 1]),
        (NEAR_ZERO, [0.0005], [0.0125]),
        (SHARP, [0.49, 0.5, 0.51], [0, 1, 1]),
    ],
)
def test_pit_worked_by_hand(quantiles, z_spec, expected):
    np.testing.assert_allclose(score(calibration.pit, quantiles, z_spec), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("quantiles", "z_spec", "expected"),
    [
        # integral of z^2 to z_spec and of (1 - z)^2 from there on
        (UNIFORM, [0.5, 0.1, 0, 2, -0.5], [1 / 12, (0.001 + 0.729) / 3, 1 / 3, 1 / 3 + 1, 1 / 3 + 0.5]),
        (SHARP, [0.2, 0.5, 0.9], [0.3, 0, 0.4]),
    ],
)
def test_crps_worked_by_hand(quantiles, z_spec, expected):
    np.testing.assert_allclose(score(calibration.crps, quantiles, z_spec), expected, atol=1e-12)


def test_cde_loss_worked_by_hand():
    np.testing.assert_allclose(score(calibration.cde_loss, UNIFORM, [-0.1, 0.5, 1.1]), [1, -1, 1])
    # 18 segments of 0.05 / 0.02, the gap of 0.05 / 0.82, ends of 0.025 / 0.01
    squared = 18 * 0.05**2 / 0.02 + 0.05**2 / 0.82 + 2 * 0.025**2 / 0.01
    loss = score(calibration.cde_loss, TWO_PEAKS, [1.09, 0.6, 1])
    np.testing.assert_allclose(loss, squared - 2 * np.array([0.05 / 0.82, 2.5, 0.05 / 0.82]))
    # equal quantiles: segments of MIN_WIDTH, whose density does not count at z_spec
    squared = (19 * 0.05**2 + 2 * 0.025**2) / 1e-6
    np.testing.assert_allclose(score(calibration.cde_loss, SHARP, [0.5, 0.6]), squared)


def test_crps_and_cde_loss_are_the_integrals():
    rng = np.random.default_rng(0)
    quantiles = many(20, rng)
    z_spec = quantiles[:, 9] + rng.normal(0, 0.3, 20)
    edges = np.linspace(-1, 8, 2_000_001)
    centres = (edges[1:] + edges[:-1]) / 2
    step = edges[1] - edges[0]
    scores = calibration.crps(quantiles, z_spec), calibration.cde_loss(quantiles, z_spec)
    for line, z, crps, cde_loss in zip(polyline(quantiles).T, z_spec, *scores, strict=True):
        cdf = np.interp(edges, line, LEVELS)
        middle = (cdf[1:] + cdf[:-1]) / 2
        assert crps == pytest.approx(step * ((middle - (centres > z)) ** 2).sum(), abs=1e-5)
        p = np.diff(cdf) / step
        at_z_spec = p[np.searchsorted(edges, z) - 1]
        assert cde_loss == pytest.approx(step * (p**2).sum() - 2 * at_z_spec, abs=0.01)


@pytest.mark.parametrize(
    ("quantiles", "message"),
    [
        (UNIFORM[:19], "20 quantiles, not 19"),
        (UNIFORM[::-1], "never decrease"),
        (UNIFORM - 0.1, "not negative"),
        (UNIFORM * np.nan, "finite"),
    ],
)
def test_invalid_quantiles_are_refused(quantiles, message):
    with pytest.raises(ValueError, match=message):
        score(calibration.pit, quantiles, 0.5)


def test_coverage_counts_the_ends():
    low, high = np.full(5, 0.2), np.full(5, 0.4)
    inside = calibration.within(low, high, np.array([0.19, 0.2, 0.3, 0.4, 0.41]))
    assert inside.tolist() == [False, True, True, True, False]


# ---------------------------------------------------------------- uniformity of the PIT


def statistics(pit):
    u = np.sort(pit)
    return calibration.pit_tests(u, calibration.logarithms(u), np.ones(len(u)))


def test_tests_of_the_pit_worked_by_hand():
    ks, cvm, ad = statistics([0.1, 0.4, 0.9])
    assert ks == pytest.approx(2 / 3 - 0.4)
    # 1/(12 n) + sum (u_i - (2i - 1)/(2n))^2
    assert cvm == pytest.approx(1 / 36 + (0.1 - 1 / 6) ** 2 + (0.4 - 3 / 6) ** 2 + (0.9 - 5 / 6) ** 2)
    # -n - sum (2i - 1)/n (ln u_i + ln(1 - u_(n+1-i))): 0.1 and 0.1, 0.4 and 0.6, 0.9 and 0.9
    assert ad == pytest.approx(-3 - (math.log(0.01) + 3 * math.log(0.24) + 5 * math.log(0.81)) / 3)
    assert statistics([0.0, 1.0])[2] == pytest.approx(-2 - (2 * math.log(1e-4) + 6 * math.log1p(-1e-4)) / 2)


def test_a_pit_may_occur_several_times_or_not_at_all():
    u = np.array([0.1, 0.4, 0.7, 0.9])
    several = calibration.pit_tests(u, calibration.logarithms(u), np.array([2.0, 3, 0, 1]))
    assert several == pytest.approx(statistics([0.1, 0.1, 0.4, 0.4, 0.4, 0.9]))


def test_pit_outliers_are_close_to_an_end():
    pit = np.array([0, 0.00009, 0.00011, 0.5, 0.99985, 0.99995])
    assert calibration.is_pit_outlier(pit).tolist() == [True, True, False, False, False, True]


def test_pit_of_draws_is_uniform_and_that_of_too_narrow_p_z_is_not():
    n, rng = 5000, np.random.default_rng(1)
    quantiles = many(n, rng)
    lines = polyline(quantiles).T
    z_spec = np.array([np.interp(u, LEVELS, line) for u, line in zip(rng.random(n), lines, strict=True)])
    pit = calibration.pit(quantiles, z_spec)
    ks, cvm, ad = statistics(pit)
    assert ks < 1.63 / math.sqrt(n)  # exceeded by chance in 1 of 100, as the two below
    assert cvm < 0.743
    assert ad < 3.86
    median = quantiles[:, 9:11].mean(1, keepdims=True)
    narrow = calibration.pit(median + (quantiles - median) / 2, z_spec)
    assert statistics(narrow)[0] > 10 / math.sqrt(n)


def test_pit_of_a_gaussian_by_the_polyline():
    gaussian, n = NormalDist(1, 0.05), 20_000
    quantiles = np.array([gaussian.inv_cdf(level) for level in QUANTILE_LEVELS])
    z_spec = [gaussian.inv_cdf((k + 0.5) / n) for k in range(n)]
    pit = score(calibration.pit, quantiles, z_spec)
    assert statistics(pit)[0] == pytest.approx(0.013, abs=5e-4)
    assert calibration.is_pit_outlier(pit).mean() == pytest.approx(0.026, abs=1e-3)
    assert score(calibration.crps, quantiles, z_spec).mean() == pytest.approx(
        0.05 / math.sqrt(math.pi), rel=1e-3
    )


# ---------------------------------------------------------------- the calibration table


@pytest.fixture
def scores() -> Scores:
    n = 1000
    rng = np.random.default_rng(2)
    z_spec = rng.random(n)
    interval = np.stack([np.full(n, 0.0), np.where(np.arange(n) < 300, 2.0, -1)])
    return calibration.scores(np.tile(UNIFORM, (n, 1)), interval, interval + 5, z_spec)


def test_bootstrap_errors_are_the_analytic_ones(scores):
    sample = Sample(scores)
    value, error = sample.value(), sample.spread(600, np.random.default_rng(3)).error
    assert list(value) == list(error) == list(METRICS)
    assert value["coverage 68"] == 0.3
    assert error["coverage 68"] == pytest.approx(math.sqrt(0.3 * 0.7 / 1000), rel=0.15)
    assert error["CRPS"] == pytest.approx(scores.crps.std() / math.sqrt(1000), rel=0.15)
    assert error["coverage 95"] == 0
    assert error == sample.spread(600, np.random.default_rng(3)).error


def test_table_has_the_bins_of_the_metrics_and_quarters_by_magnitude():
    z_spec = np.array([0.1, 0.5, 1.5, 2.5, 0.2, 0.3, 0.6, 0.7])
    z_phot = np.array([0.1, 0.5, 0.5, np.nan, 0.2, 0.3, 0.6, np.inf])
    magnitude = np.array([20, 21, 22, 23, 24, 25, np.nan, np.inf])
    interval = np.tile([[0.0], [1.0]], 8)
    scores = calibration.scores(np.tile(UNIFORM, (8, 1)), interval, interval, z_spec)
    arguments = (metrics.EDGES, 3, np.random.default_rng(0))
    rows = calibration.table(scores, z_phot, z_spec, {"MAG_I": magnitude}, *arguments)
    ranges = [(row.range, row.n) for row in rows]
    assert ranges[0] == ("all", 8)
    assert [n for _, n in ranges[1:9]] == [3, 3, 1, 1, 3, 3, 0, 0]
    assert ranges[9:] == [  # quartiles of 20 to 25
        ("MAG_I < 21.25", 2),
        ("21.25 <= MAG_I < 22.5", 1),
        ("22.5 <= MAG_I < 23.75", 1),
        ("MAG_I >= 23.75", 2),
    ]
    assert rows[0].value["coverage 68"] == 6 / 8
    assert all(map(math.isnan, rows[7].value.values()))
    assert all(map(math.isnan, rows[7].error.values()))
    for unknown in ({}, {"MAG_I": np.full(8, np.nan)}):
        assert len(calibration.table(scores, z_phot, z_spec, unknown, *arguments)) == 9
