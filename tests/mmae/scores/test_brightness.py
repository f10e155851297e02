"""Magnitudes and depths of a store, and what pages and comparisons make of them."""

import numpy as np
import pytest
from astropy.table import Table

from catalogs.store.cutouts import open_store
from catalogs.store.writer import write as write_store
from mmae import cli
from mmae.compare import Compare
from mmae.compare import main as compare
from mmae.layers.photometry import CENTRAL, RADII
from mmae.report import mapped
from mmae.scores.catalogue import brightness
from mmae.scores.page import sky
from mmae.scores.page.facts import gather
from tests.written import write

STORED, NOISE = 320, 0.1
BANDS = ("hsc_g", "hsc_r", "hsc_i")


def magnitudes(start, stop):
    return np.linspace(18, 23, STORED)[start:stop]


def rows(start, stop):
    """Point-like objects of known magnitude, whose noise is twice as large from the middle on."""
    rng = np.random.default_rng(start)
    image = rng.normal(0, NOISE, (stop - start, 3, 64, 64)).astype(np.float32)
    image[np.arange(start, stop) >= STORED // 2] *= 2
    flux = 10 ** (0.4 * (27 - magnitudes(start, stop)))
    image[:, :, 31:33, 31:33] += flux[:, None, None, None].astype(np.float32) / 4
    place = np.arange(start, stop)
    position = np.where(place < STORED // 2, 0.02, 0.28)
    return {
        "image": image,
        "object_id": 2**60 + place,
        "ra": 359.9 + position - 360 * (position > 0.1),
        "dec": position,
    }


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    path = tmp_path_factory.mktemp("bright") / "tile.zarr"
    write_store(path, rows, n=STORED, survey="mock", bands=BANDS, shard_rows=64)
    return path


def test_magnitude_and_depth_are_those_of_the_pixels(tile):
    seen = brightness.measure(open_store(tile))
    assert seen.band == "hsc_r"
    assert seen.rows.tolist() == list(range(STORED))
    bright = magnitudes(0, STORED) < 20
    np.testing.assert_allclose(seen.magnitude[bright], magnitudes(0, STORED)[bright], atol=0.02)
    np.testing.assert_allclose(seen.magnitude, magnitudes(0, STORED), atol=0.3)  # 8 sigma at the faint end
    of_aperture = 5 * NOISE * np.sqrt(np.pi) * RADII[CENTRAL]
    expected = 27 - 2.5 * np.log10(np.where(np.arange(STORED) < STORED // 2, 1, 2) * of_aperture)
    np.testing.assert_allclose(seen.depth, expected, atol=0.1)


def test_the_sky_shows_where_it_is_shallow(tile, tmp_path):
    """Cells with images have their depth, the others none: two groups, 0.75 mag apart."""
    depths = mapped(tile)
    order = 8
    cells = np.unique(np.append(depths.cells, 0) >> 2 * (29 - order))
    found = sky.depth_of(cells, order, depths)
    assert np.isfinite(found).sum() == 2
    assert np.ptp(found[np.isfinite(found)]) == pytest.approx(2.5 * np.log10(2), abs=0.03)
    facts = gather([write(tmp_path / "a")])
    assert len(sky.maps(facts).axes) == 2 * 6  # with their scales
    assert "median depth in hsc_r, mag" in [axes.get_title() for axes in sky.maps(facts, depths).axes]


def test_redshifts_that_moved_are_told_by_magnitude(tile, tmp_path, capsys):
    a, b = write(tmp_path / "a"), tmp_path / "b"
    z = Table.read(a, hdu=1)["PHOTOZ_BEST"].astype(float)
    faint = np.arange(len(z)) >= STORED // 2
    b = write(b, columns={"PHOTOZ_BEST": z + 0.01 * faint * (1 + z)})
    argv = [str(a), str(b), "--images", str(tile), "--out", str(tmp_path / "out")]
    assert cli.run(compare, Compare, argv, "mmae compare") == cli.OK
    assert "<= hsc_r <" in capsys.readouterr().out
    table = Table.read(tmp_path / "out/differences.ecsv")
    of_band = table[["hsc_r" in name for name in table["range"]]]
    assert of_band["objects"].sum() == STORED
    np.testing.assert_allclose(of_band["median dz"][[0, 1, 3, 4]], [0, 0, 0.01, 0.01], atol=1e-5)
    strange = write(tmp_path / "c", first=2**61)
    assert cli.run(compare, Compare, [str(strange), str(strange), *argv[2:4]], "mmae compare") == cli.REFUSED
    assert "has none of the objects" in capsys.readouterr().err
