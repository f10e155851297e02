"""Cuts over columns: what they keep, with values that are absent, and what is no cut."""

import contextlib
import re

import numpy as np
import pytest

from catalogs.errors import UsageError
from catalogs.tables.where import LONGEST, Cut, columns_of

COLUMNS = {
    "ZWARN": np.ma.array([0, 4, 0, 0, 2**53 + 1], mask=[0, 0, 0, 1, 0]),
    "Z": np.ma.array([0.1, 0.5, np.nan, 1.5, 3.0]),
    "TYPE": np.ma.array(["GALAXY", "QSO", "STAR", "GALAXY", "QSO"]),
    "PRIMARY": np.ma.array([True, True, False, True, False]),
    "COEFF": np.ma.zeros((5, 10)),
    "secure": np.ma.array(["True", "false", "T", "F", ""], mask=[0, 0, 0, 0, 1]),
}


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("ZWARN == 0", [0, 2]),
        ("not ZWARN == 0", [1, 4]),  # the masked row is in neither
        ("ZWARN != 0 or Z > 1", [1, 3, 4]),
        ("ZWARN == 9007199254740993", [4]),  # beyond what floats tell apart
        ("ZWARN == 9007199254740992", []),
        ("0.1 <= Z < 1.5", [0, 1]),
        ("not (Z < 1)", [3, 4]),
        ("Z < 1 or Z >= 1", [0, 1, 3, 4]),
        ("TYPE == 'GALAXY' and Z < 1", [0]),
        ("TYPE in ('GALAXY', 'QSO')", [0, 1, 3, 4]),
        ("TYPE not in ['GALAXY']", [1, 2, 4]),
        ("PRIMARY", [0, 1, 3]),
        ("not PRIMARY or TYPE != 'GALAXY'", [1, 2, 4]),
        ("PRIMARY == 1", [0, 1, 3]),
        ("secure", [0, 2]),
        ("secure == False", [1, 3]),
        ("Z / 0.5 < 0.1 * (1 + Z) + 1 - -0.2", [0, 1]),
        ("ZWARN < 99999999999999999999", [0, 1, 2, 4]),
        ("True", [0, 1, 2, 3, 4]),
    ],
)
def test_rows_that_are_kept(text, kept):
    np.testing.assert_array_equal(np.flatnonzero(Cut(text).rows(COLUMNS, 5)), kept)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("__import__('os').system('true')", "is none of what it may hold"),
        ("Z.__class__", "is none of what it may hold"),
        ("[Z for Z in (1, 2)]", "is none of what it may hold"),
        ("(lambda: 1) == 1", "is none of what it may hold"),
        ("Z[0] == 1", "is none of what it may hold"),
        ("Z ** 9 > 1", "is none of what it may hold"),
        ("f'{Z}' == '1'", "is none of what it may hold"),
        ("Z = 1", "cannot be read"),
        ("Z > 0 && Z < 1", "cannot be read"),
        ("", "cannot be read"),
        ("(" * 300 + "Z" + ")" * 300, "cannot be read"),
        ("Z < 1" + " " * LONGEST, "longer than"),
        ("(Z > 0) & (Z < 1)", "write `and`, `or`"),
        ("Z is 1", "write =="),
        ("Z", "not true or false"),
        ("Z > 0 and ZWARN", "ZWARN is not true or false"),
        ("TYPE == 1", "TYPE is text, 1 is not"),
        ("TYPE == PRIMARY", "TYPE is text, PRIMARY is not"),
        ("TYPE + 1 == 2", "TYPE is no number"),
        ("COEFF > 0", "COEFF has 10 values in every row"),
        ("TYPE in 'GALAXY'", "needs a list"),
        ("Z < 1" + "0" * 400, "cannot be computed"),
    ],
)
def test_what_is_no_cut_is_refused_and_never_run(text, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        Cut(text).rows(COLUMNS, 5)


@pytest.mark.parametrize("deep", ["not " * 480, "-" * 1900 + "Z < 1 or ", "1 + " * 490 + "1 > 0 and "])
def test_a_deep_cut_ends_in_no_error_but_ours(deep):
    """Whether the stack holds it depends on who calls."""
    with contextlib.suppress(UsageError):
        assert Cut(deep + "PRIMARY").rows(COLUMNS, 5).shape == (5,)


def test_names_are_found_in_any_case():
    assert columns_of(Cut("zwarn == 0 and Z < 1"), ["ZWARN", "Z", "z"]) == {"zwarn": "ZWARN", "Z": "Z"}
    with pytest.raises(UsageError, match="no column ZWARNING; it has ZWARN, Z"):
        columns_of(Cut("ZWARNING == 0"), ["ZWARN", "Z"])
