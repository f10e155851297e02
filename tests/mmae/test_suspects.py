"""`mmae evaluate --suspect`: the redshifts that p(z) disbelieves most, and their images."""

import numpy as np
import pytest
from astropy.table import Table
from scipy.stats import norm

from catalogs.products.schema import QUANTILE_LEVELS
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from mmae import cli
from mmae.evaluate import Evaluate, main
from mmae.scores.suspects import MOST_DRAWN, distance


def evaluate(*argv):
    return cli.run(main, Evaluate, [str(arg) for arg in argv], "mmae evaluate")


def test_distance_is_in_units_of_the_side_of_p_of_z():
    """Median 0.5, ends at 0.4 and 0.7: 0.3 is twice as far down as the end, 0.6 half as far up."""
    quantiles = np.concatenate([np.linspace(0.4, 0.5, 10), np.linspace(0.5, 0.7, 10)])
    far = distance(np.tile(quantiles, (4, 1)), np.array([0.5, 0.3, 0.6, 0.7]))
    np.testing.assert_allclose(far, [0, 2, 0.5, 1], atol=1e-12)
    sharp = distance(np.full((1, 20), 1.0), np.array([1.1]))  # no p(z) is sharper than 0.001 (1 + z)
    np.testing.assert_allclose(sharp, 0.1 / 0.002)


@pytest.fixture
def survey(tmp_path):
    """2,000 galaxies with Gaussian p(z), half of them IN_TRAINING; 5 % of the redshifts are of others.

    Returns the catalogue, and the ids whose redshifts are wrong.
    """
    rng = np.random.default_rng(0)
    ids = rng.permutation(2000) + 2**60
    true, width = rng.uniform(0.1, 1.2, 2000), rng.uniform(0.01, 0.05, 2000)
    best = true + width * rng.standard_normal(2000)
    wrong = rng.permutation(2000)[:100]
    z_spec = true.copy()
    z_spec[wrong] = rng.permutation(true)[:100]
    z_spec[1990:] = np.nan
    ends = {
        f"PHOTOZ_ERR{p}_{end}": best + s * k * width for p, k in ((68, 1), (95, 1.96)) for end, s in SIDES
    }
    quantiles = (best[:, None] + width[:, None] * norm.ppf(QUANTILE_LEVELS)).clip(min=0)
    columns = {"OBJECT_ID": ids, "PHOTOZ_POINT": best, "PHOTOZ_BEST": best, "PDF_QUANT": quantiles, **ends}
    columns |= {"Z_SPEC": z_spec, "IN_TRAINING": np.where(np.arange(2000) % 2, 1, 0).astype(np.int16)}
    Table(columns).write(tmp_path / "tile.photoz.fits")
    return tmp_path / "tile.photoz.fits", ids[wrong]


SIDES = (("MIN", -1), ("MAX", 1))


def test_wrong_redshifts_are_found_among_twice_as_many(survey, tmp_path, capsys):
    catalogue, wrong = survey
    assert evaluate(catalogue, "--suspect", 200) == cli.OK
    found = Table.read(tmp_path / "tile.photoz.evaluation/suspects.ecsv")
    assert len(found) == 200
    assert np.isin(wrong, found["OBJECT_ID"]).mean() > 0.8
    assert np.isin(found["OBJECT_ID"][:60], wrong).all()  # the worst first
    assert (np.diff(found["DISTANCE"]) <= 0).all()
    assert set(found["IN_TRAINING"]) == {0, 1}  # those that the model was made with, too
    assert found["Z_SPEC"].description
    said = capsys.readouterr().out
    assert "200 redshifts that p(z) disbelieves most, of 1990:" in said
    assert "wrote suspects.ecsv to" in said
    assert not (tmp_path / "tile.photoz.evaluation/metrics.json").exists()


def test_their_images_are_drawn_from_the_store_of_the_catalogue(survey, tmp_path, capsys):
    catalogue, _ = survey
    ids = np.array(Table.read(catalogue, hdu=1)["OBJECT_ID"])
    order = np.random.default_rng(1).permutation(2000)
    image = np.random.default_rng(2).normal(size=(1, 5, 64, 64)).astype(np.float32)

    def rows(start, stop, kept=order):
        inside = kept[start:stop]
        images = np.broadcast_to(image, (len(inside), 5, 64, 64)) * (1 + inside[:, None, None, None] / 2000)
        place = np.zeros(len(inside))
        return {"object_id": ids[inside], "image": images.astype(np.float32), "ra": place, "dec": place}

    cutouts.write(tmp_path / "tile.zarr", rows, n=2000, survey="mock", shard_rows=512)
    assert evaluate(catalogue, "--suspect", 150, "--images", tmp_path / "tile.zarr") == cli.OK
    page = tmp_path / "tile.photoz.evaluation/suspects.png"
    assert page.read_bytes()[:4] == b"\x89PNG"
    assert MOST_DRAWN < 150 == len(Table.read(page.with_suffix(".ecsv")))
    worst = Table.read(page.with_suffix(".ecsv"))["OBJECT_ID"][0]
    kept = order[ids[order] != worst]
    cutouts.write(
        tmp_path / "other.zarr", lambda a, b: rows(a, b, kept), n=1999, survey="mock", shard_rows=512
    )
    before = page.read_bytes()
    assert evaluate(catalogue, "--suspect", 150, "--images", tmp_path / "other.zarr") == cli.REFUSED
    assert f"lacks object {worst}" in capsys.readouterr().err
    assert page.read_bytes() == before
    assert open_store(tmp_path / "other.zarr").n == 1999


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (["--suspect", "-1"], cli.USAGE, "--suspect"),
        (["--images", "tile.zarr"], cli.USAGE, "--images is for --suspect"),
        (["--suspect", "5", "--truth", "none.fits"], cli.USAGE, "there is no file"),
    ],
)
def test_what_cannot_be_listed_is_refused(survey, flags, code, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate(survey[0], *flags) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "tile.photoz.evaluation").exists()


@pytest.mark.parametrize("columns", ["left out", "null"])
def test_a_catalogue_without_p_of_z_has_nothing_to_doubt_by(survey, tmp_path, capsys, columns):
    """The paper's model leaves the columns of p(z) null."""
    table = Table.read(survey[0], hdu=1)
    if columns == "left out":
        table = table["OBJECT_ID", "PHOTOZ_POINT", "Z_SPEC"]
    else:
        table["PHOTOZ_BEST"] = np.nan
        table["PDF_QUANT"] = np.full((len(table), len(QUANTILE_LEVELS)), np.nan)
    table.write(tmp_path / "points.fits")
    assert evaluate(tmp_path / "points.fits", "--suspect", 5) == cli.REFUSED
    assert "no p(z) to doubt redshifts by" in capsys.readouterr().err
