"""Tables in every format give the same columns; what is damaged, or no table, is refused."""

import gzip
import re
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from pyarrow import parquet

from catalogs.errors import InputRefused, UsageError
from catalogs.tables import formats, positions
from catalogs.tables.where import rows_where

IDS = np.array([2**53 + 1, 7, 2**62])
COLUMNS = {
    "object_id": MaskedColumn(IDS, mask=[False, True, False]),
    "mag": MaskedColumn(np.array([20.0, 21, 22], np.float32), mask=[False, False, True]),
    "file": np.array(["a", "bc", "d"]),
}


def write(path, columns=None):
    table = Table(columns or COLUMNS)
    if path.suffix in (".parquet", ".pq"):
        values = {name: pa.array(column.tolist()) for name, column in table.columns.items()}
        parquet.write_table(pa.table(values), path)
    elif path.suffix in (".fit", ".fz", ".vot", ".xml"):
        table.write(path, format="fits" if path.suffix in (".fit", ".fz") else "votable")
    elif path.suffix == ".gz":
        write(plain := path.with_suffix(""), columns)
        path.write_bytes(gzip.compress(plain.read_bytes()))
        plain.unlink()
    else:
        table.write(path)


@pytest.mark.parametrize(
    "ending",
    [
        *("csv", "csv.gz", "ecsv", "ECSV.gz", "fits", "fits.gz", "fit", "fits.fz"),
        *("vot", "vot.gz", "xml", "parquet", "pq"),
    ],
)
def test_every_format_gives_the_same_columns(tmp_path, ending):
    write(path := tmp_path / f"objects.{ending.lower()}")
    path = path.rename(tmp_path / f"objects.{ending}")
    with formats.opened(path) as table:
        assert (table.names, table.rows) == (("object_id", "mag", "file"), 3)
        ids = table.read("object_id")
        assert (ids.dtype.kind, ids.tolist()) == ("i", [2**53 + 1, None, 2**62])
        np.testing.assert_array_equal(table.numbers("mag"), [20, 21, np.nan])
        assert table.texts("file").tolist() == ["a", "bc", "d"]
        kept = table.take(np.array([False, True, True]))
        assert (kept.rows, kept.read("object_id").tolist()) == (2, [None, 2**62])


def test_the_objects_of_sextractor_are_in_its_second_table(tmp_path):
    head = fits.BinTableHDU(Table({"Field Header Card": ["SIMPLE = T"]}), name="LDAC_IMHEAD")
    objects = fits.BinTableHDU(Table({"NUMBER": [1, 2], "ALPHA_J2000": [150.1, 150.2]}), name="LDAC_OBJECTS")
    fits.HDUList([fits.PrimaryHDU(), head, objects]).writeto(tmp_path / "a.fits")
    with formats.opened(tmp_path / "a.fits") as table:
        assert (table.rows, table.names) == (2, ("NUMBER", "ALPHA_J2000"))


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "vot", "parquet"])
def test_a_row_without_a_text_is_not_kept_by_a_cut(tmp_path, ending):
    """FITS and VOTable have no other text for it than an empty one."""
    texts = MaskedColumn(["STAR", "x", "GALAXY"], mask=[0, 1, 0], fill_value="")
    write(path := tmp_path / f"a.{ending}", {"SPECTYPE": texts})
    with formats.opened(path) as table:
        assert rows_where("SPECTYPE != 'STAR'", table).tolist() == [False, False, True]
        assert rows_where("not SPECTYPE in ('STAR', 'QSO')", table).tolist() == [False, False, True]


@pytest.mark.parametrize("ending", ["csv", "ecsv", "fits", "vot", "parquet"])
def test_a_table_without_rows_is_open_and_empty(tmp_path, ending):
    path = tmp_path / f"objects.{ending}"
    write(path, {"object_id": np.zeros(0, np.int64), "ra": np.zeros(0)})
    with formats.opened(path) as table:
        assert (table.rows, len(table.numbers("ra")), table.read("object_id").shape) == (0, 0, (0,))


@pytest.mark.parametrize(
    "before",
    [
        "object_id,ra",
        "# object_id,ra",  # HSC's database
        "#object_id,ra",
        "#Table1\nobject_id,ra",  # SDSS's CasJobs
        "# made on a day, by me, of that\n\n# units: deg\nobject_id,ra",
        "# HSC, PDR3, wide\n# object_id,ra",
        "\ufeffobject_id,ra",
    ],
)
@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_remarks_before_the_names_of_a_csv_file(tmp_path, before, ending):
    path, text = tmp_path / f"a.{ending}", f"{before}\n36411448540268082,150.1\n5,\n".encode()
    path.write_bytes(gzip.compress(text) if ending == "csv.gz" else text)
    with formats.opened(path) as table:
        assert table.names == ("object_id", "ra")
        assert table.read("object_id").tolist() == [36411448540268082, 5]
        assert table.read("ra").tolist() == [150.1, None]


def test_what_is_no_table_is_refused(tmp_path):
    for name, sentence in {"none.csv": "there is no file", "a.txt": "is no table this command reads"}.items():
        (tmp_path / "a.txt").write_text("1 2 3")
        with pytest.raises(UsageError, match=sentence), formats.opened(tmp_path / name):
            pass
    for name in ("a.fits", "a.parquet", "a.vot", "a.ecsv", "a.csv.gz"):
        path = tmp_path / name
        path.write_bytes(b"\x1f\x8b nothing of the kind" if name.endswith("gz") else b"\xff\x00 nothing")
        damaged = f"{re.escape(str(path))} is damaged"
        with pytest.raises(InputRefused, match=damaged) as refused, formats.opened(path):
            pass
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize("said", ["as astropy does", "in vain", "not at all"])
def test_units_of_a_parquet_file_are_those_that_astropy_writes(tmp_path, said):
    """Without them radians would pass for degrees."""
    table = Table({"ra": [1.0, 2.0], "mag": [20.0, 21.0]}, units={"ra": "rad"})
    table.write(path := tmp_path / "a.parquet")
    if said != "as astropy does":
        described = {} if said == "not at all" else {"table_meta_yaml": "datatype: [{name: ra, unit"}
        parquet.write_table(parquet.read_table(path).replace_schema_metadata(described), path)
    with formats.opened(path) as opened:
        expected = np.degrees([1, 2]) if said == "as astropy does" else [1, 2]
        np.testing.assert_allclose(opened.numbers("ra", "deg"), expected)
        assert opened.unit("mag") == ""


def test_text_that_is_none_in_a_parquet_file_is_refused(tmp_path):
    """Which pyarrow finds when it is read, and says so by an error of its own."""
    parquet.write_table(pa.table({"name": ["abcdefgh"]}), tmp_path / "a.parquet", compression="none")
    damaged = (tmp_path / "a.parquet").read_bytes().replace(b"abcdefgh", b"abcd\xffefg")
    (tmp_path / "a.parquet").write_bytes(damaged)
    with formats.opened(tmp_path / "a.parquet") as table, pytest.raises(InputRefused, match="is damaged"):
        table.read("name")


@pytest.mark.parametrize(
    ("stored", "cards", "expected"),
    [
        (np.array([-(2**15), 5 - 2**15, 7], ">i2"), (2**15, 1, -(2**15)), [None, 5, 2**15 + 7]),
        (np.array([-(2**31), 5 - 2**31, 7], ">i4"), (2**31, 1, -(2**31)), [None, 5, 2**31 + 7]),
        (np.array([-(2**63), 5 - 2**63, 7], ">i8"), (2**63, 1, -(2**63)), [None, 5, 2**63 + 7]),
        (np.array([63, 5 - 2**15, 7], ">i2"), (2**15, 1, 63), [None, 5, 2**15 + 7]),
        (np.array([1000, 500, 0], ">i2"), (1, 0.5, 500), [501, None, 1]),
        (np.array([0, 128, 255], np.uint8), (-128, 1, 0), [None, 0, 127]),
        (np.array([[1, 2], [3, 1]], ">i4"), (0, 1, 1), [[None, 2], [3, None]]),
    ],
)
def test_a_null_of_fits_is_what_is_stored(tmp_path, stored, cards, expected):
    rows = stored.view([("n", stored.dtype, stored.shape[1:])]).reshape(len(stored))
    fits.BinTableHDU(rows).writeto(path := tmp_path / "a.fits")
    for card, value in zip(("TZERO1", "TSCAL1", "TNULL1"), cards, strict=True):
        fits.setval(path, card, value=value, ext=1)
    with formats.opened(path) as table:
        assert table.read("n").tolist() == expected


def test_a_null_of_unsigned_integers_as_astropy_writes_it(tmp_path):
    column = MaskedColumn(np.array([1, 2, 65000], np.uint16), mask=[0, 1, 0])
    Table({"n": column}).write(path := tmp_path / "a.fits")
    with formats.opened(path) as table:
        assert table.read("n").tolist() == [1, None, 65000]


def test_a_null_of_an_ascii_table_is_a_text(tmp_path):
    numbers = fits.Column("n", "I6", array=np.array([1, 777, 0]), ascii=True)
    fits.TableHDU.from_columns([numbers]).writeto(path := tmp_path / "a.fits")
    path.write_bytes(path.read_bytes().replace(b"777", b"  -"))
    fits.setval(path, "TNULL1", value="-", ext=1)
    with formats.opened(path) as table:
        assert table.read("n").tolist() == [1, None, 0]


def test_a_table_under_fpack_is_refused(tmp_path):
    """Its columns have the names of the table, and hold compressed bytes."""
    hdu = fits.BinTableHDU(Table({"object_id": [1, 2]}))
    hdu.header["ZTABLE"] = True
    hdu.writeto(tmp_path / "a.fits.fz")
    with pytest.raises(InputRefused, match="unpack it with funpack"), formats.opened(tmp_path / "a.fits.fz"):
        pass


@pytest.mark.parametrize(
    ("unit", "expected"),
    [
        *(("", 1.0), ("deg", 1.0), ("DEG", 1.0), ("degrees", 1.0), ("arcsec", 1 / 3600)),
        *(("radians", np.degrees(1)), ("Angle[deg]", 1.0), ("mag", None), ("pixels", None)),
    ],
)
def test_numbers_are_brought_to_a_unit(tmp_path, unit, expected):
    """A unit that is none says nothing; one of another kind is refused."""
    hdu = fits.BinTableHDU(Table({"ra": [1.0]}))
    hdu.header["TUNIT1"] = unit
    hdu.writeto(tmp_path / "a.fits")
    with formats.opened(tmp_path / "a.fits") as table:
        if expected is None:
            with pytest.raises(InputRefused, match=f"ra is in '{unit}': it must be in deg"):
                table.numbers("ra", "deg")
        else:
            np.testing.assert_allclose(table.numbers("ra", "deg"), [expected])


def test_parquet_of_astropy_has_masks_in_columns_of_their_own(tmp_path):
    path = tmp_path / "a.parquet"
    masked = {
        "z": ([0.5, 9.0, 0.7], [0, 1, 0]),
        "n": ([1, 2, 3], [1, 0, 0]),
        "name": (["a", "b", "c"], [0, 0, 1]),
    }
    Table({name: MaskedColumn(values, mask=mask) for name, (values, mask) in masked.items()}).write(path)
    with formats.opened(path) as table:
        assert table.names == ("z", "n", "name")
        assert table.read("z").tolist() == [0.5, None, 0.7]
        assert table.read("n").tolist() == [None, 2, 3]
        assert table.read("name").tolist() == ["a", "b", None]


@pytest.mark.parametrize("kind", [pa.decimal128, pa.decimal256])
def test_decimals_of_parquet_are_numbers(tmp_path, kind):
    """As DuckDB and Spark write them: redshifts, and ids that floats do not hold."""
    texts = {"z": ["0.100001", None, "5.999999"], "n": ["9007199254740993", None, "-7"]}
    texts |= {"big": ["1180591620717411303424", None, "1"]}
    scales = {"z": 6, "n": 0, "big": 0}
    columns = {
        name: pa.array([value and Decimal(value) for value in values], kind(30, scales[name]))
        for name, values in texts.items()
    }
    parquet.write_table(pa.table(columns), path := tmp_path / "a.parquet")
    with formats.opened(path) as table:
        np.testing.assert_array_equal(table.numbers("z"), [0.100001, np.nan, 5.999999])
        assert table.read("n").tolist() == [2**53 + 1, None, -7]
        assert table.read("n").dtype == np.int64
        np.testing.assert_array_equal(table.numbers("big"), [2.0**70, np.nan, 1])
        assert rows_where("z > 1", table).tolist() == [False, False, True]


def test_a_right_ascension_may_count_on_beyond_a_turn(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("ra,dec\n359.9,0\n360.1,0\n-0.1,0\n999,0\n")
    with formats.opened(path) as table:
        found = positions.find(table, None, None)
    assert np.array_equal(found.ra, [359.9, 360.1, -0.1, np.nan], equal_nan=True)
