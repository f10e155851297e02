"""`mmae evaluate` as a user runs it: what it prints, what it writes, what it refuses."""

import decimal
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from astropy.io import fits
from astropy.table import Table
from pyarrow import parquet

from catalogs.products import photoz
from catalogs.products.photoz import Part, Provenance
from mmae import cli
from mmae.evaluate import Evaluate, main
from mmae.scores.redshift_figures import calibration_figure, figure

ENDS = ("range", "bin")
"""How the tables after one begin."""
ROOT = Path(__file__).parents[2]
WRITTEN = [
    *("metrics.ecsv", "metrics.json", "requirements.ecsv"),
    *("tomography.ecsv", "tomography.png", "zphot_zspec.png"),
]
CALIBRATION = ["calibration.ecsv", "calibration.png"]

# metrics of the paper's released predictions: n, bias, sigma_NMAD, |dz| > 0.15 in percent
RELEASED = [
    ("quarter", "all", "20181", "0.0048", "0.0210", "4.63"),
    ("quarter", "z_spec < 0.4", "11149", "0.0035", "0.0163", "0.44"),
    ("quarter", "0.4 <= z_spec < 1", "6143", "0.0066", "0.0222", "3.22"),
    ("quarter", "1 <= z_spec < 2", "1306", "0.0352", "0.0882", "22.1"),
    ("quarter", "z_spec >= 2", "1583", "-0.0010", "0.0672", "25.3"),
    ("no", "all", "20181", "0.0105", "0.0304", "5.18"),
    ("no", "z_spec < 0.4", "11149", "0.0101", "0.0250", "0.71"),
]


def evaluate(*argv: object) -> int:
    return cli.run(main, Evaluate, [str(arg) for arg in argv], "mmae evaluate")


def printed(output: str, number: int = 0) -> dict[str, dict[str, str]]:
    """Parse a printed table, of metrics or calibration: range -> column -> value without error and unit."""
    lines = [re.split(r"\s{2,}", line.strip()) for line in output.splitlines()]
    begin = [k for k, cells in enumerate(lines) if cells[0] == "range"][number]
    head = lines[begin]
    rows = itertools.takewhile(lambda cells: cells[0] not in ENDS, lines[begin + 1 :])
    return {
        cells[0]: dict(zip(head, (cell.split(" ")[0] for cell in cells), strict=True))
        for cells in rows
        if len(cells) == len(head)
    }


def saved(folder: Path, table: str = "rows") -> dict[str, float]:
    """Metrics of all objects, from metrics.json."""
    return json.loads((folder / "metrics.json").read_text())[table][0]["value"]


def rounded_like(value: str, example: str) -> str:
    return str(decimal.Decimal(value).quantize(decimal.Decimal(example), decimal.ROUND_HALF_UP))


@pytest.fixture(scope="module")
def released(reference, tmp_path_factory) -> dict[str, dict[str, dict[str, str]]]:
    """The tables printed to a narrow pipe for the paper's released predictions."""
    folder = reference / "mmae_predictions"
    tables = {}
    for mask in ("quarter", "no"):
        path = folder / f"mmae_fullmaskspectrum_{mask}maskimage_redshift_predictions.csv"
        out = tmp_path_factory.mktemp(mask)
        command = [sys.executable, "-W", "error", "-m", "mmae.evaluate", path, "--out", out, "--draws", "10"]
        environment = os.environ | {"COLUMNS": "80", "PYTHONIOENCODING": "utf-8"}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
        assert not done.stderr
        tables[mask] = printed(done.stdout.decode())
    return tables


@pytest.mark.parametrize(("mask", "zrange", "n", "bias", "sigma_nmad", "outliers"), RELEASED)
def test_metrics_of_the_released_predictions(released, mask, zrange, n, bias, sigma_nmad, outliers):
    row = released[mask][zrange]
    assert (row["n"], row["bias"], row["sigma_NMAD"]) == (n, bias, sigma_nmad)
    assert rounded_like(row["|dz|>0.15"], outliers) == outliers


@pytest.fixture
def survey(tmp_path) -> Path:
    """catalogue.fits and truth.fits: 60 objects in both, in different orders, and some in only one."""
    rng = np.random.default_rng(0)
    ids = 2**60 + rng.permutation(70)  # neighbours that float64 cannot tell apart
    z_spec = rng.gamma(2, 0.3, 70)
    z_phot = z_spec + 0.01 * (1 + z_spec)
    z_phot[3] = np.nan
    Table({"OBJECT_ID": ids[:64], "PHOTOZ_POINT": z_phot[:64]}).write(tmp_path / "catalogue.fits")
    order = rng.permutation(np.arange(66))  # 64 and 65 are not in the catalogue
    z_known = np.where(order < 3, np.nan, z_spec[order])  # 0, 1, 2 have a row and no redshift
    Table({"Z_SPEC": z_known, "OBJECT_ID": ids[order]}).write(tmp_path / "truth.fits")
    return tmp_path


def test_catalogue_and_truth_are_matched_by_id(survey, capsys):
    out = survey / "out"
    assert evaluate(survey / "catalogue.fits", "--truth", survey / "truth.fits", "--out", out) == cli.OK
    output = capsys.readouterr().out
    assert printed(output)["all"]["bias"] == "0.0100"
    assert saved(out)["RMS"] == pytest.approx(0.01)  # one wrong match would show
    assert "60 objects of catalogue.fits with a photo-z" in output
    assert "1 with a spectroscopic redshift and no finite photo-z" in output
    assert "3 catalogue rows without a spectroscopic redshift" in output
    assert "2 objects of the truth table that are not in the catalogue" in output
    assert str(out) in output
    assert sorted(path.name for path in out.iterdir()) == WRITTEN


def test_files_hold_the_numbers_at_full_precision(survey):
    arguments = (survey / "catalogue.fits", "--truth", survey / "truth.fits", "--draws", 20, "--seed", 5)
    assert evaluate(*arguments) == cli.OK
    out = survey / "catalogue.evaluation"
    report = json.loads((out / "metrics.json").read_text())
    assert report["truth"]["file"] == "truth.fits"
    assert len(report["catalogue"]["sha256"]) == 64
    assert (report["draws"], report["seed"]) == (20, 5)
    assert (report["catalogue_rows_without_z_spec"], report["truth_objects_not_in_catalogue"]) == (3, 2)

    table = Table.read(out / "metrics.ecsv")
    for row, flat in zip(report["rows"], table, strict=True):
        assert (row["range"], row["n"]) == (flat["range"], flat["n"])
        for name, value in row["value"].items():
            assert flat[name] == value or (value is None and np.isnan(flat[name]))

    first = {name: (out / name).read_bytes() for name in WRITTEN}
    assert evaluate(*arguments) == cli.OK
    assert first == {name: (out / name).read_bytes() for name in WRITTEN}


def test_z_spec_of_the_catalogue_is_used_without_a_truth_table(tmp_path, capsys):
    z = np.linspace(0.1, 1, 10)
    known = np.where(z < 0.15, np.nan, z)
    table = Table({"OBJECT_ID": np.arange(10), "PHOTOZ_POINT": z.astype(">f4"), "Z_SPEC": known})
    table.write(tmp_path / "own.fits")
    assert evaluate(tmp_path / "own.fits", "--draws", 0) == cli.OK
    output = capsys.readouterr().out
    assert printed(output)["all"]["n"] == "9"
    assert "±" not in output
    assert "1 catalogue rows without" in output


def test_text_tables_with_missing_values(tmp_path, capsys):
    catalogue, truth = tmp_path / "a.csv", tmp_path / "b.ecsv"
    catalogue.write_text("OBJECT_ID,PHOTOZ_POINT\n3,0.3\n1,\n2,0.2\n")
    Table({"OBJECT_ID": [1, 2, 3], "Z_SPEC": [0.1, 0.2, 0.3]}).write(truth)
    assert evaluate(catalogue, "--truth", truth) == cli.OK
    output = capsys.readouterr().out
    assert printed(output)["all"]["n"] == "2"
    assert saved(tmp_path / "a.evaluation")["RMS"] == 0
    assert "1 with a spectroscopic redshift and no finite photo-z" in output


@pytest.fixture
def catalogue(tmp_path):
    """`catalogue(columns)`: writes a catalogue of 100 objects with these columns of the model; truth.fits.

    truth.fits has Z_SPEC = 0.5 and MAG_I from 20 to 29.9.
    """
    n = 100
    truth = {"OBJECT_ID": np.arange(n), "Z_SPEC": np.full(n, 0.5), "MAG_I": 20 + 0.1 * np.arange(n)}
    Table(truth).write(tmp_path / "truth.fits")

    def write(columns: dict[str, np.ndarray]) -> Path:
        unknown = np.full(n, np.nan)
        flags, reason, observed = np.zeros(n, int), np.full(n, ""), np.ones((n, 5), bool)
        rows = photoz.rows(np.arange(n), unknown, unknown, columns, flags, reason, observed)
        provenance = Provenance("a" * 64, "mock", "0.1.0", "b" * 64, (0.0, 4.0))
        part, path = Part(tmp_path, 0), tmp_path / "tile.photoz.fits"
        part.write("c" * 64, provenance, *rows)
        photoz.merge([part], "c" * 64, (n, 0), provenance, path, tmp_path / "tile.rejects.fits")
        return path

    return write


@pytest.fixture
def columns() -> dict[str, np.ndarray]:
    """p(z) uniform over a width of 0.2: z = 0.5 is in the 68 % interval of 60 objects, in the 95 % of 90."""
    centre = np.repeat([0.5, 0.5 + 0.08, 0.5 - 0.3], [60, 30, 10]).astype(np.float32)
    levels = (np.arange(20) + 0.5) / 20
    return {
        "PHOTOZ_POINT": centre + 1,
        "PHOTOZ_BEST": centre,
        "PHOTOZ_ERR68_MIN": centre - 0.068,
        "PHOTOZ_ERR68_MAX": centre + 0.068,
        "PHOTOZ_ERR95_MIN": centre - 0.095,
        "PHOTOZ_ERR95_MAX": centre + 0.095,
        "PDF_QUANT": centre[:, None] + 0.2 * (levels - 0.5),
    }


@pytest.mark.parametrize("draws", [0, 20])
def test_a_single_object_is_evaluated(catalogue, columns, tmp_path, capsys, draws):
    Table({"OBJECT_ID": [70], "Z_SPEC": [0.5], "MAG_I": [21.0]}).write(tmp_path / "one.fits")
    arguments = ("--truth", tmp_path / "one.fits", "--out", tmp_path / "out", "--draws", draws)
    assert evaluate(catalogue(columns), *arguments) == cli.OK
    rows = printed(capsys.readouterr().out)
    assert rows["all"]["n"] == "1"
    assert rows["all"]["bias"].startswith(f"{0.08 / 1.5:.4f}")


def test_calibration_of_a_catalogue_with_p_z(catalogue, columns, tmp_path, capsys):
    columns["PDF_QUANT"][0, 3] = np.nan  # leaves this object out
    path, out = catalogue(columns), tmp_path / "out"
    assert evaluate(path, "--truth", tmp_path / "truth.fits", "--out", out, "--draws", 20) == cli.OK
    output = capsys.readouterr().out
    assert "judged by PHOTOZ_BEST" in output
    assert "p(z) of 99 of these objects" in output
    assert printed(output)["all"]["bias"] == "0.0000"
    scores = printed(output, 1)["all"]
    assert scores["coverage 68"] == f"{100 * 59 / 99:.2f}"
    assert scores["coverage 95"] == f"{100 * 89 / 99:.2f}"
    # the uniform p(z): w (u^3 + (1 - u)^3) / 3 for PIT u = 1/2 and 0.1; and, 0.2 beyond its end, w / 3 + 0.2
    crps = (59 * 0.2 / 12 + 30 * 0.2 * (0.1**3 + 0.9**3) / 3 + 10 * (0.2 / 3 + 0.2)) / 99
    assert scores["CRPS"] == f"{crps:.4f}"
    assert saved(out, "calibration")["CDE loss"] == pytest.approx(5 - 10 * 89 / 99, rel=1e-5)
    assert saved(out, "calibration")["half width"] == pytest.approx(0.068 / 1.5, rel=1e-5)
    quarters = ["MAG_I < 22.55", "22.55 <= MAG_I < 25", "25 <= MAG_I < 27.45", "MAG_I >= 27.45"]
    assert list(printed(output, 1))[9:] == quarters

    assert sorted(file.name for file in out.iterdir()) == sorted(WRITTEN + CALIBRATION)
    for file in out.iterdir():
        assert file.name in output[output.index("wrote ") :]
    rows = json.loads((out / "metrics.json").read_text())["calibration"]
    table = Table.read(out / "calibration.ecsv")
    assert rows[0]["value"]["PIT KS"] == pytest.approx(89 / 99 - 0.5, abs=1e-6)  # 30 at 0.1, 59 at 1/2
    for row, flat in zip(rows, table, strict=True):
        assert (row["range"], row["n"]) == (flat["range"], flat["n"])
        for name, value in row["value"].items():
            assert flat[name] == value or (value is None and np.isnan(flat[name]))


def test_a_truth_without_magnitudes_has_no_rows_for_them(catalogue, columns, tmp_path, capsys):
    truth = Table.read(tmp_path / "truth.fits")
    truth.remove_column("MAG_I")
    truth.write(tmp_path / "truth.fits", overwrite=True)
    assert evaluate(catalogue(columns), "--truth", tmp_path / "truth.fits", "--draws", 0) == cli.OK
    output = capsys.readouterr().out
    assert list(printed(output, 1)) == list(printed(output))


@pytest.mark.parametrize(
    ("names", "used"),
    [(["MAG_LSST_R", "MAG_LSST_I"], "MAG_LSST_I"), (["MAG_DECAM_G", "MAG_DECAM_R"], "MAG_DECAM_R")],
)
def test_a_truth_may_have_the_magnitudes_of_any_survey(catalogue, columns, tmp_path, capsys, names, used):
    truth = Table.read(tmp_path / "truth.fits")
    magnitude = truth["MAG_I"]
    truth.remove_column("MAG_I")
    for name in names:
        truth[name] = magnitude if name == used else 0.0
    truth.write(tmp_path / "truth.fits", overwrite=True)
    assert evaluate(catalogue(columns), "--truth", tmp_path / "truth.fits", "--draws", 0) == cli.OK
    quarters = [f"{used} < 22.48", f"22.48 <= {used} < 24.95", f"24.95 <= {used} < 27.42", f"{used} >= 27.42"]
    assert list(printed(capsys.readouterr().out, 1))[-4:] == quarters


@pytest.mark.parametrize("nothing", [-99, 99, np.nan, -np.inf])
def test_a_magnitude_that_is_not_known_is_neither_bright_nor_faint(catalogue, columns, tmp_path, nothing):
    truth = Table.read(tmp_path / "truth.fits")
    truth["MAG_I"][:20] = nothing  # the rest is from 22 to 29.9, 30 of them below 25
    truth.write(tmp_path / "truth.fits", overwrite=True)
    path, out = catalogue(columns), tmp_path / "out"
    assert evaluate(path, "--truth", tmp_path / "truth.fits", "--out", out, "--draws", 0) == cli.OK
    report = json.loads((out / "metrics.json").read_text())
    assert report["requirements"][0]["n"] == 30
    assert [(row["range"], row["n"]) for row in report["rows"][9:]] == [
        ("MAG_I < 23.98", 20),
        ("23.98 <= MAG_I < 25.95", 20),
        ("25.95 <= MAG_I < 27.92", 20),
        ("MAG_I >= 27.92", 20),
    ]


def test_a_photo_z_that_is_infinite_is_in_no_bin(tmp_path):
    z = np.linspace(0.1, 1.9, 40)
    table = Table({"y_test": z, "y_pred": np.where(np.arange(40) < 2, [-np.inf, np.inf] * 20, z)})
    table.write(tmp_path / "predictions.csv")
    assert evaluate(tmp_path / "predictions.csv", "--draws", 5) == cli.OK
    written = (tmp_path / "predictions.evaluation/metrics.json").read_text()
    bins = json.loads(written, parse_constant=pytest.fail)["tomography"]
    assert sum(each["n"] for each in bins) == 38
    assert not any(each["by_point"] for each in bins)


def test_a_catalogue_without_p_z_is_evaluated_by_its_point(catalogue, columns, tmp_path, capsys):
    arguments = ("--truth", tmp_path / "truth.fits", "--out", tmp_path / "out", "--draws", 0)
    assert evaluate(catalogue(columns), *arguments) == cli.OK
    capsys.readouterr()
    path = catalogue({"PHOTOZ_POINT": columns["PHOTOZ_POINT"]})
    assert evaluate(path, *arguments) == cli.OK
    output = capsys.readouterr().out
    assert "judged by PHOTOZ_POINT" in output
    assert "tile.photoz.fits has no p(z)" in output
    assert printed(output)["all"]["bias"] == f"{1 / 1.5:.4f}"
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == WRITTEN  # no old calibration
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["calibration"] is None

    assert evaluate(path) == cli.USAGE  # the column Z_SPEC is all NaN
    assert "no redshift in a column Z_SPEC; pass a table" in capsys.readouterr().err


def test_training_objects_are_left_out(catalogue, columns, tmp_path, capsys):
    in_training = np.repeat([0, 1, 2], [90, 5, 5])  # those whose redshifts are wrong by 0.3
    path = catalogue(columns | {"IN_TRAINING": in_training})
    arguments = ("--truth", tmp_path / "truth.fits", "--out", tmp_path / "out", "--draws", 0)
    assert evaluate(path, *arguments) == cli.OK
    output = capsys.readouterr().out
    assert "does not say" not in output
    assert "5 objects left out, as the model was trained on them" in output
    assert "5 objects left out, as the model was chosen or calibrated by them" in output
    assert printed(output)["all"]["n"] == "90"
    assert printed(output)["all"]["|dz|>0.15"] == "0.00"


def test_a_catalogue_says_of_which_objects_it_knows_nothing(catalogue, columns, tmp_path, capsys):
    """IN_TRAINING is null where a model, or a survey without positions, cannot tell."""
    arguments = ("--truth", tmp_path / "truth.fits", "--out", tmp_path / "out", "--draws", 0)
    assert evaluate(catalogue(columns | {"IN_TRAINING": np.repeat([0, -1], [97, 3])}), *arguments) == cli.OK
    assert "3 objects judged of which the catalogue does not say" in capsys.readouterr().out
    assert evaluate(catalogue(columns), *arguments) == cli.OK
    assert "the catalogue does not say what the model was made with" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["leaks"]["told"] is False


def test_quantiles_that_decrease_are_refused(catalogue, columns, tmp_path, capsys):
    columns["PDF_QUANT"][7] = columns["PDF_QUANT"][7, ::-1]
    out = tmp_path / "out"
    assert evaluate(catalogue(columns), "--truth", tmp_path / "truth.fits", "--out", out) == cli.REFUSED
    assert "PDF_QUANT must be finite, not negative, and never decrease" in capsys.readouterr().err
    assert not out.exists()


def test_a_table_of_excel_begins_with_a_mark_that_is_no_name(tmp_path):
    rows = "".join(f"{z},{z + 0.01}\n" for z in (0.1, 0.2, 0.3))
    (tmp_path / "pairs.csv").write_text(f"y_test,y_pred\n{rows}", encoding="utf-8-sig")
    assert evaluate(tmp_path / "pairs.csv") == cli.OK


@pytest.mark.parametrize("n", [1, 3000])
def test_calibration_figure_draws_any_number_of_objects(tmp_path, n):
    plot = calibration_figure(np.random.default_rng(n).random(n), 0.0123)
    left, right = plot.axes
    assert left.get_title(loc="left") == f"$n = {n}$,  KS = 0.0123"
    line = right.lines[-1].get_xydata()
    assert tuple(line[-1]) == (1, 1)
    assert abs(line[:, 1] - line[:, 0]).max() < 2 / np.sqrt(n)
    plot.savefig(tmp_path / "figure.png")


@pytest.mark.parametrize("n", [1, 50, 5000])
def test_figure_draws_any_number_of_objects(tmp_path, n):
    rng = np.random.default_rng(n)
    z_spec = rng.gamma(2, 0.3, n) + 0.4  # leaves the left panel empty
    z_phot = z_spec + rng.normal(0, 0.05, n)
    z_phot[0] = 99
    plot = figure(z_phot, z_spec)
    left, right = plot.axes
    assert "$n = 0$" in left.get_title(loc="left")
    assert f"$n = {n}$" in right.get_title(loc="left")
    assert right.get_xlim()[1] < 3 * z_spec.max()
    assert [text.get_text() for text in right.texts] == ["1 beyond the axes"]
    plot.savefig(tmp_path / "figure.png")


@pytest.fixture
def inputs(tmp_path) -> Path:
    """Valid inputs (good.fits, truth.fits) and invalid ones."""
    good = Table({"OBJECT_ID": np.arange(500), "PHOTOZ_POINT": np.linspace(0.1, 2, 500)})
    truth = Table({"OBJECT_ID": np.arange(500), "Z_SPEC": np.linspace(0.1, 2, 500)})
    good.write(tmp_path / "good.fits")
    truth.write(tmp_path / "truth.fits")
    truth.write(tmp_path / "good.xyz", format="ascii.csv")

    Table([truth["OBJECT_ID"] + 500, truth["Z_SPEC"]]).write(tmp_path / "elsewhere.fits")
    Table([truth["OBJECT_ID"] // 2, truth["Z_SPEC"] + np.arange(500) % 2]).write(tmp_path / "twice.fits")
    Table([truth["OBJECT_ID"] + 2.0**53, truth["Z_SPEC"]]).write(tmp_path / "floats.fits")
    Table([truth["OBJECT_ID"], truth["Z_SPEC"] + 20], names=["id", "z"]).write(tmp_path / "magnitudes.fits")
    Table([truth["OBJECT_ID"], truth["Z_SPEC"], truth["Z_SPEC"]], names=["id", "Z_SPEC", "specz"]).write(
        tmp_path / "two.fits"
    )
    Table([truth["OBJECT_ID"], truth["Z_SPEC"] - 99]).write(tmp_path / "sentinel.fits")
    Table([truth["OBJECT_ID"], truth["Z_SPEC"] * 299792.458]).write(tmp_path / "velocity.fits")
    fits.PrimaryHDU(np.ones((3, 3))).writeto(tmp_path / "image.fits")

    checked = fits.BinTableHDU(good)
    checked.writeto(tmp_path / "flipped.fits", checksum=True)
    content = bytearray((tmp_path / "flipped.fits").read_bytes())
    content[-2880] ^= 1
    (tmp_path / "flipped.fits").write_bytes(content)
    (tmp_path / "cut.fits").write_bytes((tmp_path / "good.fits").read_bytes()[: 3 * 2880])
    (tmp_path / "empty.fits").touch()
    parquet.write_table(
        pa.table({"id": np.arange(500), "z": np.linspace(0, 1, 500)}), tmp_path / "cut.parquet"
    )
    truth.write(tmp_path / "cut.vot", format="votable")
    for name in ("cut.parquet", "cut.vot"):
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:1000])

    (tmp_path / "predictions.csv").write_text("y_test,y_pred\n0.1,0.2\n")
    (tmp_path / "words.csv").write_text("y_test,y_pred\n0.1,high\n")
    (tmp_path / "ragged.csv").write_text("y_test,y_pred\n0.1,0.2,0.3\n")
    (tmp_path / "nothing.csv").write_text("y_test,y_pred\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("absent.fits", cli.USAGE, "there is no file"),
        (".", cli.USAGE, "is a folder"),
        ("good.xyz", cli.USAGE, ".votable or .xml"),
        ("good.fits", cli.USAGE, "as --truth"),
        ("good.fits --truth absent.fits", cli.USAGE, "there is no file"),
        ("predictions.csv --truth truth.fits", cli.USAGE, "leave --truth out"),
        ("predictions.csv --draws -1", cli.USAGE, "--draws must be from 0 to"),
        ("predictions.csv --seed -1", cli.USAGE, "--seed must be from 0 to"),
        ("predictions.csv --draws many", cli.USAGE, "many"),
        ("predictions.csv --out truth.fits", cli.USAGE, "truth.fits is a file"),
        ("predictions.csv --out truth.fits/out", cli.USAGE, "is no folder to write to"),
        ("truth.fits", cli.REFUSED, "needs the columns OBJECT_ID and PHOTOZ_POINT"),
        ("good.fits --z-column Z_SPEC", cli.USAGE, "--z-column is for --truth"),
        (
            "good.fits --truth truth.fits --z-column zz",
            cli.USAGE,
            "no column zz (--z-column); it has OBJECT_ID",
        ),
        ("good.fits --truth truth.fits --ra-column Z_SPEC", cli.USAGE, "go together"),
        ("good.fits --truth truth.fits --match position", cli.REFUSED, "no position in degrees: pass --ra"),
        ("good.fits --truth truth.fits --match position --id-column OBJECT_ID", cli.USAGE, "leave out"),
        (
            "good.fits --truth truth.fits --where ZWARN==0",
            cli.USAGE,
            "no column ZWARN; it has OBJECT_ID, Z_SPEC",
        ),
        (
            "good.fits --truth truth.fits --where Z_SPEC<0",
            cli.REFUSED,
            "500 were left out by --where, 0 have none",
        ),
        ("good.fits --truth good.fits", cli.REFUSED, "pass --z-column, one of OBJECT_ID, PHOTOZ_POINT"),
        (
            "good.fits --truth two.fits",
            cli.REFUSED,
            "redshifts in Z_SPEC and specz: pass one of them as --z-column",
        ),
        (
            "good.fits --truth magnitudes.fits",
            cli.REFUSED,
            "as magnitudes are: name the redshift with --z-column",
        ),
        (
            "good.fits --truth elsewhere.fits",
            cli.REFUSED,
            "(OBJECT_ID) are not those of the catalogue, and no pos",
        ),
        (
            "good.fits --truth twice.fits",
            cli.REFUSED,
            "matched by id, OBJECT_ID; 250 objects left out, as their rows disagree",
        ),
        ("good.fits --truth floats.fits", cli.REFUSED, "no id under a usual name"),
        (
            "good.fits --truth floats.fits --id-column OBJECT_ID",
            cli.REFUSED,
            "OBJECT_ID must hold integers of 64 bits",
        ),
        (
            "good.fits --truth sentinel.fits",
            cli.REFUSED,
            "0 were left out by --where, 500 have none in Z_SPEC",
        ),
        ("good.fits --truth velocity.fits", cli.REFUSED, "not of velocities"),
        ("image.fits", cli.REFUSED, "no table HDU"),
        ("flipped.fits --truth truth.fits", cli.REFUSED, "checksum"),
        ("cut.fits --truth truth.fits", cli.REFUSED, "damaged"),
        ("empty.fits", cli.REFUSED, "damaged"),
        ("good.fits --truth cut.parquet", cli.REFUSED, "damaged or no such table"),
        ("good.fits --truth cut.vot", cli.REFUSED, "damaged or no such table"),
        ("words.csv", cli.REFUSED, "y_pred must hold one number"),
        ("ragged.csv", cli.REFUSED, "damaged"),
        ("nothing.csv", cli.REFUSED, "no object"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence_and_writes_nothing(
    inputs, monkeypatch, capsys, arguments, code, message
):
    monkeypatch.chdir(inputs)
    before = sorted(inputs.rglob("*"))
    assert evaluate(*arguments.split()) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert sorted(inputs.rglob("*")) == before


def test_all_is_measured_in_quarters_of_any_column(catalogue, columns, tmp_path, capsys):
    """Of the truth, in any case, or of the catalogue."""
    columns["OOD_SCORE"] = np.linspace(0, 0.99, 100)
    truth = Table.read(tmp_path / "truth.fits")
    truth["snr"] = np.arange(100.0)
    truth.write(tmp_path / "truth.fits", overwrite=True)
    out = tmp_path / "out"
    arguments = ("--truth", tmp_path / "truth.fits", "--out", out, "--draws", 0)
    assert evaluate(catalogue(columns), *arguments, "--by", "SNR", "OOD_SCORE") == cli.OK
    rows = printed(capsys.readouterr().out)
    quarters = ["SNR < 24.75", "24.75 <= SNR < 49.5", "49.5 <= SNR < 74.25", "SNR >= 74.25"]
    assert list(rows)[9:13] == quarters
    assert list(rows)[13] == "OOD_SCORE < 0.2475"
    report = json.loads((out / "metrics.json").read_text())
    for table in "rows", "calibration":
        assert [row["range"] for row in report[table]][9:13] == quarters
        assert [row["n"] for row in report[table]][9:13] == [25] * 4
    # the first 60 p(z) are centred on 0.5, then 30 on 0.58, then 10 on 0.2
    assert report["rows"][12]["value"]["bias"] == pytest.approx(0.08 / 1.5, rel=1e-4)
    assert report["calibration"][9]["value"]["coverage 68"] == 1

    assert evaluate(catalogue(columns), *arguments, "--by", "SNR", "MASS") == cli.USAGE
    assert "--by MASS: there is no such column" in capsys.readouterr().err


@pytest.mark.parametrize("survey", ["lsst", "euclid", "hsc"])
def test_the_report_card_fits_100_columns_and_cuts_no_number(catalogue, columns, tmp_path, capsys, survey):
    """Whatever the names of columns and the sizes of numbers."""
    rng = np.random.default_rng(0)
    columns["PHOTOZ_BEST"] += rng.normal(0, 0.3, 100).astype(np.float32)
    truth = Table.read(tmp_path / "truth.fits")
    truth["A_COLUMN_WITH_A_NAME_OF_MORE_THAN_THIRTY_LETTERS"] = 1e5 * rng.random(100)
    truth.write(tmp_path / "truth.fits", overwrite=True)
    by = ("--by", truth.colnames[-1], "MAG_I", "--survey", survey)
    out = tmp_path / "out"
    assert evaluate(catalogue(columns), "--truth", tmp_path / "truth.fits", "--out", out, *by) == cli.OK
    output = capsys.readouterr().out
    tables = [line for line in output.splitlines() if line.startswith("  ")]
    assert max(map(len, tables)) <= 100
    assert not any("…" in cell for line in tables for cell in re.split(r"\s{2,}", line.strip())[1:])

    report = json.loads((out / "metrics.json").read_text())
    documents = {"lsst": {"LSST SRD", "DMTN-049"}, "euclid": {"Euclid"}, "hsc": set()}[survey]
    assert {outcome["document"] for outcome in report["requirements"]} == documents
    assert len(report["tomography"]) == {"lsst": 5, "euclid": 10, "hsc": 4}[survey]
    bins = Table.read(out / "tomography.ecsv")
    assert bins["n"].sum() <= 100
    assert bins.colnames[-1] == {"lsst": "DESC Y10", "euclid": "Euclid", "hsc": "pdf_width"}[survey]
    assert (out / "requirements.ecsv").exists() == bool(documents)


def test_files_of_another_survey_do_not_stay(catalogue, columns, tmp_path):
    arguments = ("--truth", tmp_path / "truth.fits", "--out", tmp_path / "out", "--draws", 0)
    path = catalogue(columns)
    assert evaluate(path, *arguments) == cli.OK
    assert (tmp_path / "out/requirements.ecsv").exists()
    assert evaluate(path, *arguments, "--survey", "hsc") == cli.OK
    assert not (tmp_path / "out/requirements.ecsv").exists()
