"""Objects that may not judge: by what the catalogue says of them, and by position."""

import numpy as np

from mmae.scores.catalogue import leaks
from mmae.scores.catalogue.leaks import Leaks

ARCSEC = 1 / 3600


def test_objects_the_model_was_made_with_and_their_doubles_are_left_out():
    role = np.array([0, 1, 2, np.nan, 0, 0, 1])
    dec = np.array([0, 10, 20, 30, 10 + 0.9 * ARCSEC, 10 + 1.1 * ARCSEC, np.nan])
    judges, found = leaks.find(role, np.zeros(7), dec, np.arange(7))
    np.testing.assert_array_equal(judges, [True, False, False, True, False, True, False])
    assert found == Leaks(told=True, trained=2, chosen=1, near=1, unknown=1)
    assert found.left_out == 4
    assert [line.split()[0] for line in found.lines()] == ["2", "1", "1", "1"]


def test_a_row_without_a_redshift_leaks_by_its_position():
    """The double of row 1 is among those with a redshift, row 1 is not."""
    role, dec = np.array([0, 1, 0]), np.array([0, 10, 10])
    judges, found = leaks.find(role, np.zeros(3), dec, np.array([0, 2]))
    np.testing.assert_array_equal(judges, [True, False])
    assert (found.trained, found.near) == (0, 1)


def test_a_catalogue_that_says_nothing_is_told_so():
    judges, found = leaks.find(np.full(3, np.nan), np.zeros(3), np.zeros(3), np.arange(3))
    assert judges.all()
    assert found == Leaks(told=False, unknown=3)
    assert found.lines() == [
        "the catalogue does not say what the model was made with: its own galaxies may be judged"
    ]
