"""Photometry of an image: numbers worked by hand, and the effect of hidden patches."""

import math

import torch

from mmae.layers.patches import patches
from mmae.layers.photometry import RADII, Photometry


def spread(shown):
    """Which tokens are shown, (B, 64), as weights of their pixels in five bands."""
    return shown.unsqueeze(2).repeat(1, 1, 5 * 64)


def test_the_flux_of_a_uniform_image_is_the_area_of_the_aperture():
    """4 pixels at 0.71 from the centre, 8 at 1.58, ...: 32 in all lie within 3 pixels."""
    image = torch.tensor([1.0, 2.0, 0.0, -1.0, 100.0]).view(1, 5, 1, 1).expand(1, 5, 64, 64)
    pixels = patches(image)
    magnitudes, visible = Photometry(5).measure(pixels, torch.ones_like(pixels))
    first = magnitudes.view(5, len(RADII))[:, 0].tolist()
    expected = [math.asinh(flux * 32**0.5) for flux in (1, 2, 0, -1, 100)]
    assert torch.allclose(torch.tensor(first), torch.tensor(expected))
    assert visible.tolist() == [[1.0] * 5 * len(RADII)]


def test_hidden_pixels_count_as_bright_as_the_visible_ones_of_their_ring():
    """Hiding patches of a circularly symmetric galaxy does not change its magnitudes."""
    axis = torch.arange(64) - 31.5
    radius = (axis[:, None] ** 2 + axis**2).sqrt()
    ring = torch.bucketize(radius, torch.tensor(RADII), right=True)
    image = (100.0 / (1 + ring)).expand(1, 5, 64, 64)
    pixels, photometry = patches(image), Photometry(5)
    shown = torch.ones(1, 64)
    shown[0, [0, 9, 27, 36, 44]] = 0  # 27 and 36 are two of the four around the centre
    magnitudes, visible = photometry.measure(pixels, spread(shown))
    torch.testing.assert_close(magnitudes, photometry.measure(pixels, torch.ones_like(pixels))[0])
    assert visible[0, 0] == 0.5


def test_magnitudes_of_the_fitted_galaxies_are_white():
    generator = torch.Generator().manual_seed(0)
    brightness = 0.03 * torch.randn(500, 5, 1, 1, generator=generator).exp()
    pixels = patches(brightness + torch.randn(500, 5, 64, 64, generator=generator))
    photometry = Photometry(5)
    photometry.fit(pixels, torch.ones_like(pixels))
    magnitudes, _ = photometry.measure(pixels, torch.ones_like(pixels))
    white = (magnitudes - photometry.centre[-1]) @ photometry.whiten[-1]
    covariance = torch.cov(white.T)
    assert white.mean(0).abs().max() < 1e-3
    off = covariance - covariance.diagonal().diag()
    assert off.abs().max() < 0.05
    assert ((covariance.diagonal() > 0.05) & (covariance.diagonal() < 1.01)).all()


def test_each_set_of_bands_is_whitened_by_the_galaxies_of_its_survey():
    """One survey has bands 0 and 1, another of ten times the scatter 0 to 2, and none has 3 without 2."""
    generator = torch.Generator().manual_seed(0)
    scatter = torch.cat([torch.full((60, 1, 1, 1), 0.1), torch.full((300, 1, 1, 1), 1.0)])
    light = scatter * torch.randn(360, 4, 1, 1, generator=generator)
    pixels = patches(light + 0.01 * torch.randn(360, 4, 64, 64, generator=generator))
    known = torch.ones(360, 64, 4, 64)
    known[:60, :, 2:], known[60:, :, 3] = 0, 0
    known[359, :, 3] = 1
    photometry = Photometry(4)
    photometry.fit(pixels, known.flatten(2))
    magnitudes, _ = photometry.measure(pixels, torch.ones_like(pixels))
    for number, rows, bands in ((0b0011, slice(60), 2), (0b0111, slice(60, 359), 3)):
        places = len(RADII) * bands
        white = (magnitudes[rows] - photometry.centre[number]) @ photometry.whiten[number]
        assert white[:, :places].mean(0).abs().max() < 1e-2
        assert white[:, :places].std(0).max() < 1.01  # less than 1 where there is hardly any
        assert abs(white[:, places - 1].std() - 1) < 1e-2
        assert not white[:, places:].any()
    assert torch.equal(photometry.whiten[0b1001], torch.eye(4 * len(RADII)))  # one galaxy has no covariance


def test_a_band_that_is_absent_says_nothing():
    """Neither its pixels nor which other bands are there move what is measured in one that is."""
    generator = torch.Generator().manual_seed(0)
    brightness = 0.03 * torch.randn(200, 1, 1, 1, generator=generator).exp()
    pixels = patches(brightness + 0.01 * torch.randn(200, 5, 64, 64, generator=generator))
    photometry = Photometry(5)
    photometry.fit(pixels, torch.ones_like(pixels))
    weights = torch.ones_like(pixels).unflatten(2, (5, -1))
    weights[:, :, 3] = 0
    weights = weights.flatten(2)
    features, numbers, _ = photometry(pixels, weights)
    assert (numbers == 0b10111).all()
    torch.testing.assert_close(photometry(pixels + 7 * (1 - weights), weights)[0], features)
    whole, _, _ = photometry(pixels, torch.ones_like(pixels))
    assert features.isfinite().all()
    assert (features - whole)[:, : 5 * len(RADII)].abs().max() < 5  # of some sigma, not thousands
    told = features[:, 5 * len(RADII) :]
    assert told.tolist() == [[0] * len(RADII) + [0, 0, 0, 1, 0]] * 200  # nothing is hidden but that band
    assert not whole[:, 5 * len(RADII) :].any()
