"""`mmae evaluate --truth` with tables in the layouts that surveys publish: names, ids, positions, cuts."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import MaskedColumn, Table
from pyarrow import parquet

from mmae import cli
from mmae.evaluate import Evaluate, main

N = 60
IDS = 36411448540268082 + 4 * np.arange(N)
"""As HSC numbers objects: beyond what float64 tells apart."""
RA, DEC = 150.1 + 0.003 * np.arange(N), 2.2 + 0.002 * np.arange(N)
Z = 0.1 + 0.02 * np.arange(N)
ARCSEC = 1 / 3600


def evaluate(*argv):
    return cli.run(main, Evaluate, [str(arg) for arg in argv], "mmae evaluate")


@pytest.fixture
def tile(tmp_path, monkeypatch):
    """A catalogue of N objects in COSMOS with PHOTOZ_POINT = z + 0.01 (1 + z): a wrong match would show."""
    monkeypatch.chdir(tmp_path)
    order = np.random.default_rng(1).permutation(N)
    table = Table({"OBJECT_ID": IDS, "RA": RA, "DEC": DEC, "PHOTOZ_POINT": Z + 0.01 * (1 + Z)})
    table[order].write("tile.fits")


def judged(capsys, *argv):
    """Numbers of the report, after checking that all redshifts are of their objects; the output."""
    assert evaluate("tile.fits", "--draws", 0, *argv) == cli.OK, capsys.readouterr().err
    report = json.loads(Path("tile.evaluation/metrics.json").read_text())
    everything = report["rows"][0]
    assert everything["value"]["bias"] == pytest.approx(0.01, abs=1e-6)
    assert everything["value"]["RMS"] == pytest.approx(0.01, abs=1e-6)
    return everything["n"], report["redshifts"], capsys.readouterr().out


@pytest.mark.usefixtures("tile")
def test_a_zcatalog_of_desi(capsys):
    """Other ids, several spectra of a target, of which one is primary; sky fibres; bad redshifts."""
    spectra = np.concatenate([np.arange(N), np.arange(10), np.arange(5)])
    z = Z[spectra].copy()
    z[N : N + 10] += 1  # of repeats, with ZWARN
    table = Table(
        {
            "TARGETID": 39627835576420141 + spectra,
            "Z": z,
            "ZWARN": np.where((spectra < 10) & (np.arange(N + 15) >= N) & (np.arange(N + 15) < N + 10), 4, 0),
            "SPECTYPE": np.where(spectra == 20, b"STAR", b"GALAXY"),
            "TARGET_RA": RA[spectra] + 0.2 * ARCSEC,
            "TARGET_DEC": DEC[spectra],
            "ZCAT_PRIMARY": np.arange(N + 15) < N,
        }
    )
    fits.HDUList([fits.PrimaryHDU(), fits.BinTableHDU(table, name="ZCATALOG")]).writeto("zall-pix.fits")

    n, said, output = judged(
        capsys, "--truth", "zall-pix.fits", "--where", "ZWARN == 0 and SPECTYPE == 'GALAXY'"
    )
    assert (n, said["cut"], said["repeated"], said["disagreeing"]) == (N - 1, 11, 5, 0)
    assert said["column"] == "Z"
    assert said["match"].startswith("position, TARGET_RA TARGET_DEC within 1 arcsec, as the ids")
    assert "11 rows left out by --where" in output
    assert "5 rows more of an object that has one: the first counts" in output

    n, said, output = judged(capsys, "--truth", "zall-pix.fits")
    assert (n, said["repeated"], said["disagreeing"]) == (N - 10, 0, 10)
    assert "10 objects left out, as their rows disagree by over 0.003 (1 + z)" in output
    assert "would be --where 'ZWARN == 0'" in output
    assert judged(capsys, "--truth", "zall-pix.fits", "--where", "ZCAT_PRIMARY")[0] == N


@pytest.mark.usefixtures("tile")
def test_a_table_of_hsc_s_database(capsys):
    """Its header begins with #; -9 is no redshift; z is a magnitude; truth values are text."""
    rows = [f"{IDS[k]},{21 + 0.01 * k},{Z[k]},{k != 3}" for k in range(N)]
    rows[5] = f"{IDS[5]},21.5,-9.0,False"
    rows[6] = f"{IDS[6]},21.5,,True"
    rows[7] = f"{IDS[7]},21.5,null,True"
    header = "# object_id,z,specz_redshift,specz_flag_homogeneous"
    Path("specz.csv").write_text("\n".join([header, *rows]) + "\n")
    n, said, output = judged(capsys, "--truth", "specz.csv")
    assert (n, said["absent"], said["match"]) == (N - 3, {"-9": 1, "nan": 2}, "id, object_id")
    assert "redshift from specz_redshift (guessed, not z; --z-column names another)" in output
    assert "3 rows without a redshift (-9: 1, nan: 2)" in output
    n, said, _ = judged(capsys, "--truth", "specz.csv", "--where", "specz_flag_homogeneous == True")
    assert (n, said["cut"]) == (N - 4, 2)


@pytest.mark.usefixtures("tile")
def test_metadata_of_galaxiesml(capsys):
    """Its own cut compares two columns; a name given by a flag is not said to be guessed."""
    error = np.where(np.arange(N) < 4, 0.1, 1e-4)
    columns = {"object_id": IDS, "ra": RA, "dec": DEC, "specz_redshift": Z, "specz_redshift_err": error}
    Table(columns).write("galaxiesml.ecsv")
    cut = "0.01 < specz_redshift < 4 and specz_redshift_err < 0.005 * (1 + specz_redshift)"
    arguments = ("--truth", "galaxiesml.ecsv", "--where", cut, "--z-column", "SPECZ_REDSHIFT")
    n, said, output = judged(capsys, *arguments)
    assert (n, said["cut"], said["column"]) == (N - 4, 4, "specz_redshift")
    assert "guessed" not in output


@pytest.mark.usefixtures("tile")
def test_matches_to_the_truth_of_dp0(capsys):
    """The ids of the simulation are text; objects that were not detected have the id -1, or none."""
    matched = [[-1, None][k % 2] if k < 5 else int(IDS[k]) for k in range(N)]
    columns = {
        "id": [f"{9812000000 + k}" for k in range(N)],
        "match_objectId": pa.array(matched, pa.int64()),
        "redshift": pa.array([None if k == 10 else z for k, z in enumerate(Z)]),
        "truth_type": np.where(np.arange(N) == 11, 2, 1),
        "ra": RA,
        "dec": DEC,
    }
    parquet.write_table(pa.table(columns), "truth_match.parquet")
    n, said, _ = judged(capsys, "--truth", "truth_match.parquet", "--where", "truth_type == 1")
    assert (n, said["match"]) == (N - 7, "id, match_objectId")
    assert (said["absent"], said["repeated"], said["disagreeing"]) == ({"nan": 1}, 0, 0)


@pytest.mark.usefixtures("tile")
def test_zcosmos_numbers_its_objects_as_others_do(capsys):
    """Its OBJECT_ID are of itself, one of them by chance an id of the catalogue; 9.99 is no redshift."""
    numbers = 805000 + np.arange(N)
    numbers[3] = IDS[50]
    z = np.where(np.arange(N) < 2, 9.99, Z).astype(np.float32)
    confidence = np.where(np.arange(N) == 2, 1.5, 3.5)
    columns = {"OBJECT_ID": numbers, "RAJ2000": RA, "DEJ2000": DEC, "REDSHIFT": z, "CC": confidence}
    Table(columns).write("zcosmos.fits")
    n, said, output = judged(capsys, "--truth", "zcosmos.fits", "--where", "CC >= 3")
    assert (n, said["cut"], said["absent"]) == (N - 3, 1, {"9.99": 2})
    assert "as the ids of zcosmos.fits (OBJECT_ID) are not those of" in " ".join(output.split())
    assert max(map(len, output.splitlines())) <= 100
    arguments = ("tile.fits", "--truth", "zcosmos.fits", "--draws", 0, "--match", "id")
    assert evaluate(*arguments) == cli.OK  # as asked for: one object, and said to be elsewhere
    output = capsys.readouterr().out
    assert "1 objects of one id, but over 1 arcsec apart" in output


@pytest.mark.usefixtures("tile")
def test_the_compilation_of_cosmos(capsys):
    """Neighbours within 1 arcsec: the nearer is the object's, unless both are nearest to it and disagree."""
    extra = {"ra": [RA[0] + 0.8 * ARCSEC, RA[N - 1] + 3 * ARCSEC], "z": [2.0, 2.0]}
    columns = {
        "Id_specz": np.arange(N + 2),
        "ra_original": np.append(RA, extra["ra"]) + 2 * ARCSEC,
        "dec_original": np.append(DEC, [DEC[0], DEC[N - 1]]),
        "ra_corrected": np.append(RA, extra["ra"]),
        "dec_corrected": np.append(DEC, [DEC[0], DEC[N - 1]]),
        "specz": np.append(Z, extra["z"]),
        "Confidence_level": np.append(np.full(N, 97.0), [97.0, 97.0]),
    }
    Table(columns).write("compilation.fits")
    n, said, output = judged(capsys, "--truth", "compilation.fits")
    assert (n, said["disagreeing"]) == (N - 1, 1)
    assert "1 objects of the truth table that are not in the catalogue" in output
    assert said["match"].startswith("position, ra_corrected dec_corrected")
    flags = ("--ra-column", "ra_original", "--dec-column", "dec_original")
    assert evaluate("tile.fits", "--truth", "compilation.fits", *flags) == cli.REFUSED
    assert "matched by position, ra_original dec_original within 1 arcsec" in capsys.readouterr().err


@pytest.mark.usefixtures("tile")
def test_a_votable_of_vizier(capsys):
    """Positions as texts beside those in degrees; masked redshifts."""
    text = SkyCoord(RA, DEC, unit="deg")
    table = Table(
        {
            "RAJ2000": text.ra.to_string(u.hour, sep=" "),
            "DEJ2000": text.dec.to_string(sep=" "),
            "_RAJ2000": MaskedColumn(RA, unit="deg"),
            "_DEJ2000": MaskedColumn(DEC, unit="deg"),
            "zsp": MaskedColumn(Z, mask=np.arange(N) == 8),
        }
    )
    table.write("vizier.vot", format="votable")
    n, said, _ = judged(capsys, "--truth", "vizier.vot")
    assert (n, said["column"]) == (N - 1, "zsp")
    assert said["match"].startswith("position, _RAJ2000 _DEJ2000 within")


@pytest.mark.usefixtures("tile")
def test_positions_in_radians_are_turned_into_degrees(capsys):
    place = {"coord_ra": np.radians(RA) * u.rad, "coord_dec": np.radians(DEC) * u.rad}
    Table({**place, "redshift": Z}).write("object.fits")
    assert judged(capsys, "--truth", "object.fits", "--match", "position")[0] == N


@pytest.mark.usefixtures("tile")
def test_ids_that_floats_have_rounded_do_not_match(capsys):
    """As pandas writes them where one is missing: neighbours would be taken for each other."""
    Table({"object_id": IDS.astype(float), "z_spec": Z}).write("rounded.csv")
    assert evaluate("tile.fits", "--truth", "rounded.csv") == cli.REFUSED
    assert "rounded.csv has no id under a usual name, and no position" in capsys.readouterr().err


def test_a_cut_of_a_table_that_is_its_own_truth(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Table({"y_test": Z, "y_pred": Z + 0.01 * (1 + Z), "i_mag": 20 + Z}).write("tile.csv")
    assert evaluate("tile.csv", "--where", "i_mag < 20.5", "--draws", 0) == cli.OK
    output = capsys.readouterr().out
    assert "20 objects of tile.csv with a photo-z" in output
    assert "40 rows left out by --where" in output
