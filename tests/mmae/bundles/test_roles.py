"""The role of an object in the making of a model is told by its position, or by its id where it has none."""

import numpy as np
import pytest

from mmae.bundles.bundle import CHOSEN_BY, ROLES, TRAINED_ON
from mmae.bundles.roles import UNKNOWN, Roles

ARCSEC = 1 / 3600


def made_with(*rows):
    return Roles(np.array(list(rows), ROLES))


WITH_POSITIONS = made_with((7, TRAINED_ON, 150.0, 60.0), (8, CHOSEN_BY, 359.9999, -89.0))
WITHOUT = made_with((7, TRAINED_ON, np.nan, np.nan), (8, CHOSEN_BY, np.nan, np.nan))
BOTH = made_with((7, TRAINED_ON, 150.0, 60.0), (8, CHOSEN_BY, np.nan, np.nan))
NOWHERE = (np.nan, np.nan)


@pytest.mark.parametrize(
    ("roles", "object_id", "position", "role"),
    [
        (WITH_POSITIONS, 39_627_000, (150.0, 60.0 + 0.9 * ARCSEC), TRAINED_ON),  # another kind of id
        (WITH_POSITIONS, 39_627_000, (150.0 + 1.8 * ARCSEC, 60.0), TRAINED_ON),  # 0.9" on the sky
        (WITH_POSITIONS, 39_627_000, (150.0 + 2.2 * ARCSEC, 60.0), 0),
        (WITH_POSITIONS, 39_627_000, (0.0001, -89.0), CHOSEN_BY),  # across ra = 0, 0.01" away
        (WITH_POSITIONS, 7, (150.0, 60.0 + 1.1 * ARCSEC), 0),  # the same id by chance
        (WITH_POSITIONS, 8, (150.0, 60.0), TRAINED_ON),
        (WITH_POSITIONS, 7, NOWHERE, TRAINED_ON),
        (WITH_POSITIONS, 9, NOWHERE, UNKNOWN),
        (WITHOUT, 7, (150.0, 60.0), TRAINED_ON),
        (WITHOUT, 9, (150.0, 60.0), UNKNOWN),
        (WITHOUT, 9, NOWHERE, UNKNOWN),
        (BOTH, 8, (10.0, 10.0), CHOSEN_BY),
        (BOTH, 9, (150.0, 60.0), TRAINED_ON),
        (BOTH, 7, (10.0, 10.0), UNKNOWN),  # it may be the galaxy without a position, by another id
    ],
)
def test_roles(roles, object_id, position, role):
    ra, dec = (np.array([value]) for value in position)
    assert roles.of(np.array([object_id]), ra, dec).tolist() == [role]


def test_roles_of_many_objects_keep_their_order():
    ids, ra = np.array([5, 7, 6, 8]), np.array([150.0, np.nan, 20.0, np.nan])
    roles = WITH_POSITIONS.of(ids, ra, np.array([60.0, 0.0, 60.0, 0.0]))
    assert roles.tolist() == [TRAINED_ON, TRAINED_ON, 0, CHOSEN_BY]
    assert WITH_POSITIONS.of(ids[:0], ra[:0], ra[:0]).tolist() == []
