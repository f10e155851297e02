"""The distribution of OOD_SCORE of a tile beside a uniform one."""

import math

import numpy as np
import pytest

from catalogs.products.drift import ALLOWED, ColourDrift, Drift, colour_sums


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


def colour_drift(colours, reference=100_000, parts=1):
    found = ColourDrift(reference)
    for part in np.array_split(colours, parts):
        found.add(**colour_sums(part))
    return found


def test_good_tiles_have_colours_within_chance():
    rng = np.random.default_rng(2)
    off = [colour_drift(rng.standard_normal((500, 30))) for _ in range(300)]
    assert sum(bool(each.sentence) for each in off) <= 6
    # without what is allowed besides, one in a hundred: chi squared
    beyond = [each.distance**2 > each.chance**2 - ALLOWED**2 for each in off]
    assert 0 <= np.mean(beyond) <= 0.03


def test_a_zero_point_that_shifts_one_colour_by_two_fifths_of_its_scatter_is_seen():
    colours = np.random.default_rng(3).standard_normal((1000, 30))
    colours[:, 4] += 0.4
    found = colour_drift(colours)
    assert found.distance == pytest.approx((0.4**2 + 30 / 1000) ** 0.5, rel=0.1)
    assert "mean colours are off by 0.4" in found.sentence
    assert not colour_drift(colours, reference=0).sentence


def test_no_chunking_changes_the_mean_colours():
    colours = np.random.default_rng(4).standard_normal((1000, 30)).astype(np.float32)
    colours[17] = np.nan
    assert (
        len(
            {
                (colour_drift(colours, parts=n).distance, colour_drift(colours, parts=n).objects)
                for n in (1, 7, 999)
            }
        )
        == 1
    )
    assert colour_drift(colours).objects == 999
    assert math.isnan(colour_drift(np.zeros((0, 30))).distance)
