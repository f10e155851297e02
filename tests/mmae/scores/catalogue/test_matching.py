"""What a match is asked for by flags that contradict each other."""

import numpy as np
import pytest
from astropy.table import Table

from catalogs.errors import UsageError
from catalogs.tables import redshifts
from catalogs.tables.redshifts import TruthTable
from mmae.scores.catalogue.matching import BY_POSITION, match


def test_an_id_is_not_matched_by_position(tmp_path):
    place = {"ra": [10.0], "dec": [0.0]}
    Table({"id": [7], "z": [0.5], **place}).write(tmp_path / "truth.csv")
    asked = TruthTable(tmp_path / "truth.csv", id="id")
    ra, dec = (np.array(each) for each in place.values())
    with pytest.raises(UsageError, match="--id-column is for a match by id"):
        match(np.array([1]), ra, dec, redshifts.read(asked), asked, BY_POSITION)
