"""Columns of a catalogue as features: whitened, and completed where some are not known."""

import math

import pytest
import torch

from mmae.layers.columns import FARTHEST, Columns


def sample(n=4000):
    """A magnitude, two that differ from it by colours of 0.3 and 0.1, and a size in other units."""
    generator = torch.Generator().manual_seed(0)
    g, a, b, size = torch.randn(4, n, generator=generator)
    magnitude = 20 + 1.5 * g
    return torch.stack([magnitude, magnitude + 0.3 * a, magnitude + 0.1 * b + 0.2 * a, 300 * size], 1)


@pytest.fixture
def columns():
    columns = Columns(4)
    columns.fit(sample())
    return columns


def test_small_differences_of_magnitudes_are_as_large_as_all_else(columns):
    features, known = columns(sample())
    assert (known == 1).all()
    assert (features[:, 4:] == 0).all()
    white = features[:, :4].sinh()
    torch.testing.assert_close(torch.cov(white.T), torch.eye(4), atol=0.15, rtol=0)


def test_what_is_not_known_is_what_is_expected(columns):
    """By the formula of the conditional mean of a normal distribution, for every set of columns."""
    standard, _ = columns.standard(sample(50))
    covariance = columns.covariance
    for number in range(16):
        known = torch.tensor([number >> k & 1 for k in range(4)]).bool()
        expected = torch.zeros(50, 4)
        if known.any():
            weights = torch.linalg.solve(covariance[known][:, known], covariance[known])
            expected = standard[:, known] @ weights
        found = columns.completed(standard * known, known.float().expand(50, 4))
        torch.testing.assert_close(found, expected, atol=2e-3, rtol=2e-3)


def test_objects_do_not_depend_on_each_other_and_one_without_columns_is_the_mean(columns):
    values = sample(64)
    values[::3, 1], values[5], values[7, 3] = math.nan, math.nan, 1e30
    features, known = columns(values)
    assert features.isfinite().all()
    assert known[:, 0].tolist() == [float(k != 5) for k in range(64)]
    assert (features[5] == torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])).all()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(1))
    again, _ = columns(values[order])
    assert torch.equal(again, features[order])
    cut, _ = columns(values[7:8].clamp(max=float(columns.centre[3] + FARTHEST / columns.scale[3])))
    torch.testing.assert_close(features[7:8], cut)


def test_columns_of_two_surveys_that_share_no_object():
    """Half of the objects have the first two, half the others, of which one is constant."""
    values = sample()
    values[::2, 2:], values[1::2, :2] = math.nan, math.nan
    values[1::2, 3] = 7.0
    columns = Columns(4)
    columns.fit(values)
    features, _ = columns(values)
    assert features.isfinite().all()
    covariance = columns.covariance
    assert covariance[:2, 2:].abs().max() < 1e-6
    assert covariance[0, 1] > 0.9
