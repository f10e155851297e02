"""Metrics against numbers worked by hand, invariances, and bootstrap errors against analytic ones."""

import math

import numpy as np
import pytest

from mmae.scores import metrics

DZ = np.array([0.02, -0.2, 0.065, 0.0, -0.01])
Z_SPEC = np.array([0.0, 1.0, 0.5, 3.0, 0.25])
Z_PHOT = Z_SPEC + DZ * (1 + Z_SPEC)


def worked_by_hand() -> dict[str, float]:
    """The metrics of DZ: sorted it is -0.2, -0.01, 0, 0.02, 0.065, so the median is 0."""
    # Weights (1 - u^2)^2 with u = dz / (6 * 0.02): u^2 = 1/144, 0, 1/36, 0.2934028; -0.2 has |u| > 1.
    weights = 0.9861593 + 1 + 0.9452160 + 0.4992797
    return {
        "bias": 0.0,
        "biweight": (-0.01 * 0.9861593 + 0.02 * 0.9452160 + 0.065 * 0.4992797) / weights,
        "sigma_NMAD": 1.4826 * 0.02,  # |dz| sorted: 0, 0.01, 0.02, 0.065, 0.2
        "sigma_IQR": 0.03 / 1.349,  # q25 = -0.01, q75 = 0.02
        "|dz|>0.15": 0.2,  # -0.2
        "|dz|>max(0.06,3s)": 0.2,  # 3 s = 0.0667 spares 0.065
        # 1 - 1/(1 + (dz/0.15)^2) = dz^2 / (dz^2 + 0.0225)
        "HSC loss": (0.04 / 0.0625 + 0.0001 / 0.0226 + 0.0004 / 0.0229 + 0.004225 / 0.026725) / 5,
        "RMS": math.sqrt((0.04 + 0.0001 + 0.0004 + 0.004225) / 5),
    }


def test_point_metrics_worked_by_hand():
    values = metrics.point_metrics(Z_PHOT, Z_SPEC)
    assert list(values) == list(metrics.POINT_METRICS)
    assert values == pytest.approx(worked_by_hand(), rel=1e-6, abs=1e-12)


def test_narrow_core_leaves_the_limit_at_0_06():
    z_phot = np.zeros(20)  # q25 = q75 = 0
    z_phot[:2] = 0.059, 0.061
    assert metrics.outliers_3sigma(z_phot, np.zeros(20)) == 1 / 20


def test_outliers_are_beyond_0_15_not_at_it():
    assert metrics.outliers(np.array([0.15, 0.1500001]), np.zeros(2)) == 0.5


def test_adding_a_constant_to_dz_moves_the_centre_and_not_the_width():
    before = metrics.point_metrics(Z_PHOT, Z_SPEC)
    after = metrics.point_metrics(Z_PHOT + 0.3 * (1 + Z_SPEC), Z_SPEC)
    for centre in ("bias", "biweight"):
        assert after[centre] == pytest.approx(before[centre] + 0.3)
    for width in ("sigma_NMAD", "sigma_IQR"):
        assert after[width] == pytest.approx(before[width])


def test_widths_and_biweight_of_a_gaussian():
    dz = np.random.default_rng(0).normal(0.01, 0.03, 100_000)
    values = metrics.point_metrics(dz, np.zeros_like(dz))
    assert values["sigma_NMAD"] == pytest.approx(0.03, rel=0.01)
    assert values["sigma_IQR"] == pytest.approx(0.03, rel=0.01)
    assert values["biweight"] == pytest.approx(0.01, abs=5e-4)


def test_perfect_photo_z():
    assert set(metrics.point_metrics(Z_SPEC, Z_SPEC).values()) == {0.0}


def test_no_objects_is_nan_without_a_warning():
    empty = np.array([])
    for values in (
        metrics.point_metrics(empty, empty),
        metrics.bootstrap(empty, empty, 10, np.random.default_rng(0)).error,
    ):
        assert list(values) == list(metrics.POINT_METRICS)
        assert all(map(math.isnan, values.values()))


@pytest.mark.parametrize(
    ("z_phot", "z_spec", "message"),
    [
        ([0.1, 0.2], [0.1], "shape"),
        ([math.nan], [0.1], "not finite"),
        ([0.1], [math.inf], "not finite"),
        ([0.1], [-99.0], "-99 is not a redshift"),
    ],
)
def test_what_is_no_redshift_is_refused(z_phot, z_spec, message):
    with pytest.raises(ValueError, match=message):
        metrics.point_metrics(np.array(z_phot), np.array(z_spec))


def test_bootstrap_errors_are_the_analytic_ones():
    n, p, sigma = 1000, 0.1, 0.03
    rng = np.random.default_rng(1)
    z_phot = rng.normal(0, sigma, n)
    gaussian = metrics.bootstrap(z_phot, np.zeros(n), 600, rng).error
    assert gaussian["RMS"] == pytest.approx(sigma / math.sqrt(2 * n), rel=0.15)
    assert gaussian["bias"] == pytest.approx(sigma * math.sqrt(math.pi / 2 / n), rel=0.25)  # of a median

    z_phot[: int(p * n)] = 1
    binomial = metrics.bootstrap(z_phot, np.zeros(n), 600, rng).error
    assert binomial["|dz|>0.15"] == pytest.approx(math.sqrt(p * (1 - p) / n), rel=0.15)


def test_bootstrap_depends_on_the_seed_alone():
    first, again, other = (
        metrics.bootstrap(Z_PHOT, Z_SPEC, 20, np.random.default_rng(seed)) for seed in (0, 0, 1)
    )
    assert first == again
    assert first != other


def test_bootstrap_of_one_object_has_no_error():
    errors = metrics.bootstrap(Z_PHOT[:1], Z_SPEC[:1], 20, np.random.default_rng(0)).error
    assert all(map(math.isnan, errors.values()))


def test_table_bins_are_half_open_and_count_what_has_no_photo_z():
    z_spec = np.array([-0.001, 0.399, 0.4, 0.999, 1.0, 2.0, 5.0, 0.1, 0.5])
    z_phot = np.array([0.1, 0.4, 0.4, 0.4, 1.0, 1.9, 0.0, np.nan, np.inf])
    rows = metrics.table(z_phot, z_spec, metrics.EDGES, 5, np.random.default_rng(0))
    assert [(row.range, row.n, row.n_without_z_phot) for row in rows] == [
        ("all", 7, 2),
        ("z_spec < 0.4", 2, 1),
        ("0.4 <= z_spec < 1", 2, 1),
        ("1 <= z_spec < 2", 1, 0),
        ("z_spec >= 2", 2, 0),
        ("z_phot < 0.4", 2, 0),
        ("0.4 <= z_phot < 1", 3, 0),
        ("1 <= z_phot < 2", 2, 0),
        ("z_phot >= 2", 0, 0),
    ]
    assert rows[2].value["bias"] == pytest.approx((0.0 + (0.4 - 0.999) / 1.999) / 2)
    assert all(map(math.isnan, rows[-1].value.values()))


def test_intervals_hold_95_percent_of_the_samples():
    n, sigma = 2000, 0.03
    rng = np.random.default_rng(3)
    spread = metrics.bootstrap(rng.normal(0, sigma, n), np.zeros(n), 600, rng)
    assert spread.high["RMS"] - spread.low["RMS"] == pytest.approx(3.92 * spread.error["RMS"], rel=0.15)
    samples = np.array([[0.0, 5.0], [1.0, 5.0], [2.0, 5.0]])
    error, low, high = metrics.spread(samples)
    assert (error, low, high) == ([1.0, 0.0], [0.05, 5.0], [1.95, 5.0])
    assert all(map(math.isnan, metrics.spread(samples[:1])[2]))


def test_a_few_objects_without_an_outlier_are_not_sure_of_none():
    """Of n objects none is an outlier with a chance of (1 - p)^n, which is 2.5 % at the end."""
    few = metrics.bootstrap(np.zeros(5), np.zeros(5), 20, np.random.default_rng(0))
    assert few.low["|dz|>0.15"] == 0
    assert (1 - few.high["|dz|>0.15"]) ** 5 == pytest.approx(0.025)
    all_of_them = metrics.bootstrap(np.ones(5), np.zeros(5), 20, np.random.default_rng(0))
    assert all_of_them.low["|dz|>0.15"] ** 5 == pytest.approx(0.025)
    assert all_of_them.high["|dz|>0.15"] == 1
    one = metrics.bootstrap(np.zeros(1), np.zeros(1), 20, np.random.default_rng(0))
    assert math.isnan(one.low["|dz|>0.15"])
    assert math.isnan(one.high["|dz|>0.15"])


def test_quarters_have_edges_of_four_digits():
    labels = [
        label for label, _ in metrics.quarters("SNR", np.array([0.0101, 0.02345678, 0.031, 0.9, np.nan]))
    ]
    assert labels == ["SNR < 0.0201", "0.0201 <= SNR < 0.0272", "0.0272 <= SNR < 0.2482", "SNR >= 0.2482"]
    flags = metrics.quarters("FLAG", np.array([0.0] * 9 + [1.0]))
    assert [(label, int(inside.sum())) for label, inside in flags] == [("FLAG < 0", 0), ("FLAG >= 0", 10)]
    assert metrics.quarters("NOTHING", np.full(3, np.inf)) == []
