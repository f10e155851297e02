"""Every survey's images have its depth, seeing, pixels and unit, of the same galaxies."""

import dataclasses

import numpy as np
import pytest
from astropy import units
from speclite import filters

from catalogs.bands import TABLE
from catalogs.mock import instruments
from catalogs.mock.cameras import HSC, legacy, rubin
from catalogs.mock.image import observe_image, render, seeing, transforms
from catalogs.mock.objects import TRAINING, draw
from catalogs.mock.population import Component, Source, draw_galaxy
from catalogs.mock.sed import galactic

CAMERAS = {"hsc": HSC, "rubin": rubin(10), "legacy": legacy()}
every_camera = pytest.mark.parametrize("camera", CAMERAS.values(), ids=CAMERAS)


def generator(seed=3):
    return np.random.default_rng(seed)


def test_noise_of_rubin_by_hand():
    """r = 27.5 is 36.31 nJy at 5 sigma, over 2.266 (0.83 / 0.2)^2 = 39.03 pixels of 480.9 nJy of sky."""
    camera = rubin(10)
    r = camera.filters.index("r")
    assert camera.sky_sigma[r] == pytest.approx(36.31 / (5 * 39.03**0.5), rel=1e-3)  # 1.162 nJy
    assert camera.gain[r] == pytest.approx(480.9 / 1.1624**2, rel=1e-3)
    np.testing.assert_allclose(rubin(1).sky_sigma, np.array(camera.sky_sigma) * 10**0.5)
    np.testing.assert_allclose(rubin(1).gain, np.array(camera.gain) / 10)  # a tenth of the exposure


def test_noise_of_the_legacy_surveys_by_hand():
    """r = 23.4 is 0.4365 nanomaggies at 5 sigma, over (2.266 1.2^2 + 1.807) / 0.262^2 = 73.9 pixels."""
    assert legacy().sky_sigma[1] == pytest.approx(0.4365 / (5 * 73.9**0.5), rel=1e-3)  # 0.01015


@every_camera
def test_images_have_the_noise_of_the_sky(camera):
    dark = Source(1.0, "QSO", (Component(np.full(len(instruments.GRID), 1e-9)),))
    shape = transforms(dark, generator(), camera)
    stamps = np.stack([observe_image(generator(k), camera, dark, shape, 0).image for k in range(60)])
    sigma = 1.4826 * np.median(np.abs(stamps - np.median(stamps, (2, 3), keepdims=True)), (0, 2, 3))
    np.testing.assert_allclose(sigma, camera.sky_sigma, rtol=0.08)


@every_camera
def test_a_stamp_holds_the_flux_of_its_magnitude(camera):
    source, rng = draw_galaxy(generator(), 0.8, 21.0, False), generator()
    psf, _ = seeing(rng, camera)
    stamp = render(camera, [source], [transforms(source, rng, camera)], np.zeros((1, 2)), psf)
    flux = 10 ** (0.4 * (camera.zero_point - source.magnitudes(camera)))
    np.testing.assert_allclose(stamp.sum((1, 2)), flux, rtol=0.03)


@every_camera
def test_magnitudes_are_those_of_speclite(camera):
    source = draw_galaxy(generator(), 0.8, 21.0, False)
    curves = filters.load_filters(*(TABLE[name].curve for name in camera.bands))
    unit = 1e-17 * units.erg / units.s / units.cm**2 / units.AA
    light = sum(component.sed for component in source.components) * unit
    light, wave = curves.pad_spectrum(light, instruments.GRID * units.AA)
    expected = list(curves.get_ab_magnitudes(light, wave).as_array()[0])
    np.testing.assert_allclose(source.magnitudes(camera), expected, atol=0.005)


def test_a_number_is_the_same_galaxy_in_every_survey():
    without_dust = (dataclasses.replace(camera, reddening=0.0) for camera in CAMERAS.values())
    hsc, lsst, decam = (draw(5, TRAINING, range(40), camera=camera) for camera in without_dust)
    for other in (lsst, decam):
        for name in ("object_id", "ra", "dec", "redshift", "kind", "radius"):
            np.testing.assert_array_equal(getattr(other, name), getattr(hsc, name), err_msg=name)
        light, expected = np.median(other.flux, 1), np.median(hsc.flux, 1)
        np.testing.assert_allclose(
            light[expected > 1], expected[expected > 1], rtol=0.02
        )  # through the fibre
    difference = lsst.magnitudes[:, 3] - hsc.magnitudes[:, 2]
    assert (np.abs(difference) < 0.1).mean() > 0.9
    assert np.abs(difference).max() < 0.2  # red galaxies are brighter in HSC's i, which is 195 A redder
    assert [each.image.shape[1:] for each in (hsc, lsst, decam)] == [(5, 64, 64), (6, 64, 64), (3, 64, 64)]


def test_a_bright_galaxy_has_the_same_light_in_the_units_of_every_survey():
    """Its aperture magnitudes agree: nJy, nanomaggies and HSC's counts are of one scale."""
    apertures = []
    source = draw_galaxy(generator(), 0.2, 17.5, True)
    for camera in CAMERAS.values():
        shape = transforms(source, generator(), camera)
        image = observe_image(generator(), camera, source, shape, 0).image
        y, x = (np.mgrid[:64, :64] - 32) * camera.pixel_scale
        flux = image[camera.filters.index("r"), np.hypot(y, x) < 4].sum()
        apertures.append(camera.zero_point - 2.5 * np.log10(flux))
    assert np.ptp(apertures) < 0.15


def test_dust_of_the_galaxy_dims_and_reddens_by_hand():
    """E(B - V) = 0.1: A(V) = 0.31 mag at 5500 A, and B - V, of 4400 and 5500 A, is 0.1 mag redder."""
    lost = -2.5 * np.log10(galactic(0.1))
    at = {wave: lost[np.abs(instruments.GRID - wave).argmin()] for wave in (4400, 5500)}
    assert at[5500] == pytest.approx(0.31, rel=0.03)
    assert at[4400] - at[5500] == pytest.approx(0.1, rel=0.1)


def test_a_survey_that_tells_says_what_is_in_its_stamps():
    """Noise at the border, and the saturated pixels that are the brightest; HSC's are as without dust."""
    objects = draw(3, TRAINING, range(200), artefacts=0.3, camera=rubin(10))
    sky = objects.image[:, :, :8, :8]
    sigma = 1.4826 * np.median(np.abs(sky - np.median(sky, (2, 3), keepdims=True)), (2, 3))
    usable = (sigma > 0).all(1)
    np.testing.assert_allclose(np.median(sigma[usable] / objects.noise[usable], 0), 1, atol=0.06)
    assert 0.7 < np.median(objects.psf_fwhm[:, 2]) < 0.76  # r has 0.73 arcsec
    assert 0.02 < np.median(objects.ebv) < 0.04
    saturated = (objects.image >= np.float32(rubin(10).saturation)).any(1)
    assert saturated.any()
    assert objects.mask[saturated].all()
    assert (draw(3, TRAINING, range(20)).ebv == 0).all()
