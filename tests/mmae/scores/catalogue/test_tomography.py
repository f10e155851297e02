"""Tomographic bins against numbers worked by hand: p(z) that are uniform are exact in 20 quantiles."""

import math

import numpy as np
import pytest

from catalogs.products.schema import QUANTILE_LEVELS
from mmae.scores.catalogue import tomography

INF = np.inf


def uniform(low, high):
    """Quantiles of p(z) uniform from low to high, (N, 20)."""
    low, high = np.atleast_1d(low, high)
    return low[:, None] + (high - low)[:, None] * np.array(QUANTILE_LEVELS)


def test_moments_of_uniform_p_of_z():
    mean, square = tomography.moments(uniform([0.2, 1.0], [0.8, 1.0]))
    np.testing.assert_allclose(mean, [0.5, 1.0])
    np.testing.assert_allclose(square, [0.5**2 + 0.6**2 / 12, 1.0])


def test_stacked_p_of_z_are_a_density():
    """One from 0 to 1, one from 0.5 to 1.5: 1/2 each, 1 where both are; and a spike at 2."""
    edges = np.array([0, 0.25, 0.5, 1.0, 1.5, 1.9, 2.1])
    density = tomography.stacked(uniform([0.0, 0.5], [1.0, 1.5]), edges)
    np.testing.assert_allclose(density, [0.5, 0.5, 1, 0.5, 0, 0], atol=1e-12)
    spiked = tomography.stacked(uniform([0.0, 0.5, 2.0], [1.0, 1.5, 2.0]), edges)
    np.testing.assert_allclose(spiked, [1 / 3, 1 / 3, 2 / 3, 1 / 3, 0, 1 / 3 / 0.2], atol=1e-6)


def test_stacked_p_of_z_add_up():
    rng = np.random.default_rng(0)
    quantiles = np.sort(rng.gamma(2, 0.4, (2000, 20)), 1)
    grid = np.linspace(0, 10, 501)
    density = tomography.stacked(quantiles, grid)
    assert (density > -1e-12).all()
    assert density.sum() * 0.02 == pytest.approx(1, abs=1e-9)
    middle = (grid[1:] + grid[:-1]) / 2
    assert density @ middle * 0.02 == pytest.approx(tomography.moments(quantiles)[0].mean(), abs=1e-3)


def measured(z_phot, z_spec, quantiles, edges, draws=0):
    limits = {"Y1": 0.002, "Y10": 0.001}
    return tomography.measure(z_phot, z_spec, quantiles, edges, limits, draws, np.random.default_rng(0))


def test_means_of_bins_worked_by_hand():
    z_phot = np.array([0.3, 0.5, 0.7, np.nan])
    z_spec = np.array([0.2, 0.4, 1.0, 1.0])
    quantiles = uniform([0.1, 0.3, 0.8, 0.8], [0.5, 0.7, 1.6, 1.6])  # means 0.3, 0.5, 1.2, 1.2
    low, high = measured(z_phot, z_spec, quantiles, (-INF, 0.7, INF))
    assert (low.range, low.n, high.range, high.n) == ("z_phot < 0.7", 2, "z_phot >= 0.7", 1)
    assert low.z_spec == pytest.approx(0.3)
    assert low.z_spec_width == pytest.approx(0.1)
    assert low.by_point == pytest.approx((0.4 - 0.3) / 1.3)
    assert low.by_pdf == pytest.approx((0.4 - 0.3) / 1.3)
    assert low.pdf_width == pytest.approx(math.sqrt(0.1**2 + 0.4**2 / 12))
    assert high.by_point == pytest.approx(-0.3 / 2)
    assert high.by_pdf == pytest.approx(0.2 / 2)
    assert math.isnan(high.by_pdf_error)
    assert high.verdicts == {"Y1": "open", "Y10": "open"}


@pytest.mark.parametrize(
    ("offset", "verdicts"),
    [
        (0.0005, {"Y1": "pass", "Y10": "pass"}),
        (-0.0015, {"Y1": "pass", "Y10": "fail"}),
        (0.01, {"Y1": "fail", "Y10": "fail"}),
    ],
)
def test_the_mean_by_p_of_z_is_judged_and_else_that_of_z_phot(offset, verdicts):
    z = np.full(30, 1.0)
    (by_pdf,) = measured(z, z, uniform(z - 0.1, z + 0.1) + 2 * offset, (0.5, 1.5), draws=20)
    assert by_pdf.range == "0.5 <= z_phot < 1.5"
    assert (by_pdf.by_pdf_low, by_pdf.by_pdf_high) == pytest.approx((offset, offset))
    assert by_pdf.verdicts == verdicts
    (by_point,) = measured(z + 2 * offset, z, None, (0.5, 1.5), draws=20)
    assert by_point.verdicts == verdicts
    assert math.isnan(by_point.by_pdf)


def test_the_error_of_a_mean_is_the_analytic_one():
    rng = np.random.default_rng(1)
    z_spec = rng.normal(1, 0.1, 2000)
    (row,) = measured(np.ones(2000), z_spec, None, (0, 2), draws=400)
    assert row.z_spec_error == pytest.approx(0.1 / math.sqrt(2000), rel=0.15)
    assert row.by_point_error == pytest.approx(0.1 / math.sqrt(2000) / 2, rel=0.15)
    assert row.by_point_high - row.by_point_low == pytest.approx(3.92 * row.by_point_error, rel=0.2)


def test_a_bin_of_nobody_has_no_numbers():
    (row,) = measured(np.ones(3), np.ones(3), uniform(np.zeros(3), np.ones(3)), (2, 3), draws=5)
    assert row.n == 0
    assert math.isnan(row.z_spec)
    assert row.verdicts == {"Y1": "open", "Y10": "open"}
