"""Magnitudes of a tile's objects and of the galaxies behind its model, on the page of a report."""

import numpy as np
import pytest
from astropy.table import Table

from catalogs.store.cutouts import open_store
from mmae.bundles.bundle import open_bundle
from mmae.layers.photometry import CENTRAL, RADII
from mmae.scores.page.planes import Planes, ab_magnitudes, drawn, planes_of


def test_magnitudes_are_ab_and_absent_below_the_noise():
    noise, flux = np.array([0.05, 0.2]), np.array([[100.0, 1.0], [10.0, -3.0]])
    central = np.arcsinh(flux / (noise * np.sqrt(np.pi) * RADII[CENTRAL]))
    found = ab_magnitudes(central, noise, 27.0)
    assert found[0, 0] == pytest.approx(22.0)
    assert found[1, 0] == pytest.approx(24.5)
    assert np.isnan(found[:, 1]).all()  # 1.0 is 0.35 of the noise of the aperture


def test_a_tile_is_measured_as_its_truth_says(survey, bundle):
    planes = planes_of(open_store(survey / "rubin_tile.zarr"), open_bundle(bundle))
    truth = Table.read(survey / "mock" / "rubin_tile.truth.fits")
    assert planes.bands == ("hsc-g", "hsc-r", "hsc-i", "hsc-z", "hsc-y") or len(planes.bands) == 5
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
