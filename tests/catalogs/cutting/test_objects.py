"""Objects of a table: columns by usual names and by flags, cuts, and tables that are ambiguous."""

import re

import numpy as np
import pytest
from astropy.table import MaskedColumn, Table

from catalogs.cutting.objects import Selection, read_objects
from catalogs.errors import InputRefused, UsageError
from catalogs.tables import formats


def read(path, needs_positions=True, **chosen):
    with formats.opened(path) as table:
        return read_objects(table, Selection(**chosen), needs_positions)


def test_columns_by_their_usual_names_and_by_flags(tmp_path):
    table = Table({"objectId": [1, 2], "coord_ra": [0.1, 0.2], "coord_dec": [0.0, 0.1], "N": [5, 6]})
    table["coord_ra"].unit = table["coord_dec"].unit = "rad"
    table["z"], table["specz"] = [24.1, 25.2], [0.5, -99.0]
    table.write(tmp_path / "a.ecsv")
    objects = read(tmp_path / "a.ecsv")
    np.testing.assert_allclose(objects.ra, np.degrees([0.1, 0.2]))
    np.testing.assert_array_equal(objects.known["redshift"], [0.5, np.nan])  # and -99 is none
    assert objects.said() == "objectId as id, coord_ra as ra, coord_dec as dec, specz as redshift"
    assert read(tmp_path / "a.ecsv", id="n").object_id.tolist() == [5, 6]
    assert read(tmp_path / "a.ecsv", id="row").object_id.tolist() == [0, 1]
    assert read(tmp_path / "a.ecsv", redshift="Z").known["redshift"].tolist() == [24.1, 25.2]


def test_what_an_object_is_and_how_sure_its_redshift_goes_along(tmp_path):
    """As DESI and SDSS write it; a column `class` of something else says nothing."""
    table = Table({"TARGETID": [1, 2, 3], "Z": [0.1, 0.0, 2.0], "SPECTYPE": ["GALAXY", "STAR", "QSO"]})
    table["redshift_weight"] = [0.9, 1.0, np.nan]
    table.write(tmp_path / "a.fits")
    objects = read(tmp_path / "a.fits", needs_positions=False, redshift="Z")
    assert objects.known["spectype"].tolist() == [2, 1, 3]
    np.testing.assert_array_equal(objects.known["redshift_weight"], [0.9, 1.0, np.nan])
    assert "SPECTYPE as spectype" in objects.said()
    Table({"id": [1, 2], "class": ["early", "late"]}).write(tmp_path / "b.ecsv")
    assert "spectype" not in read(tmp_path / "b.ecsv", needs_positions=False).known


def test_a_cut_keeps_rows_with_all_that_is_theirs(tmp_path):
    """An object that is there twice, once as primary, is there once; rows are numbered as in the table."""
    columns = {"object_id": [7, 7, 8], "ra": [1.0, 2, 3], "dec": [4.0, 5, 6], "primary": [False, True, True]}
    Table(columns | {"mag": [20.0, 21, 22]}).write(tmp_path / "a.ecsv")
    chosen = {"where": "primary", "columns": ("mag",), "texts": ("row", "object_id")}
    objects = read(tmp_path / "a.ecsv", **chosen)
    assert (objects.object_id.tolist(), objects.ra.tolist()) == ([7, 8], [2, 3])
    assert objects.columns["mag"].tolist() == [21, 22]
    assert objects.texts["row"].tolist() == ["1", "2"]
    assert read(tmp_path / "a.ecsv", id="row", where="mag > 20").object_id.tolist() == [1, 2]
    with pytest.raises(InputRefused, match="has no row where mag > 30"):
        read(tmp_path / "a.ecsv", where="mag > 30")


def test_whole_numbers_in_names_of_files_stay_whole(tmp_path):
    """Where one is absent, floats would be made of all: 5.0.fits."""
    columns = {"object_id": [1, 2], "file": MaskedColumn([5, 6], mask=[False, True])}
    Table(columns).write(tmp_path / "a.ecsv")
    objects = read(tmp_path / "a.ecsv", needs_positions=False, texts=("file",))
    assert objects.texts["file"].tolist() == ["5", "masked"]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"object_id": [1, 1]}, "the id 1 stands there twice"),
        ({"object_id": [1.0, 2.0**53 + 2]}, "ids in floating point"),
        ({"object_id": [1.0, np.nan]}, "rows without an id in object_id"),
        ({"object_id": ["a-1", "2"]}, "has the id 'a-1'"),
        ({"object_id": ["9223372036854775808", "2"]}, "2**63"),
        ({"name": [1, 2]}, "has no column object_id among ra, dec, name: pass --id"),
        ({"object_id": [1, 2], "ra": ["x", "y"]}, "has no ra and dec in degrees among ra, dec, object_id"),
        ({"object_id": [1, 2], "redshift": [3e4, 5e4]}, "redshift is 50000, as no galaxy has"),
        ({"object_id": [1, 2], "zspec": [0.1, 0.2], "z_spec": [0.1, 0.2]}, "pass one of them as --redshift"),
    ],
)
def test_a_table_that_is_ambiguous_is_refused(tmp_path, columns, sentence):
    Table({"ra": [0.0, 0], "dec": [0.0, 0]} | columns).write(tmp_path / "a.ecsv")
    with pytest.raises(InputRefused, match=re.escape(sentence)) as refused:
        read(tmp_path / "a.ecsv")
    assert "\n" not in str(refused.value)


def test_the_first_column_that_holds_ids_is_taken(tmp_path):
    Table({"id": ["J1000+02", "J1000+03"], "source_id": [5, 6]}).write(tmp_path / "a.ecsv")
    assert read(tmp_path / "a.ecsv", needs_positions=False).object_id.tolist() == [5, 6]


def test_a_column_that_is_asked_for_and_not_there_is_an_error_of_usage(tmp_path):
    Table({"object_id": [1]}).write(tmp_path / "a.ecsv")
    for flag, chosen in {
        "--id": {"id": "N"},
        "--columns": {"columns": ("N",)},
        "--redshift": {"redshift": "N"},
        "in a pattern of names": {"texts": ("N",)},
    }.items():
        sentence = f"has no column N ({flag}); it has object_id"
        with pytest.raises(UsageError, match=re.escape(sentence)):
            read(tmp_path / "a.ecsv", needs_positions=False, **chosen)
