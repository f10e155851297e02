"""Items made early, on a thread."""

import time

import pytest

from mmae.prefetch import Prefetch


def test_a_bounded_number_is_made_early():
    made = []
    ahead = Prefetch((made.append(k) or k for k in range(1, 100)), most=3)
    time.sleep(0.2)
    assert 3 <= len(made) <= 5
    assert [ahead.take(1.0) for _ in range(99)] == list(range(1, 100))
    assert ahead.take(1.0) is None
    assert ahead.ended


def test_what_goes_wrong_is_raised_where_the_items_are_taken():
    ahead = Prefetch((1 // k for k in (1, 0)), most=3)
    assert ahead.take(1.0) == 1
    with pytest.raises(ZeroDivisionError):
        ahead.take(1.0)


def test_it_can_be_stopped_half_way():
    ahead = Prefetch(iter(range(1, 10**9)), most=3)
    ahead.stop()
