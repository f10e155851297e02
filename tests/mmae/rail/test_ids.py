"""Ids of the input of a stage are those of the table, to the last digit."""

import numpy as np
import pytest

from catalogs.errors import InputRefused
from mmae.rail.sources import NO_ID, ids_of

LARGE = 2**60 + 1


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (np.array([LARGE, 3], ">i8"), [LARGE, 3]),
        (np.array([LARGE, 3], np.uint64), [LARGE, 3]),
        (np.ma.array([LARGE, 3], mask=[False, True]), [LARGE, NO_ID]),
        (np.array([7.0, np.nan]), [7, NO_ID]),
        (np.array([str(LARGE).encode(), b"3"]), [LARGE, 3]),
        ([LARGE, 3], [LARGE, 3]),
    ],
)
def test_ids_are_exact(column, expected):
    assert ids_of(column, "object_id").tolist() == expected


@pytest.mark.parametrize("column", [np.array([float(LARGE), 3.0]), np.array([0.5]), np.array(["a"])])
def test_ids_that_are_rounded_or_none_are_refused(column):
    """2**60 + 1 in floating point is 2**60, the id of another object."""
    with pytest.raises(InputRefused, match="the column object_id of the input has"):
        ids_of(column, "object_id")
