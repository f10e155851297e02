"""Completeness and purity, worked by hand."""

import numpy as np
import pytest

from mmae.scores.catalogue.classes import CLASSES, table


def test_completeness_and_purity_of_each_class():
    """Of four stars one is taken for a galaxy; of two quasars one for a star; no galaxy is lost."""
    likeliest = np.array([0, 0, 0, 1, 1, 1, 1, 2, 0])
    spectype = np.array([1, 1, 1, 1, 2, 2, 2, 3, 3])
    probability = np.full((9, 3), 0.1)
    probability[np.arange(9), likeliest] = 0.8
    scores = table(probability, spectype)
    assert scores["class"].tolist() == list(CLASSES)
    assert scores["n"].tolist() == [4, 3, 2]
    np.testing.assert_allclose(scores["completeness"], [3 / 4, 1, 1 / 2])
    np.testing.assert_allclose(scores["purity"], [3 / 4, 3 / 4, 1])
    np.testing.assert_allclose(scores["expected"], [4 * 0.8 + 0.5, 4 * 0.8 + 0.5, 0.8 + 0.8])


def test_magnitudes_with_few_objects_have_no_row_and_shares_of_nothing_are_none():
    spectype, magnitude = np.full(30, 2), np.repeat([19.5, 20.0, np.nan], [12, 9, 9])
    scores = table(np.tile([0.2, 0.7, 0.1], (30, 1)), spectype, magnitude)
    assert scores["magnitude"].tolist() == ["all"] * 3 + ["19-20"] * 3
    assert scores["n"].tolist() == [0, 30, 0, 0, 12, 0]
    assert np.isnan(scores["purity"][[0, 2]]).all()
    assert scores["expected"][4] == pytest.approx(12 * 0.7)
