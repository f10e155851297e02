"""Weights by which galaxies with redshifts stand for others, and the distance to them."""

import numpy as np
import pytest
import torch

from mmae.bundles.likeness.backing import Backing
from mmae.bundles.likeness.selection import MOST_WEIGHT, capped, drawn, effective, weights


def test_weights_are_the_ratio_of_the_densities():
    """Spectra of p(x) = 2 (1 - x), the target uniform, for x from 0 to 1: the ratio is 1 / (2 (1 - x))."""
    rng = np.random.default_rng(0)
    x = 1 - np.sqrt(rng.random(6000))
    target = rng.random(20_000)
    weight, unlike = weights(np.stack([x, 0 * x], 1), np.stack([target, 0 * target], 1))
    assert weight.mean() == pytest.approx(1)
    for low, high in ((0.05, 0.25), (0.4, 0.6), (0.7, 0.8)):
        inside = (x > low) & (x < high)
        assert weight[inside].mean() == pytest.approx((1 / (2 * (1 - x[inside]))).mean(), rel=0.1)
    assert np.average(x, weights=weight) == pytest.approx(0.5, abs=0.02)  # the target's mean; theirs is 1/3
    assert 0.03 < unlike < 0.15  # beyond x = 0.9 there is one spectrum in a hundred
    assert effective(weight) < 0.9 * len(x)


def test_a_target_elsewhere_is_unlike_any_and_weighs_nothing():
    rng = np.random.default_rng(1)
    spectra, target = rng.normal(0, 1, (500, 3)), rng.normal(50, 1, (400, 3))
    weight, unlike = weights(spectra, target)
    assert unlike == 1
    assert (weight == 1).all()  # not nan, and not one galaxy for all


def test_of_a_target_that_shares_no_band_all_is_unlike():
    """Each object has one band of three, so that no band is that of half of them; or there is no object."""
    rng = np.random.default_rng(3)
    target = np.where(np.arange(90)[:, None] % 3 == np.arange(3), rng.normal(0, 1, (90, 3)), np.nan)
    for few in (target, target[:0]):
        weight, unlike = weights(rng.normal(0, 1, (200, 3)), few)
        assert (weight == 1).all()
        assert unlike == 1


def test_a_band_that_few_of_the_target_have_does_not_count_and_one_lacking_another_weighs_one():
    rng = np.random.default_rng(2)
    spectra, target = rng.normal(0, 1, (500, 3)), rng.normal(0.5, 1, (500, 3))
    target[100:, 2] = np.nan
    spectra[0, 2], spectra[1, 0] = np.nan, np.nan
    weight, _ = weights(spectra, target)
    assert weight[1] == 1
    again, _ = weights(spectra[:, :2], target[:, :2])
    np.testing.assert_array_equal(weight, again)


def test_few_galaxies_do_not_stand_for_all():
    weight = capped(np.array([1000.0, 1, 1, 1] + [1] * 396))
    assert weight.mean() == pytest.approx(1)
    assert weight[0] == pytest.approx(MOST_WEIGHT * weight[1] / (400 / 1399), rel=1e-6)


def test_rows_are_drawn_as_often_as_they_stand_for():
    expected = np.array([0.0, 0.5, 1, 2.5] * 100)
    rows = [drawn(expected, np.random.default_rng(seed)) for seed in range(50)]
    assert {len(each) for each in rows} == {400}
    times = np.stack([np.bincount(each, minlength=400) for each in rows])
    assert (abs(times - expected) < 1).all()
    assert times.mean(0).reshape(-1, 4).mean(0) == pytest.approx([0, 0.5, 1, 2.5], abs=0.02)


@pytest.fixture
def backing():
    made = Backing(2)
    line = torch.arange(100.0)
    made.remember(torch.stack([line, torch.where(line < 50, line, torch.nan)], 1))
    return made


def distance(backing, magnitudes, there):
    sets = (torch.tensor(there) * torch.tensor([1, 2])).sum(1).long()
    values = [torch.tensor(x, dtype=torch.float32) for x in (magnitudes, there)]
    return backing(*values, sets, torch.zeros(len(sets)))


def test_the_distance_is_to_the_eighth_nearest_with_these_bands(backing):
    """Galaxies at (k, k), of which those from 50 on lack the second band."""
    found = distance(
        backing, [[10, 0], [10, 10], [80, 0], [80, 80], [30, 40]], [[1, 0], [1, 1], [1, 0], [1, 1], [1, 1]]
    )
    of_both = 2**0.5
    expected = [4, 4 * of_both, 4, 38 * of_both, (4.5**2 + 5.5**2) ** 0.5 * 1]
    assert found[:4].tolist() == pytest.approx(expected[:4], rel=1e-4)
    by_hand = sorted(((30 - k) ** 2 + (40 - k) ** 2) ** 0.5 for k in range(50))[7]
    assert float(found[4]) == pytest.approx(by_hand, rel=1e-4)


def test_usual_is_the_distance_within_which_99_of_100_are(backing):
    raw = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    assert float(Backing.usual_of(raw)) == pytest.approx(0.99, abs=0.01)
    assert Backing.usual_of(raw[:50]).isnan()
    backing.usual = torch.tensor([[1.0, 2, 1, 1], [1, 4, 1, 1]])
    magnitudes, there = torch.tensor([[10.0, 0]] * 3), torch.tensor([[1.0, 0]] * 3)
    found = backing(magnitudes, there, torch.tensor([1, 1, 1]), torch.tensor([0, 0.5, 1]))
    assert found.tolist() == pytest.approx([2, 4 / 3, 1])


def test_nothing_is_said_without_galaxies_to_compare_with():
    assert distance(Backing(2), [[1, 1]], [[1, 1]]).isnan().all()
    few = Backing(2)
    few.remember(torch.tensor([[1.0, torch.nan]] * 20))
    assert distance(few, [[1, 1]], [[1, 1]]).isnan().all()  # none of them has both bands
