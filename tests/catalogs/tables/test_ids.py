"""Ids as tables write them: what is an integer of 64 bits to the last digit, and what is not."""

import re

import numpy as np
import pytest

from catalogs.tables.ids import as_ids, repeated


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        (np.array([1, -5], np.int16), [1, -5]),
        (np.array([2**63 - 1], np.uint64), [2**63 - 1]),
        (np.array(["9223372036854775807", "-9223372036854775808"]), [2**63 - 1, -(2**63)]),
        (np.array([2.0**53 - 1, np.nan]), [2**53 - 1, None]),  # as pandas writes them where one is absent
        (np.ma.array([1, 2], mask=[True, False]), [None, 2]),
        (np.ma.array(["x", "2"], mask=[True, False]), [None, 2]),
    ],
)
def test_ids_are_kept_to_the_last_digit(column, ids):
    found = as_ids(np.ma.asarray(column))
    assert (found.dtype, found.tolist()) == (np.int64, ids)


@pytest.mark.parametrize(
    ("column", "sentence"),
    [
        (np.array([2**63], np.uint64), "2**63 or more"),
        (np.array(["9223372036854775808"]), "2**63 or more"),
        (np.array([2.0**53]), "exact only for integers below 9007199254740992"),
        (np.array([2.0**24], np.float32), "exact only for integers below 16777216"),
        (np.array([1.5]), "in floating point"),
        (np.array([np.inf]), "in floating point"),
        (np.array(["1e5"]), "the id '1e5'"),
        (np.array(["\u0663"]), "the id '\u0663'"),  # a digit, and no number of ours
        (np.array([True]), "no integers"),
        (np.zeros((2, 2), int), "no integers"),
    ],
)
def test_what_may_be_another_id_is_none(column, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        as_ids(np.ma.asarray(column))


def test_the_first_id_that_is_there_twice():
    assert repeated(np.array([5, 3, 5, 3, 1])) == 3
    assert repeated(np.array([5, 3])) is None
