"""Tables of objects: every format gives the same; ids and columns that are not what they should be."""

import numpy as np
import pytest
from astropy.table import Table
from survey_files import write_table

from catalogs.cutting.objects import Names
from catalogs.cutting.objects import read_objects as read
from catalogs.cutting.tables import open_table
from catalogs.errors import InputRefused, UsageError


def read_objects(path, names, positions):
    return read(open_table(path), names, positions)


IDS = np.array([2**53 + 1, 7, 2**62])


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "fits.gz", "vot", "parquet"])
def test_every_format_gives_the_same_objects(tmp_path, ending):
    path = tmp_path / f"objects.{ending}"
    columns = {"z_spec": [0.5, np.nan, 1.0], "mag": np.array([20, 21, 22]), "file": ["a", "b", "c"]}
    if ending == "vot":
        Table({"object_id": IDS, "ra": [1.0, 2, 3], "dec": [4.0, 5, 6]} | columns).write(
            path, format="votable"
        )
    else:
        write_table(path, IDS, [1.0, 2.0, 3.0], [4.0, 5.0, 6.0], **columns)
    objects = read_objects(path, Names(columns=("mag",), texts=("file",)), positions=True)
    assert objects.object_id.tolist() == IDS.tolist()
    assert (objects.ra.tolist(), objects.dec.tolist()) == ([1, 2, 3], [4, 5, 6])
    np.testing.assert_array_equal(objects.known["redshift"], [0.5, np.nan, 1.0])
    assert objects.columns["mag"].tolist() == [20, 21, 22]
    assert objects.texts["file"].tolist() == ["a", "b", "c"]
    assert objects.said() == "object_id as id, ra as ra, dec as dec, z_spec as redshift"


def test_columns_by_their_usual_names_and_by_flags(tmp_path):
    table = Table({"objectId": [1, 2], "coord_ra": [0.1, 0.2], "coord_dec": [0.0, 0.1], "N": [5, 6]})
    table["coord_ra"].unit = table["coord_dec"].unit = "rad"
    table.write(tmp_path / "a.ecsv")
    objects = read_objects(tmp_path / "a.ecsv", Names(), positions=True)
    np.testing.assert_allclose(objects.ra, np.degrees([0.1, 0.2]))
    assert read_objects(tmp_path / "a.ecsv", Names(id="N"), True).object_id.tolist() == [5, 6]
    assert read_objects(tmp_path / "a.ecsv", Names(id="row"), True).object_id.tolist() == [0, 1]


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({"object_id": [1, 1], "ra": [0.0, 0], "dec": [0.0, 0]}, "the id 1 stands there twice"),
        ({"object_id": [1.0, 2.0**53 + 2], "ra": [0.0, 0], "dec": [0.0, 0]}, "ids in floating point"),
        ({"object_id": ["a-1", "2"], "ra": [0.0, 0], "dec": [0.0, 0]}, "has the id 'a-1'"),
        ({"object_id": ["9223372036854775808", "2"], "ra": [0.0, 0], "dec": [0.0, 0]}, r"2\*\*63"),
        (
            {"name": [1, 2], "ra": [0.0, 0], "dec": [0.0, 0]},
            "has no column object_id among name, ra, dec: pass --id",
        ),
        ({"object_id": [1, 2], "dec": [0.0, 0]}, "has no column ra among"),
        ({"object_id": [1, 2], "ra": ["x", "y"], "dec": [0.0, 0]}, "a column of numbers is needed"),
    ],
)
def test_a_table_that_is_ambiguous_is_refused(tmp_path, columns, sentence):
    Table(columns).write(tmp_path / "a.ecsv")
    with pytest.raises(InputRefused, match=sentence) as refused:
        read_objects(tmp_path / "a.ecsv", Names(), positions=True)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is no file: name the table"):
        read_objects(tmp_path / "none.csv", Names(), True)
    (tmp_path / "a.txt").write_text("1 2 3")
    with pytest.raises(UsageError, match="say of what format it is"):
        read_objects(tmp_path / "a.txt", Names(), True)
    for name in ("a.fits", "a.parquet", "a.vot", "a.ecsv"):
        (tmp_path / name).write_bytes(b"\xff\x00 nothing of the kind")
        with pytest.raises(InputRefused, match="cannot be read as"):
            read_objects(tmp_path / name, Names(), True)
