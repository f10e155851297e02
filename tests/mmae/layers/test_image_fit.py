"""The likeliest image by what is visible: the estimate worked another way, and galaxies of a known family."""

import copy

import pytest
import torch

from mmae.layers.image_fit import COMPONENTS, ImageFit, turns
from mmae.layers.patches import patches, unpatch
from mmae.layers.rings import by_band

BANDS, WIDTH = 3, 64
AS_TRAINED = torch.ones(1, BANDS)
"""Noise of images as deep as those of the training set."""


def family(number, seed):
    """Patches of elliptical galaxies, exponential and of many sizes and brightnesses, and their noise."""
    generator = torch.Generator().manual_seed(seed)
    height, size, angle = torch.rand(3, number, 1, 1, generator=generator)
    axis = torch.arange(64) - 31.5
    x, y = axis * torch.cos(3.15 * angle), axis[:, None] * torch.sin(3.15 * angle)
    across = axis[:, None] * torch.cos(3.15 * angle) - axis * torch.sin(3.15 * angle)
    radius = ((x + y) ** 2 + (across / 0.6) ** 2).sqrt() / (2 + 4 * size)
    light = 10 ** (1 + 2 * height) * (-radius).exp()
    image = torch.stack([light, 2 * light, 4 * light], 1)
    noise = torch.randn(number, BANDS, 64, 64, generator=generator)
    return patches(image), patches(noise)


def a_quarter(number, seed):
    """Weights of the pixels of the tokens that are visible, (N, 64, bands * 64)."""
    order = torch.rand(number, 64, generator=torch.Generator().manual_seed(seed)).argsort(1).argsort(1)
    return (order < 16).float().unsqueeze(2).expand(-1, -1, BANDS * 64)


@pytest.fixture(scope="module")
def fitted():
    galaxies, noise = family(600, 0)
    fit = ImageFit(BANDS, WIDTH)
    fit.fit(galaxies + noise, torch.ones_like(galaxies))
    return fit.requires_grad_(False)


@pytest.mark.parametrize("depth", [0.5, 1.0, 3.0])
def test_it_is_the_mean_of_what_is_hidden_given_what_is_visible(fitted, depth):
    """Of Gaussian pixels: m + K_hv K_vv^-1 (x - m), in double, without the normal equations.

    depth : noise, in units of that of the training set. What is added to that in flux is less on the asinh
        scale where there is light: by its slope there.
    """
    galaxies, noise = family(2, 1)
    pixels, weights = galaxies + depth * noise, a_quarter(2, 1)
    guess = fitted(pixels.where(weights > 0, 99.0), weights, torch.zeros(2, WIDTH), depth * AS_TRAINED)
    guess = by_band(guess, fitted.mean)
    seen = by_band(weights, fitted.mean)[:, 0] > 0
    light = by_band(pixels, fitted.mean).double().asinh()
    components = fitted.components.double()
    for galaxy in range(2):
        for band in range(BANDS):
            covariance = components.T @ (fitted.variance[band, :, None].double() * components)
            visible, mean = seen[galaxy], fitted.mean[band].double()
            measured = light[galaxy, band, visible]
            added = (max(0.0, depth**2 - 1) ** 0.5 / measured.cosh()).asinh() ** 2
            among = covariance[visible][:, visible] + torch.diag(fitted.residual[visible].double() + added)
            beside = torch.linalg.solve(among, measured - mean[visible])
            expected = mean + covariance[:, visible] @ beside
            torch.testing.assert_close(guess[galaxy, band].double(), expected, rtol=0, atol=2e-3)


def test_the_hidden_part_of_galaxies_of_the_family_is_foretold(fitted):
    """Three quarters of the pixels, to a tenth of what the mean image is off by: also hidden middles."""
    galaxies, noise = family(40, 2)
    weights = a_quarter(40, 2)
    guess = fitted((galaxies + noise) * weights, weights, torch.zeros(40, WIDTH), AS_TRAINED)
    right, hidden = galaxies.asinh(), weights == 0
    mean = fitted(galaxies, torch.zeros_like(weights), torch.zeros(40, WIDTH), AS_TRAINED)
    errors = [float((each - right)[hidden].square().mean()) for each in (guess, mean)]
    assert errors[0] < 0.1 * errors[1]


def test_an_image_that_is_known_to_be_shallower_is_trusted_less(fitted):
    """With three times the noise: nine tenths of the error of taking it for a deeper one, or less."""
    galaxies, noise = family(40, 2)
    weights = a_quarter(40, 2)
    right, hidden = galaxies.asinh(), weights == 0
    errors = [
        float(
            (fitted((galaxies + 3 * noise) * weights, weights, torch.zeros(40, WIDTH), told) - right)[hidden]
            .square()
            .mean()
        )
        for told in (3 * AS_TRAINED, AS_TRAINED)
    ]
    assert errors[0] < 0.9**2 * errors[1]


def test_where_nothing_is_visible_it_is_what_is_expected(fitted):
    """The mean image, and then what the network adds: a coefficient in units of its scatter."""
    pixels, joint = torch.full((1, 64, BANDS * 64), 7.0), torch.ones(1, WIDTH)
    nothing = torch.zeros_like(pixels)
    light = by_band(fitted(pixels, nothing, joint, AS_TRAINED), fitted.mean)[0]
    torch.testing.assert_close(light, fitted.mean, rtol=0, atol=1e-5)
    fitted.expected.bias[COMPONENTS] = 1.5  # the first component of the second band
    moved = by_band(fitted(pixels, nothing, joint, AS_TRAINED), fitted.mean)[0] - light
    fitted.expected.bias.zero_()
    torch.testing.assert_close(
        moved[1], 1.5 * fitted.variance[1, 0].sqrt() * fitted.components[0], rtol=0, atol=1e-3
    )
    assert not moved[[0, 2]].any()


def test_bands_and_pixels_without_data_count_for_nothing():
    """They are what the other bands are, and one of few galaxies nearly so."""
    galaxies, noise = family(60, 3)
    pixels, known = galaxies + noise, torch.ones_like(galaxies).unflatten(2, (BANDS, 64))
    known[:, :, 0], known[2:, :, 2], known[:, 5, 1] = 0, 0, 0
    known = known.flatten(2)
    state, fit = torch.get_rng_state(), ImageFit(BANDS, WIDTH)
    torch.set_rng_state(state)
    fit.fit(pixels * known, known)
    assert torch.equal(torch.get_rng_state(), state)
    other = ImageFit(BANDS, WIDTH)
    other.fit(pixels.where(known > 0, 1e4), known)
    for ours, theirs in zip(fit.buffers(), other.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    torch.testing.assert_close(fit.variance[0], fit.variance.mean(0), rtol=0.2, atol=0.1)
    torch.testing.assert_close(fit.mean[2], fit.mean[1], rtol=0, atol=0.6)
    torch.testing.assert_close(fit.components @ fit.components.T, torch.eye(COMPONENTS), rtol=0, atol=1e-4)


def test_it_is_the_same_of_galaxies_that_are_all_turned_by_a_quarter(fitted):
    galaxies, noise = family(200, 5)
    fits = []
    for pixels in (galaxies + noise, patches(torch.rot90(unpatch(galaxies + noise), 1, (2, 3)))):
        fit = copy.deepcopy(fitted)
        fit.measure(pixels, torch.ones_like(pixels))
        fits.append(fit)
    torch.testing.assert_close(fits[0].mean, fits[1].mean, rtol=0, atol=1e-4)
    first = [fit.variance[:, :6] for fit in fits]  # the last ones are of noise, and are found roughly
    torch.testing.assert_close(*first, rtol=0.01, atol=0.02)


def test_two_galaxies_are_enough():
    galaxies, noise = family(2, 4)
    fit = ImageFit(BANDS, WIDTH)
    fit.fit(galaxies + noise, torch.ones_like(galaxies))
    assert fit(galaxies, torch.ones_like(galaxies), torch.zeros(2, WIDTH), AS_TRAINED).isfinite().all()


def test_three_averages_are_that_over_the_eight_symmetries():
    image = torch.randn(1, 1, 64, 64)
    turned = [torch.rot90(each, turn, (2, 3)) for each in (image, image.flip(3)) for turn in range(4)]
    values = patches(image).flatten()
    for turn in turns():
        values = (values + values[turn]) / 2
    torch.testing.assert_close(values, patches(torch.stack(turned).mean(0)).flatten())
