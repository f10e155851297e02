"""Coverage maps compared with cells derived by hand."""

import numpy as np
import pytest

from catalogs.products.coverage import FINEST, MAX_CELLS, Coverage


def rows_in(cells, order):
    """One row in the first order-29 cell of each cell."""
    return np.asarray(cells, np.int64) << 2 * (29 - order)


@pytest.mark.parametrize(
    ("cells", "moc"),
    [([], ""), ([7], "10/7"), ([3, 5, 4, 9, 4], "10/3-5 9"), ([12 * 4**10 - 1], f"10/{12 * 4**10 - 1}")],
)
def test_a_few_cells_are_named_at_the_finest_order(cells, moc):
    coverage = Coverage()
    coverage.add(rows_in(cells, FINEST))
    assert coverage.moc() == moc


def test_rows_without_a_position_are_ignored():
    coverage = Coverage()
    coverage.add(np.array([-1, *rows_in([2], FINEST)]))
    assert coverage.moc() == "10/2"


def test_a_large_area_is_described_by_coarser_cells():
    coverage = Coverage()
    for start in range(0, 12 * 4**7, 10_000):  # the whole sky, a stripe at a time
        coverage.add(rows_in(np.arange(start, min(start + 10_000, 12 * 4**7)), 7))
    assert coverage.moc() == "0/0-11"


def test_the_order_in_which_rows_come_makes_no_difference():
    cells = np.random.default_rng(0).integers(0, 4**10, 20_000)
    at_once, by_parts = Coverage(), Coverage()
    at_once.add(rows_in(cells, FINEST))
    for part in np.array_split(cells[::-1], 7):
        by_parts.add(rows_in(part, FINEST))
    assert at_once.moc() == by_parts.moc()
    assert len(by_parts.cells) <= MAX_CELLS
