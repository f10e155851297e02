"""The catalogue on disk: columns as photoz.yaml defines them, equal bytes for equal rows, other readers."""

import csv
import json
import re
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import felis.datamodel
import numpy as np
import pytest
import yaml
from astropy.io import fits

from catalogs import atomic, fits_stream
from catalogs.products import photoz, schema
from catalogs.products.photoz import Part, Provenance
from catalogs.products.schema import CATALOGUE, REJECTS, Flag, Reject

MODEL = yaml.safe_load(Path(schema.__file__).with_name("photoz.yaml").read_text())
PROVENANCE = Provenance("a" * 64, "GalaxiesML-Spectra", "0.1.0", "b" * 64, (0.01, 4.0))
PLAN = "c" * 64


@pytest.fixture(scope="module")
def objects():
    """1000 objects with every reason and flag among them, two without a position."""
    rng, n = np.random.default_rng(1), 1000
    reason = np.full(n, "", "U16")
    reason[::10] = np.resize([str(r) for r in Reject], n // 10)
    ra, dec = rng.uniform(0, 360, n), rng.uniform(-90, 90, n)
    ra[5], dec[6] = np.nan, np.nan
    return {
        "object_id": rng.permutation(n) + 2**60,
        "ra": ra,
        "dec": dec,
        "PHOTOZ_POINT": rng.uniform(0, 4, n).astype(np.float32),
        "PDF_QUANT": rng.uniform(0, 4, (n, 20)).astype(np.float32),
        "flags": rng.integers(0, 8, n),
        "reason": reason,
        "observed": rng.random((n, 6)) < 0.8,
    }


def rows(objects, selection=slice(None)):
    """Catalogue rows and reject rows of some objects."""
    names = ("object_id", "ra", "dec", "flags", "reason", "observed")
    arguments = {name: objects[name][selection] for name in names}
    columns = {name: objects[name][selection] for name in ("PHOTOZ_POINT", "PDF_QUANT")}
    return photoz.rows(columns=columns, **arguments)


def write(folder, objects, rows_per_part, plan=PLAN):
    """Write parts and merge them."""
    n = len(objects["object_id"])
    parts = [Part(folder, unit) for unit in range(-(-n // rows_per_part))]
    for part in parts:
        selection = slice(part.unit * rows_per_part, (part.unit + 1) * rows_per_part)
        part.write(plan, PROVENANCE, *rows(objects, selection))
    catalogue, rejects = folder / "tile.photoz.fits", folder / "tile.rejects.fits"
    manifests = [part.finished(plan) for part in parts]
    counts = tuple(sum(manifest[key] for manifest in manifests) for key in ("rows", "rejects"))
    photoz.merge(parts, plan, counts, PROVENANCE, catalogue, rejects)
    return catalogue, rejects


@pytest.fixture(scope="module")
def merged(objects, tmp_path_factory):
    return write(tmp_path_factory.mktemp("merged"), objects, 300)


def read(path, table):
    """Rows and header, read by astropy with its checks of the checksums."""
    with fits.open(path, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", table, "ZGRID"]
        return np.array(hdus[table].data), hdus[table].header


# ---------------------------------------------------------------- the data model


def test_the_data_model_is_valid_felis():
    assert felis.datamodel.Schema.model_validate(MODEL).name == "mmae"


@pytest.mark.parametrize("table", [CATALOGUE, REJECTS])
def test_the_columns_of_the_file_are_those_of_the_data_model(merged, table):
    defined = {t["name"]: t["columns"] for t in MODEL["tables"]}
    expected = defined[CATALOGUE] + (defined[REJECTS] if table == REJECTS else [])
    with fits.open(merged[table == REJECTS]) as hdus:
        columns, header = hdus[table].columns, hdus[table].header
        assert columns.names == [column["name"] for column in expected]
        for k, (column, definition) in enumerate(zip(columns, expected, strict=True), 1):
            letter = {"long": "K", "int": "J", "short": "I", "double": "D", "float": "E", "char": "16A"}
            arraysize = definition.get("votable:arraysize", "") if definition["datatype"] != "char" else ""
            assert column.format == arraysize + letter[definition["datatype"]]
            assert column.unit == definition.get("fits:tunit")
            assert header[f"TUCD{k}"] == definition["ivoa:ucd"]
            assert header[f"TCOMM{k}"] == definition["description"]
            assert column.null == (-1 if definition["name"] in ("HEALPIX29", "IN_TRAINING") else None)


def test_every_flag_and_every_reason_is_explained_in_the_header(merged):
    assert set(schema.FLAG_MEANINGS) == set(Flag)
    assert set(schema.REJECT_MEANINGS) == set(Reject)
    header = fits.getheader(merged[0], CATALOGUE)
    for flag, meaning in schema.FLAG_MEANINGS.items():
        bit = int(np.log2(flag))
        assert header[f"PZFLAG{bit}"] == flag.name
        assert header.comments[f"PZFLAG{bit}"] == f"bit {bit}: {meaning}"
    header = fits.getheader(merged[1], REJECTS)
    for k, (reason, meaning) in enumerate(schema.REJECT_MEANINGS.items()):
        assert header[f"PZREJ{k}"] == reason
        assert header.comments[f"PZREJ{k}"] == meaning


def test_bits_never_change_their_meaning():
    assert [(flag.name, int(flag)) for flag in Flag] == [
        ("MASKED_PIXELS", 1),
        ("NO_DATA_REGION", 2),
        ("Z_LIMIT", 4),
        ("NO_POSITION", 8),
        ("BROAD", 16),
        ("TWO_PEAKS", 32),
        ("ATYPICAL", 64),
        ("UNLIKE_TRAINING_PIXELS", 128),
        ("RESAMPLED", 256),
        ("MISSING_BAND", 512),
        ("LIKELY_STAR", 1024),
        ("BLEED_TRAIL", 2048),
        ("NO_SPECTRA_LIKE_IT", 4096),
    ]


@pytest.mark.parametrize("name", ["x" * 200, "Subarú", "two\nlines", "''''", ""])
def test_any_name_of_a_training_set_fits_the_header(name):
    header = photoz.primary_header(Provenance("a" * 64, name, "0.1.0", "b" * 64, (0, 4)))
    assert len(header["PZTRAIN"]) <= 40
    assert all(len(card.image) == 80 for card in header.cards)


# ---------------------------------------------------------------- rows


def test_every_object_is_in_one_table_with_its_columns(merged, objects):
    catalogue, rejects = (read(*pair)[0] for pair in zip(merged, (CATALOGUE, REJECTS), strict=True))
    kept = objects["reason"] == ""
    for table, mask in ((catalogue, kept), (rejects, ~kept)):
        for column, name in (("OBJECT_ID", "object_id"), ("RA", "ra"), ("DEC", "dec")):
            np.testing.assert_array_equal(table[column], objects[name][mask])
        no_position = np.isnan(objects["ra"] + objects["dec"])[mask]
        np.testing.assert_array_equal(
            table["PHOTOZ_FLAGS"], objects["flags"][mask] + Flag.NO_POSITION * no_position
        )
        np.testing.assert_array_equal(table["HEALPIX29"] == -1, no_position)
        used = objects["observed"][mask] if table is catalogue else np.zeros((mask.sum(), 6), bool)
        np.testing.assert_array_equal(table["NBANDS_USED"], used.sum(1))
        for bit in range(6):
            np.testing.assert_array_equal(table["BANDMASK"] >> bit & 1, used[:, bit])
    np.testing.assert_array_equal(catalogue["PHOTOZ_POINT"], objects["PHOTOZ_POINT"][kept])
    np.testing.assert_array_equal(catalogue["PDF_QUANT"], objects["PDF_QUANT"][kept])
    assert np.isnan(rejects["PHOTOZ_POINT"]).all()
    for unknown in ("PHOTOZ_BEST", "OOD_SCORE", "Z_SPEC"):
        assert np.isnan(catalogue[unknown]).all()
    assert (catalogue["IN_TRAINING"] == -1).all()
    for path in merged:
        levels = fits.getdata(path, "ZGRID")["LEVEL"]
        np.testing.assert_array_equal(levels, schema.QUANTILE_LEVELS)
    assert rejects["REASON"].astype(str).tolist() == objects["reason"][~kept].tolist()


@pytest.mark.parametrize("base", range(12))
def test_the_centre_of_a_base_pixel_lies_in_it(base):
    """Gorski et al. 2005, figure 4: 0-3 in the north from ra 45 on, 4-7 on the equator from 0, 8-11 south."""
    ring, quarter = divmod(base, 4)
    dec = np.degrees(np.arcsin((2 / 3, 0, -2 / 3)[ring]))
    ra = 90 * quarter + (0 if ring == 1 else 45)
    assert photoz.healpix29(np.array([ra], float), np.array([dec]))[0] >> 58 == base


def test_the_north_pole_is_the_last_cell_of_a_base_pixel():
    """Nested numbers grow towards the north corner: the pole ends pixels 0 to 3."""
    cell = int(photoz.healpix29(np.array([45.0]), np.array([90.0]))[0])
    assert cell % 4**29 == 4**29 - 1


@pytest.mark.parametrize(
    ("ra", "dec"), [(np.nan, 0), (0, np.nan), (np.inf, 0), (0, -np.inf), (0, 90.001), (0, -91)]
)
def test_an_invalid_position_has_no_cell(ra, dec):
    assert photoz.healpix29(np.array([ra], float), np.array([dec], float)).tolist() == [schema.NULL]


def test_right_ascension_wraps_around():
    cells = photoz.healpix29(np.array([-10.0, 350.0, 710.0]), np.full(3, 20.0))
    assert len(set(cells.tolist())) == 1


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize("rows_per_part", [300, 7])
def test_the_whole_p_of_z_stands_beside_the_rows(objects, tmp_path, rows_per_part):
    """A row of PDF is that of PHOTOZ in its place; the bins are equal in ln(1 + z)."""
    kept = replace(PROVENANCE, pdf_bins=3, pdf_z_max=7.0)
    pdf = np.arange(3000, dtype=np.float32).reshape(1000, 3)
    parts = [Part(tmp_path, unit) for unit in range(-(-1000 // rows_per_part))]
    for part in parts:
        selection = slice(part.unit * rows_per_part, (part.unit + 1) * rows_per_part)
        usable = objects["reason"][selection] == ""
        part.write(PLAN, kept, *rows(objects, selection), pdf[selection][usable])
    catalogue = tmp_path / "tile.photoz.fits"
    photoz.merge(parts, PLAN, (900, 100), kept, catalogue, tmp_path / "tile.rejects.fits")
    with fits.open(catalogue, checksum=True) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", CATALOGUE, "ZGRID", "PDF", "PDFBINS"]
        assert np.array_equal(hdus["PDF"].data["PDF"], pdf[objects["reason"] == ""])
        assert np.allclose(hdus["PDFBINS"].data["Z_MIN"], [0, 1, 3])
        assert np.allclose(hdus["PDFBINS"].data["Z_MAX"], [1, 3, 7])
    assert fits.getheader(tmp_path / "tile.rejects.fits", 1)["EXTNAME"] == REJECTS


@pytest.mark.parametrize("rows_per_part", [1000, 128, 37])
def test_the_size_of_the_parts_changes_no_byte(merged, objects, tmp_path, rows_per_part):
    for expected, file in zip(merged, write(tmp_path, objects, rows_per_part), strict=True):
        assert expected.read_bytes() == file.read_bytes()


def test_the_time_changes_no_byte(merged, objects, tmp_path, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1e8)
    for expected, file in zip(merged, write(tmp_path, objects, 300), strict=True):
        assert expected.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("seed", range(20))
def test_checksums_are_those_of_astropy(seed):
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, int(rng.integers(1, 20000)), np.uint8)
    header = fits.Header([(f"KEY{k}", int(rng.integers(2**31)), "a comment") for k in range(rng.integers(9))])
    hdu = fits.ImageHDU(data, header)
    hdu.add_checksum(when=fits_stream.WHEN)
    content = data.tobytes() + b"\0" * (-data.size % fits_stream.BLOCK)
    data_sum = fits_stream.add_words(content)
    assert str(data_sum) == hdu.header["DATASUM"]
    blank = hdu.header.copy()
    blank["CHECKSUM"] = ("0" * 16, fits_stream.WHEN)
    total = fits_stream.add_words(blank.tostring().encode(), data_sum)
    assert fits_stream.encode_checksum(total) == hdu.header["CHECKSUM"]


@pytest.mark.parametrize(
    "total", [0, 1, 2**32 - 1, 0x00FF00FF, *np.random.default_rng(0).integers(2**32, size=50)]
)
def test_a_checksum_is_made_of_letters_and_digits_and_brings_the_sum_to_all_ones(total):
    text = fits_stream.encode_checksum(int(total))
    assert re.fullmatch("[0-9A-Za-z]{16}", text)
    # the text replaces sixteen "0", and begins one byte before a word
    before = fits_stream.add_words(b"0" * 16)
    after = fits_stream.add_words((text[1:] + text[0]).encode())
    grown = (after - before) % (2**32 - 1)
    assert (int(total) + grown) % (2**32 - 1) == 0


# ---------------------------------------------------------------- parts


@pytest.fixture
def part(objects, tmp_path):
    part = Part(tmp_path, 7)
    part.write(PLAN, PROVENANCE, *rows(objects))
    return part


def test_a_checksum_does_not_depend_on_where_blocks_end():
    """Rows of a catalogue are no multiple of the words of four bytes that are summed."""
    content = np.random.default_rng(0).integers(0, 256, 4 * 1000, np.uint8).data
    total = before = 0
    for size in (1, 2, 3, 1001, 6, 0, 1500, 1487):
        total = fits_stream.add_bytes(content[before : before + size], total, before)
        before += size
    assert before == 4000
    assert total == fits_stream.add_words(content)
    assert fits_stream.add_bytes(memoryview(b""), 0, 3) == 0


def test_a_manifest_counts_the_rows_of_its_part(part, objects):
    manifest = part.finished(PLAN)
    assert (manifest["rows"], manifest["rejects"]) == (900, 100)
    assert sum(manifest["reasons"].values()) == 100
    assert sorted(path.name for path in part.directory.iterdir()) == [
        "unit-000007.fits",
        "unit-000007.json",
        "unit-000007.rejects.fits",
    ]


@pytest.mark.parametrize("bins", [0, 30])
def test_tables_are_found_in_a_part_where_astropy_finds_them(objects, tmp_path, bins):
    part = Part(tmp_path, 0)
    provenance = replace(PROVENANCE, pdf_bins=bins, pdf_z_max=4.0 if bins else 0.0)
    part.write(PLAN, provenance, *rows(objects), np.zeros((900, bins), np.float32))
    for path in (part.catalogue, part.rejects):
        with fits.open(path) as hdus:
            for hdu in hdus[1:]:
                there = hdu.header["NAXIS2"], hdu.fileinfo()["datLoc"]
                assert fits_stream.find_table(path.read_bytes(), hdu.name) == there


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a bit flipped": flip,
    "a block short": lambda path: path.write_bytes(path.read_bytes()[:-2880]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": lambda path: path.unlink(),
}
damaged = pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)


@damaged
@pytest.mark.parametrize("file", ["catalogue", "rejects"])
def test_a_damaged_part_is_not_finished(part, file, damage):
    damage(getattr(part, file))
    assert part.finished(PLAN) is None


@damaged
@pytest.mark.parametrize("file", ["catalogue", "rejects"])
def test_a_part_that_was_damaged_after_it_was_written_is_not_merged(part, tmp_path, file, damage):
    """Not even one of the same run: the merge checks the bytes that it copies."""
    damage(getattr(part, file))
    products = tmp_path / "tile.photoz.fits", tmp_path / "tile.rejects.fits"
    with pytest.raises(OSError, match=r"unit-000007.*fits is damaged since it was written"):
        photoz.merge([part], PLAN, (900, 100), PROVENANCE, *products)
    assert not products[0].exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("entry", ["plan", "rows", "rejects", "reasons", "files", atomic.SEAL])
def test_a_part_whose_manifest_was_edited_is_not_finished(part, entry):
    manifest = json.loads(part.manifest.read_text())
    for edited in (manifest | {entry: None}, {name: manifest[name] for name in manifest if name != entry}):
        part.manifest.write_text(json.dumps(edited))
        assert part.finished(PLAN) is None


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "5", "null", "{}", '{"files": 5}', '{"files": {"a": 5}}', '{"files": []}']
)
def test_a_part_with_a_malformed_manifest_is_not_finished(part, content):
    part.manifest.write_text(content)
    assert part.finished(PLAN) is None


def test_a_part_of_another_plan_is_not_finished(part):
    assert part.finished("d" * 64) is None


def test_a_part_written_again_is_the_same(part, objects):
    before = {path: path.read_bytes() for path in part.directory.iterdir()}
    part.write(PLAN, PROVENANCE, *rows(objects))
    assert {path: path.read_bytes() for path in part.directory.iterdir()} == before


# ---------------------------------------------------------------- other readers


@pytest.fixture(scope="module")
def empty(objects, tmp_path_factory):
    return write(tmp_path_factory.mktemp("empty"), {name: v[:0] for name, v in objects.items()}, 300)


@pytest.fixture(scope="module")
def one_empty_part(objects, tmp_path_factory):
    """A unit without objects or rejects, which a plan never has."""
    folder = tmp_path_factory.mktemp("nothing")
    part = Part(folder, 0)
    part.write(PLAN, PROVENANCE, *rows(objects, slice(0)))
    return part.catalogue, part.rejects


@pytest.mark.parametrize("files", ["merged", "empty", "one_empty_part"])
@pytest.mark.parametrize("which", [0, 1], ids=[CATALOGUE, REJECTS])
def test_fitsverify_finds_no_fault(program, request, files, which):
    path = request.getfixturevalue(files)[which]
    done = subprocess.run([program("fitsverify"), path], capture_output=True, text=True, check=False)
    assert "**** Verification found 0 warning(s) and 0 error(s). ****" in done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize(("which", "table"), [(0, CATALOGUE), (1, REJECTS)])
def test_an_empty_catalogue_is_a_valid_one(empty, which, table):
    rows, header = read(empty[which], table)
    assert len(rows) == header["NAXIS2"] == 0
    assert rows.dtype.names == schema.dtype(table).names


@pytest.mark.parametrize(("which", "table"), [(0, CATALOGUE), (1, REJECTS)])
def test_stilts_reads_the_same_values(program, merged, which, table):
    command = [program("stilts"), "tpipe", f"in={merged[which]}#1", "omode=out", "out=-", "ofmt=csv"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    converted = list(csv.DictReader(done.stdout.splitlines()))
    ours, _ = read(merged[which], table)
    assert list(converted[0]) == list(ours.dtype.names)
    assert len(converted) == len(ours)
    for row, expected in zip(converted, ours, strict=True):
        for name, text in row.items():
            value = expected[name]
            if name == "REASON":
                assert text == value.decode()
            elif value.ndim:
                numbers = np.array(text.strip("()").split(", "), np.float32)
                np.testing.assert_array_equal(numbers, value)
            elif not text:  # null
                assert value == schema.NULL or np.isnan(value)
            else:
                assert value.dtype.type(text) == value


def test_the_manifest_is_json_a_person_can_read(part):
    manifest = json.loads(part.manifest.read_text())
    assert set(manifest) == {"plan", "rows", "rejects", "reasons", "colours", "files", atomic.SEAL}
