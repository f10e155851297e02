"""Magnitudes of a tile's objects and of the galaxies behind its model, on the page of a report."""

import numpy as np
import pytest
from astropy.table import Table

from catalogs.store.cutouts import open_store
from mmae.bundles.bundle import open_bundle
from mmae.layers.photometry import central_pixels
from mmae.scores.page.planes import Planes, ab_magnitudes, drawn, planes_of, standing_of


def test_magnitudes_are_ab_and_absent_below_the_noise():
    noise, flux = np.array([0.05, 0.2]), np.array([[100.0, 1.0], [10.0, -3.0]])
    central = np.arcsinh(flux / (noise * np.sqrt(central_pixels())))
    found = ab_magnitudes(central, noise, 27.0)
    assert found[0, 0] == pytest.approx(22.0)
    assert found[1, 0] == pytest.approx(24.5)
    assert np.isnan(found[:, 1]).all()  # 1.0 is 0.35 of the noise of the aperture


def test_a_tile_is_measured_as_its_truth_says(survey, bundle):
    planes = planes_of(open_store(survey / "rubin_tile.zarr"), open_bundle(bundle))
    truth = Table.read(survey / "mock" / "rubin_tile.truth.fits")
    assert planes.bands == open_bundle(bundle).input.bands
    missing = planes.objects[:128, 2] - np.asarray(truth["MAG_HSC_I"])  # light outside of the aperture
    assert 0 < np.median(missing) < 0.8
    assert (missing > -0.15).mean() > 0.9  # but for a neighbour's
    assert planes.behind.shape[1] == 5
    assert len(planes.behind) > 100
    figure = drawn(planes)
    assert figure.axes[0].get_xlabel() == planes.bands[2]


def test_planes_of_nothing_and_of_two_bands_are_drawn():
    nothing = np.full((5, 2), np.nan)
    assert len(drawn(Planes(("g", "r"), nothing, nothing)).axes) == 1
    assert len(drawn(Planes(("g", "r"), nothing + 1, nothing)).axes) == 1


def test_objects_are_drawn_where_no_galaxy_with_a_redshift_has_a_band():
    objects = np.random.default_rng(0).normal(22, 1, (100, 2))
    plane = drawn(Planes(("g", "r"), objects, np.full((50, 2), np.nan))).axes[0]
    assert len(plane.lines[0].get_xdata()) == 100


def test_what_the_galaxies_stand_for_is_said():
    like = {"fingerprint": "f", "galaxies": 4667, "effective": 2663.4, "target_unlike": 0.168}
    again = {"store": "mine.zarr", "like": "g", "effective": 310.2, "target_unlike": 0.25}
    card = {
        "training_data": {"like": like},
        "calibration": {"galaxies": "500 of mine.zarr", "recalibrated": again},
    }
    said = standing_of(card)
    assert "4667 galaxies with redshifts count as 2663; 16.8% of the sample" in said
    assert "p(z) was calibrated on 500 of mine.zarr. They count as 310; 25.0% of the sample" in said
    assert standing_of({"training_data": {}, "calibration": {}}) == ""
