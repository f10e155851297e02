"""Finished catalogues as HATS: what LSDB and Parquet find in it is what the FITS catalogues have."""

import shutil
import warnings
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import qp
from astropy.io import fits
from astropy.table import Table
from finished_files import FIRST_ID, PROVENANCE, around, rows, write
from hats.io.validation import is_valid_collection

from catalogs import fits_stream
from catalogs.errors import InputRefused, UsageError
from catalogs.products import hats_rows, photoz, schema
from catalogs.products.hats_catalogue import TILES, Hats, main
from catalogs.products.partitions import partitions
from catalogs.products.schema import CATALOGUE, QUANTILE_LEVELS, REJECTS

with warnings.catch_warnings(action="ignore"):  # an option of pandas that it should no longer set
    import lsdb

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("default"),  # those of hats, lsdb, dask and pandas are theirs
]
LIMIT, WITHOUT_POSITION = 100, 2
NESTED = hats_rows.PDF


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Three catalogues: across RA 0, at a pole, and one whose first two objects have no position."""
    folder = tmp_path_factory.mktemp("tiles")
    places = [(0.0, 10.0), (200.0, 90.0), (150.0, 2.0)]
    paths = []
    for seed, place in enumerate(places):
        ra, dec = around(*place, 300, seed)
        if seed == 2:
            ra[0], dec[1] = np.nan, np.nan
        paths.append(write(folder / f"tile{seed}.photoz.fits", rows(ra, dec, seed)))
    return paths


@pytest.fixture(scope="module")
def made(tiles, tmp_path_factory):
    out = tmp_path_factory.mktemp("made") / "survey"
    main(Hats(tuple(tiles), out, rows=LIMIT))
    return out


@pytest.fixture(scope="module")
def opened(made):
    return lsdb.open_catalog(made)


@pytest.fixture(scope="module")
def expected(tiles):
    """Rows of the FITS catalogues that have a position, by id."""
    joined = np.concatenate([np.array(fits.getdata(path, CATALOGUE)) for path in tiles])
    joined = joined[joined["HEALPIX29"] >= 0]
    return joined[np.argsort(joined["OBJECT_ID"])]


def by_id(frame):
    return frame.sort_values("OBJECT_ID")


def test_lsdb_reads_all_rows_and_the_same_numbers(opened, expected):
    frame = by_id(opened.compute())
    assert len(frame) == 900 - WITHOUT_POSITION
    assert frame["OBJECT_ID"].min() == FIRST_ID
    for column in schema.columns(CATALOGUE):
        if column.name in ("HEALPIX29", "PDF_QUANT"):
            continue
        values = frame[hats_rows.name(column.name)]
        null = expected[column.name] == schema.NULL if column.nullable else np.zeros(len(frame), bool)
        null |= np.isnan(expected[column.name])
        assert np.array_equal(values.isna(), null), column.name
        assert np.array_equal(values[~null], expected[column.name][~null]), column.name
    assert np.array_equal(by_id(opened.compute()).index, expected["HEALPIX29"])


def test_p_of_z_is_nested_as_readers_of_rubins_catalogues_expect(opened, expected):
    """Which tell quantiles by the number at the end of the name, and take the levels of the last row."""
    frame = by_id(opened.compute())
    assert [name.rsplit("_", 1)[-1] for name in frame.nested_columns] == ["20"]
    known = np.isfinite(expected["PDF_QUANT"]).all(1)
    assert np.array_equal(frame[NESTED].isna(), ~known)
    nested = frame[NESTED][known]
    locs = np.array([row["locs"] for row in nested])
    assert locs.dtype == np.float32
    assert np.array_equal(locs, expected["PDF_QUANT"][known])
    levels = np.asarray(nested.iloc[-1]["quants"])
    assert levels.tolist() == list(QUANTILE_LEVELS)
    ensemble = qp.Ensemble(qp.quant_gen, {"quants": levels, "locs": locs})
    assert np.allclose(ensemble.ppf(levels), locs, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("ra", "dec"), [(0.0, 10.0), (10.0, 90.0)])
def test_a_cone_about_ra_0_or_a_pole_is_whole(opened, expected, ra, dec):
    radius = 0.1
    a, b = np.radians([expected["RA"] - ra, expected["DEC"]])
    cosine = np.sin(b) * np.sin(np.radians(dec)) + np.cos(b) * np.cos(np.radians(dec)) * np.cos(a)
    inside = expected[np.degrees(np.arccos(cosine.clip(-1, 1))) < radius]
    found = opened.cone_search(ra, dec, radius * 3600).compute()
    assert 40 < len(inside) == len(found)
    assert set(found["OBJECT_ID"]) == set(inside["OBJECT_ID"])


def test_lsdb_filters_and_matches_across_partitions(opened, expected):
    clean = opened.query("PHOTOZ_FLAGS == 0 and mmae_z_best < 1").compute()
    assert len(clean) == np.sum((expected["PHOTOZ_FLAGS"] == 0) & (expected["PHOTOZ_BEST"] < 1))
    shifted = opened.compute()[["OBJECT_ID", "RA", "DEC"]].reset_index(drop=True)
    shifted["DEC"] = shifted["DEC"] - 5 / 3600
    other = lsdb.from_dataframe(shifted.to_pandas(), ra_column="RA", dec_column="DEC", margin_threshold=10)
    matched = other.crossmatch(
        opened, radius_arcsec=5.001, suffixes=("_a", "_b"), suffix_method="all_columns", n_neighbors=9
    ).compute()
    same = matched[matched["OBJECT_ID_a"] == matched["OBJECT_ID_b"]]
    assert len(same) == len(expected)


def test_the_layout_is_that_of_hats(made, opened):
    assert is_valid_collection(made, strict=True)
    catalogue = made / made.name
    rows_of = []
    for path in sorted((catalogue / "dataset").rglob("*.parquet")):
        file = pq.ParquetFile(path)
        index = file.read([hats_rows.INDEX])[0].to_numpy()
        assert (np.diff(index) >= 0).all()
        rows_of.append(len(index))
    assert len(rows_of) > 9
    assert max(rows_of) <= LIMIT
    assert (catalogue / "partition_info.csv").read_text().count("\n") == len(rows_of) + 1
    assert pq.read_metadata(catalogue / "dataset/_metadata").num_rows == sum(rows_of)
    assert sorted(path.name for path in made.iterdir()) == [
        "collection.properties",
        "survey",
        "survey_10arcsec",
        TILES,
    ]
    assert str(made.parent) not in "".join(path.read_text() for path in made.rglob("*.properties"))
    assert opened.margin.hc_structure.catalog_info.primary_catalog == "survey"


def test_provenance_and_what_columns_mean_survive(made, opened, tiles):
    said = opened.hc_structure.catalog_info.extra_dict()
    assert said["PZMODEL"] == PROVENANCE.model_sha256
    assert said["PZCODE"] == PROVENANCE.code_version
    assert said["PZTRAIN"] == PROVENANCE.training_set
    assert said["PZFLAG6"].startswith("ATYPICAL")
    listed = Table.read(made / TILES, format="ascii.ecsv")
    assert list(listed["CATALOGUE"]) == [path.name for path in tiles]
    assert set(listed["PZINPUT"]) == {PROVENANCE.input_sha256}
    fields = pq.read_schema(made / made.name / "dataset/_common_metadata")
    assert fields.field("RA").metadata == {
        b"unit": b"deg",
        b"ucd": b"pos.eq.ra;meta.main",
        b"description": b"Right ascension, ICRS; null where the survey gave none.",
    }
    assert b"PHOTOZ_MEDIAN of the FITS" in fields.field("mmae_z_median").metadata[b"description"]
    assert b"; 64 ATYPICAL: unlike the galaxies" in fields.field("PHOTOZ_FLAGS").metadata[b"description"]
    votable = fields.metadata[b"IVOA.VOTable-Parquet.content"]
    assert b'ucd="src.redshift.phot;stat.median"' in votable


def test_equal_catalogues_are_equal_files(made, tiles, tmp_path):
    main(Hats(tuple(tiles), tmp_path / "survey", rows=LIMIT, margin=0))
    for path in (made / "survey/dataset").rglob("*.parquet"):
        again = tmp_path / "survey/survey" / path.relative_to(made / "survey")
        assert again.read_bytes() == path.read_bytes()


# ---------------------------------------------------------------- partitions


def test_rows_at_one_place_stay_together_however_many(tmp_path, capsys):
    ra, dec = np.append(np.full(20, 33.0), 33.001), np.full(21, -5.0)
    path = write(tmp_path / "t.photoz.fits", rows(ra, dec, 0))
    main(Hats((path,), tmp_path / "one", rows=10, margin=0))
    assert "over 10 rows, which are at one place on the sky: 1" in capsys.readouterr().out
    assert len(lsdb.open_catalog(tmp_path / "one").compute()) == 21


@pytest.mark.parametrize("limit", [1, 7, 1000, 10**6])
def test_every_row_lies_in_one_partition(limit):
    rng = np.random.default_rng(5)
    cells = np.concatenate([rng.integers(0, 12 * 4**29, 3000), 77 + rng.integers(0, 4**14, 3000)])
    found, counts = partitions(lambda: np.split(cells, 6), limit)
    place = found.of(cells)
    assert np.array_equal(cells >> 2 * (29 - found.order[place]), found.pixel[place])
    assert np.array_equal(np.bincount(place, minlength=len(found.rows)), found.rows)
    assert found.rows.max() <= max(limit, np.unique(cells, return_counts=True)[1].max())
    assert counts.rows.sum() == len(cells)


# ---------------------------------------------------------------- what is refused


def cut(path):
    path.write_bytes(path.read_bytes()[:-20_000])


def damage(path):
    content = bytearray(path.read_bytes())
    content[30_000] ^= 1
    path.write_bytes(content)


def no_fits(path):
    path.write_text("OBJECT_ID,Z\n")


def other_model(path):
    content = path.read_bytes()
    path.write_bytes(content.replace(b"a" * 64, b"c" * 64))


def older_schema(path):
    path.write_bytes(path.read_bytes().replace(schema.schema_version().encode(), b"3.9", 1))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (cut, "ends after 236 of its 300 rows"),
        (damage, "do not add up to DATASUM"),
        (no_fits, "is not a FITS file"),
        (other_model, "not of one run of one model"),
        (older_schema, "has the columns of version 3.9"),
    ],
)
def test_a_catalogue_that_is_not_whole_or_of_another_model_is_refused(spoil, message, tiles, tmp_path):
    path = shutil.copy(tiles[1], tmp_path / "bad.photoz.fits")
    spoil(path)
    with pytest.raises(InputRefused, match=message):
        main(Hats((tiles[0], path), tmp_path / "out"))
    assert [left.name for left in tmp_path.iterdir()] == ["bad.photoz.fits"]


def test_what_is_no_catalogue_is_refused(tiles, tmp_path):
    (tmp_path / "t.photoz").mkdir()
    nothing = write(tmp_path / "empty.photoz.fits", rows(np.zeros(0), np.zeros(0), 0))
    rejects = tmp_path / "tile.rejects.fits"
    fits_stream.write_tables(rejects, photoz.primary_header(PROVENANCE), photoz.tables(REJECTS, 0, []))
    nowhere = write(tmp_path / "nowhere.photoz.fits", rows(np.full(5, np.nan), np.zeros(5), 0))
    for paths, message in [
        ([tmp_path], "is a folder"),
        ([tmp_path / "t.photoz"], "not finished"),
        ([tmp_path / "none.fits"], "does not exist"),
        ([tiles[0], tiles[0]], "named twice"),
        ([rejects], "table of rejects"),
        ([nothing], "there is no object in"),
        ([nowhere], "no object has a position"),
    ]:
        with pytest.raises((UsageError, InputRefused), match=message) as refused:
            main(Hats(tuple(paths), tmp_path / "out"))
        assert str(refused.value).count("copy it again") == 0
    with pytest.raises(UsageError, match="smaller than a margin"):
        main(Hats(tuple(tiles), tmp_path / "out", rows=2, margin=60))
    with pytest.raises(UsageError, match="exists: remove it"):
        main(Hats(tuple(tiles), tmp_path / "t.photoz"))
    with pytest.raises(UsageError, match="letters, digits"):
        Hats(tuple(tiles), tmp_path / "my survey")
    assert not (tmp_path / "out").exists()


def test_what_is_of_a_tile_stands_beside_it(tmp_path):
    """Each tile has a drift of its own, one without rows has none; one alone keeps the whole p(z)."""
    kept, pdf = replace(PROVENANCE, pdf_bins=8, pdf_z_max=4.0), np.full((5, 8), 1 / 8)
    paths = [
        write(tmp_path / "a.photoz.fits", rows(*around(10, 10, 5, 1), 1), drift=0.02),
        write(tmp_path / "b.photoz.fits", rows(*around(10, 10, 5, 2), 2), kept, pdf, drift=0.03),
        write(tmp_path / "c.photoz.fits", rows(np.zeros(0), np.zeros(0), 3)),
    ]
    main(Hats(tuple(paths), tmp_path / "out", margin=0))
    tiles = Table.read(tmp_path / "out" / TILES)
    assert tiles["PZCDRIFT"].tolist() == [0.02, 0.03, None]
    assert tiles["PZPDF"].tolist() == [None, 8, None]
    assert (
        lsdb.open_catalog(tmp_path / "out")
        .hc_structure.catalog_info.extra_dict()["PZCDRIFT"]
        .startswith("see")
    )


def test_right_ascensions_are_from_0_to_360(tmp_path):
    path = write(tmp_path / "t.photoz.fits", rows(np.array([-10.0, 0, 359.5, 370]), np.zeros(4), 0))
    main(Hats((path,), tmp_path / "turned", margin=0))
    assert sorted(lsdb.open_catalog(tmp_path / "turned").compute()["RA"]) == [0, 10, 350, 359.5]


def test_a_catalogue_without_p_of_z_has_an_empty_column(tmp_path):
    catalogue = rows(*around(10, 10, 50, 1), 1)
    catalogue["PDF_QUANT"] = np.nan
    main(Hats((write(tmp_path / "t.photoz.fits", catalogue),), tmp_path / "point"))
    frame = lsdb.open_catalog(tmp_path / "point").compute()
    assert frame[NESTED].isna().all()
    assert frame["PHOTOZ_POINT"].notna().all()
