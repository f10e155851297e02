"""Stars, bands that were not observed and edges of the field, each without moving anything else."""

import dataclasses

import numpy as np
import pytest

from catalogs.mock.cameras import HSC, rubin
from catalogs.mock.objects import TILE, TRAINING, beyond_field, draw
from catalogs.mock.population import draw_star

RUBIN = rubin(10)


def test_stars_take_the_place_of_some_objects_of_a_tile():
    stars = dataclasses.replace(RUBIN, star_share=0.5)
    mixed = draw(1, TILE, range(30), camera=stars)
    is_star = mixed.kind == "STAR"
    assert 8 < is_star.sum() < 22
    assert np.isnan(mixed.redshift[is_star]).all()
    assert (mixed.radius[is_star] == 0).all()
    pure = draw(1, TILE, range(30), camera=dataclasses.replace(RUBIN, star_share=0))
    assert not (pure.kind == "STAR").any()
    for name, values in vars(mixed).items():
        np.testing.assert_array_equal(values[~is_star], getattr(pure, name)[~is_star], err_msg=name)
    for name in ("object_id", "ra", "dec"):
        np.testing.assert_array_equal(getattr(mixed, name), getattr(pure, name))
    assert not (draw(1, TRAINING, range(10), camera=stars).kind == "STAR").any()


def test_the_share_of_stars_is_that_of_a_galaxy_sample():
    shares = [RUBIN.star_share, HSC.star_share]
    assert shares == [0.03, 0]


def test_stars_have_colours_of_stars():
    """The Sun has g - r = 0.46 and r - i = 0.12 (Willmer 2018)."""
    magnitudes = np.array([draw_star(np.random.default_rng(k)).magnitudes(RUBIN) for k in range(100)])
    g_r, r_i = (magnitudes[:, 1] - magnitudes[:, 2]), (magnitudes[:, 2] - magnitudes[:, 3])
    near = np.abs(g_r - 0.46) < 0.1
    assert near.any()
    assert np.median(r_i[near]) == pytest.approx(0.12, abs=0.15)
    assert 0.2 < g_r.min() < g_r.max() < 1.6
    assert 19 < np.median(magnitudes[:, 3]) < 21


@pytest.mark.parametrize("camera", [HSC, RUBIN], ids=["hsc", "rubin"])
def test_a_share_of_the_bands_was_not_observed(camera):
    whole, gaps = (draw(4, TRAINING, range(60), 0, camera, share) for share in (0, 0.3))
    missing = np.isnan(gaps.image).all((2, 3))
    assert missing.mean() == pytest.approx(0.3, abs=0.1)  # 4 sigma
    assert not missing.all(1).any()
    np.testing.assert_array_equal(gaps.image[~missing], whole.image[~missing])
    assert not np.isnan(whole.image).any()
    np.testing.assert_array_equal(gaps.flux, whole.flux)


def test_an_object_keeps_one_band():
    image = draw(4, TRAINING, range(10), camera=RUBIN, missing_bands=1.0).image
    assert (np.isnan(image).all((2, 3)).sum(1) == 5).all()


def test_a_stamp_ends_where_the_field_does():
    """The field is 0.5 deg wide about (150.1, 2.2): its north is at 2.45, its east 0.25 deg from 150.1."""
    pixel = 0.2 / 3600
    north = beyond_field(150.1, 2.45 - 16.5 * pixel, 0.2)
    assert north[49:].all()
    assert not north[:49].any()
    east = beyond_field(150.1 + (0.25 - 10.5 * pixel) / np.cos(np.radians(2.2)), 2.2, 0.2)
    assert east[:, :22].all()
    assert not east[:, 22:].any()
    assert not beyond_field(150.1, 2.2, 0.2).any()


def test_stamps_of_a_tile_have_no_data_beyond_the_field():
    rows = range(70, 82)  # the objects 73 and 79 are near a side
    objects = draw(1, TILE, rows, 0, RUBIN)
    beyond = np.stack([beyond_field(*place, 0.2) for place in zip(objects.ra, objects.dec, strict=True)])
    assert list(np.flatnonzero(beyond.any((1, 2)))) == [3, 9]
    np.testing.assert_array_equal(np.isnan(objects.image), beyond[:, None].repeat(6, 1))
    assert not np.isnan(draw(1, TILE, rows, 0).image).any()
