"""The distribution of OOD_SCORE of a tile beside a uniform one."""

import math

import numpy as np
import pytest

from catalogs.products.drift import Drift


def drift(*scores):
    found = Drift()
    for block in scores:
        found.add(block)
    return found


def test_chance_is_exceeded_once_in_a_hundred_tiles_at_most():
    """A sample of 2,000 reference galaxies, by which scores are p-values, and 300 tiles of 500 like it."""
    rng = np.random.default_rng(0)
    reference = np.sort(rng.standard_normal(2000))
    alarms = 0
    for _ in range(300):
        scores = np.searchsorted(reference, rng.standard_normal(500)) / 2000
        alarms += bool(drift(scores).sentence)
    assert alarms <= 3


def test_a_population_that_moved_by_a_third_of_its_scatter_is_seen():
    rng = np.random.default_rng(1)
    reference = np.sort(rng.standard_normal(2000))
    scores = np.searchsorted(reference, rng.standard_normal(5000) - 1 / 3) / 2000
    found = drift(scores[:3000], scores[3000:], [math.nan])
    assert found.distance == pytest.approx(0.132, abs=0.03)  # of two such normal distributions
    assert "off by 0.1" in found.sentence


def test_without_scores_nothing_is_said():
    found = drift([math.nan] * 10)
    assert (math.isnan(found.distance), found.sentence) == (True, "")
