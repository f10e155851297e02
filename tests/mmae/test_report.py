"""`mmae report`: a page that holds all it shows, and a light that says whether to believe a catalogue."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from astropy import units as u
from astropy.table import Table
from astropy_healpix import HEALPix

from catalogs.products.schema import Flag, Reject
from catalogs.products.screen import REASON_DTYPE
from catalogs.store import cutouts
from mmae import cli
from mmae.report import Report, judge, main
from mmae.scores.page.facts import gather
from mmae.scores.page.figures import widths
from mmae.scores.page.light import colour, reasons
from mmae.scores.page.sky import _drawn as drawn_map
from mmae.scores.page.sky import order_of
from tests.written import BANDS, N, write


def report(*argv):
    return cli.run(main, Report, [str(arg) for arg in argv], "mmae report")


class Checked(HTMLParser):
    """Every tag that is opened is closed, in order; nothing is fetched from elsewhere."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self):
        super().__init__()
        self.stack, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        values = dict(attributes)
        assert values.get("src", "data:").startswith("data:")
        assert "href" not in values
        assert tag != "img" or values["alt"]
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def read(path):
    text = path.read_text()
    page = Checked()
    page.feed(text)
    assert not page.stack
    assert len(text) < 3e6
    return text, page


def light(text):
    return re.search(r'class="light (\w+)"', text)[1]


@pytest.mark.slow
def test_a_good_catalogue_has_a_page_that_says_so(tmp_path, capsys):
    catalogue = write(tmp_path / "a")
    assert report(catalogue, "--truth", tmp_path / "a/truth.csv") == cli.OK
    said = capsys.readouterr().out
    out = catalogue.with_name("tile.photoz.report.html")
    text, page = read(out)
    assert light(text) == "green"
    assert said.startswith("green: ")
    assert str(out) in said
    assert page.seen.count("img") == 7  # n(z), width, OOD_SCORE, maps, examples, calibration, reliability
    assert "a &lt;mock&gt; &amp; more" in text
    assert f"{N:,} objects in 1 catalogue" in text


FAULTY = {
    "rejected": {"reason": np.where(np.arange(N) % 5 == 0, Reject.DAMAGED.value, "").astype(REASON_DTYPE)},
    "another population": {"columns": {"OOD_SCORE": np.random.default_rng(1).random(N) ** 2}},
    "another sky": {"flags": np.full(N, Flag.UNLIKE_TRAINING_PIXELS.value)},
    "too narrow": {"narrow": 2.0},
    "at risk": {"columns": {"PHOTOZ_RISK_BEST": np.full(N, 0.01)}},
}
SAID = {
    "rejected": "20.0% of the objects have no redshift, most of them for DAMAGED",
    "another population": "the distribution of OOD_SCORE is off by 0.2",
    "another sky": "100% of the objects are UNLIKE_TRAINING_PIXELS",
    "too narrow": "68 % intervals hold 39%",
    "at risk": "PHOTOZ_RISK_BEST claims a loss of 0.010",
}


@pytest.mark.parametrize("fault", FAULTY)
def test_a_bad_catalogue_is_red_and_says_why(tmp_path, fault):
    facts = gather([write(tmp_path / "a", **FAULTY[fault])])
    judged, _ = judge(Report((), truth=tmp_path / "a/truth.csv"), facts)
    found = reasons(facts, judged)
    assert colour(found) == "red"
    assert SAID[fault] in found[0].finding


def test_the_distance_of_scores_is_kolmogorovs(tmp_path):
    """Scores u^2 have the CDF sqrt(s), which is 1/4 above that of u at s = 1/4."""
    facts = gather([write(tmp_path / "a", **FAULTY["another population"])])
    assert facts.drift.distance == pytest.approx(0.25, abs=1.63 / np.sqrt(N))
    assert facts.drift.chance == pytest.approx(0.05 + 1.63 / np.sqrt(N))


def test_several_catalogues_of_one_model_are_counted_together(tmp_path, capsys):
    flags = np.where(np.arange(N) < 7, Flag.TWO_PEAKS.value | Flag.BROAD.value, 0)
    few = {"reason": FAULTY["rejected"]["reason"]}
    paths = [write(tmp_path / "a", flags=flags), write(tmp_path / "b", first=2**61, **few)]
    facts = gather(paths)
    assert (facts.rows, facts.objects, dict(facts.rejects)) == (N + N * 4 // 5, 2 * N, {"DAMAGED": N // 5})
    assert dict(facts.flags) == {Flag.TWO_PEAKS: 7, Flag.BROAD: 7}
    assert len(facts.reject_cells) == N // 5
    other = write(tmp_path / "c", model="d" * 64)
    assert report(paths[0], other) == cli.REFUSED
    assert "not of one run of one model" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))


def test_a_map_is_as_fine_as_cells_hold_thirty_objects():
    one_cell = np.full(100, 5 << 2 * 29 - 20)
    assert order_of(one_cell) == 10
    assert order_of(np.arange(12) << 2 * 29) == 0


def test_a_cell_on_the_edge_of_a_map_of_all_the_sky_is_not_drawn_across_it():
    grid = HEALPix(4, "nested")
    cells = np.unique(grid.lonlat_to_healpix(np.arange(360) * u.deg, np.zeros(360) * u.deg))
    corners = np.stack([angle.to_value(u.deg) for angle in grid.boundaries_lonlat(cells, 1)], 2)
    axes = drawn_map(corners, {"number": np.arange(len(cells))}).axes[0]
    assert max(np.ptp(path.vertices[:, 0]) for path in axes.collections[0].get_paths()) < 30


def test_widths_of_fewer_than_ten_objects_are_drawn():
    best = np.array([0.5, 0.7])
    axes = widths(best, best - 0.01, best + 0.01).axes[0]
    assert axes.lines[0].get_xdata() == pytest.approx([0.51, 0.69])


def test_a_catalogue_without_p_z_has_no_examples_to_draw(tmp_path):
    unknown = dict.fromkeys(("PHOTOZ_BEST", "PHOTOZ_RISK_BEST", "PHOTOZ_CONF_BEST"), np.full(N, np.nan))
    path = write(tmp_path / "a", columns=unknown | {"PDF_QUANT": np.full((N, 20), np.nan)})
    image = np.random.default_rng(0).normal(size=(64, 5, 64, 64))
    columns = {"image": image, "object_id": np.arange(64), "ra": np.zeros(64), "dec": np.zeros(64)}
    cutouts.write(
        tmp_path / "tile.zarr",
        lambda a, b: {name: values[a:b] for name, values in columns.items()},
        n=64,
        survey="mine",
        bands=list(BANDS),
        pixel_scale=0.168,
        zero_point=27.0,
    )
    assert report(path, "--images", tmp_path / "tile.zarr") == cli.OK


def test_what_is_no_catalogue_is_refused(tmp_path, capsys):
    Table({"a": [1.0]}).write(tmp_path / "a.fits")
    assert report(tmp_path / "a.fits") == cli.REFUSED
    assert "is no catalogue of `mmae infer`" in capsys.readouterr().err
    assert report() == cli.USAGE
    catalogue = write(tmp_path / "b")
    Table({"id": [1], "z": [0.5]}).write(tmp_path / "none.csv")
    assert report(catalogue, "--truth", tmp_path / "none.csv") == cli.REFUSED
    assert "can be judged by" in capsys.readouterr().err
    assert report(catalogue, "--out", tmp_path / "none.csv" / "page.html") == cli.USAGE
    assert "none.csv is no folder to write to" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.html"))


def test_what_is_wrong_with_a_truth_is_said(tmp_path, capsys):
    path = write(tmp_path / "a")
    truth = Table.read(tmp_path / "a" / "truth.csv")
    truth["z_spec"], truth["zspec"] = truth["z"], truth["z"]
    truth.write(tmp_path / "two.csv")
    assert report(path, "--truth", tmp_path / "two.csv") == cli.REFUSED
    assert "z_spec and zspec: pass one of them as --z-column" in capsys.readouterr().err


def test_a_tile_may_lack_the_redshifts_that_others_bring(tmp_path):
    z_spec = np.where(np.arange(N) < 300, 0.5, np.nan)
    paths = [write(tmp_path / "a", columns={"Z_SPEC": z_spec}), write(tmp_path / "b", first=2**61)]
    assert report(*paths) == cli.OK
    assert (
        "300 objects that the model was not made with" in read(tmp_path / "a" / "tile.photoz.report.html")[0]
    )
