"""Depth, seeing and extinction: noise by hand, what is told or not told, and what a model makes of it."""

import math

import pytest
import torch
from conftest import TINY

from mmae.layers.conditions import SHALLOWEST, Conditions, border, sky_noise, unknown
from mmae.layers.patches import known_pixels, patches
from mmae.models.masking import Masks, random_noise, shallower
from mmae.models.mmae import Model

BANDS = 3
SIGMA = torch.tensor([0.5, 1.0, 4.0])


def skies(number=200, seed=0):
    """Noise of SIGMA in three bands: (number, 3, 64, 64)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(number, BANDS, 64, 64, generator=generator) * SIGMA[:, None, None]


def seen(image):
    image, known = known_pixels(image)
    return patches(image), patches(known)


def test_the_noise_of_an_image_is_that_of_its_border():
    """28 of the 64 patches; a galaxy in the middle, a star at the side and a hole do not count."""
    assert len(border()) == 28
    image = skies()
    expected = sky_noise(*seen(image), border())
    torch.testing.assert_close(expected.mean(0), SIGMA, rtol=0.02, atol=0)
    assert (expected / SIGMA).std() < 0.04  # of the median of 28, of 64 pixels each
    image[:, :, 8:56, 8:56] += 1000 * torch.rand(48, 48)
    torch.testing.assert_close(sky_noise(*seen(image), border()), expected)
    image[:, :, 8:24, :8] = 1e4 * torch.rand(16, 8)
    image[:, :, 56:] = math.nan
    changed = sky_noise(*seen(image), border())
    torch.testing.assert_close(changed.mean(0), SIGMA, rtol=0.05, atol=0)
    image[:, 1] = math.nan
    assert sky_noise(*seen(image), border())[:, 1].isnan().all()


def fitted(told):
    conditions = Conditions(BANDS)
    conditions.fit(*seen(skies() / SIGMA[:, None, None]), torch.ones(BANDS), told)
    return conditions


def test_what_was_told_in_training_is_told_in_units_of_its_scatter_and_nothing_else():
    """ln FWHM of 0.6, 0.7 and 0.8 arcsec by turns; E(B - V) was never known, nor the seeing of a band."""
    told = unknown(skies())
    told[:, BANDS : BANDS + 2] = torch.tensor([0.6, 0.7, 0.8]).repeat(67)[:200, None]
    conditions = fitted(told)
    pixels, known = seen(skies(4, seed=1) / SIGMA[:, None, None])
    query = unknown(skies(4))
    query[1:, BANDS:] = torch.tensor([0.7, 0.8, 0.9, 0.1])
    noise, features = conditions(pixels, known, torch.ones(BANDS), query)
    assert features.shape == (4, conditions.features)
    values, absent = features[:, BANDS : 2 * BANDS + 1], features[:, 2 * BANDS + 1 :]
    assert absent[0].tolist() == [1, 1, 0, 0]
    assert (absent[1:] == 0).all()
    expected = (math.log(0.8) - torch.tensor([0.6, 0.7, 0.8]).log().mean()) / told[:, BANDS].log().std()
    assert values[1].tolist() == pytest.approx([values[1, 0].item(), expected.item(), 0, 0], rel=0.02)
    assert values[1, 0].abs() < 0.2  # 0.7 is nearly the mean
    torch.testing.assert_close(noise, torch.ones(4, BANDS), atol=0.1, rtol=0)


def test_depth_is_told_between_that_of_training_and_three_times_its_noise():
    conditions = fitted(unknown(skies()))
    pixels, known = seen(skies(50, seed=1) / SIGMA[:, None, None])
    noises = {
        factor: conditions(factor * pixels, known, torch.ones(BANDS), unknown(skies(50)))[0].median().item()
        for factor in (0.3, 1, 2, 2.9, 10)
    }
    assert noises[0.3] == pytest.approx(1, abs=0.12)
    assert [noises[factor] for factor in (1, 2, 2.9)] == pytest.approx([1, 2, 2.9], rel=0.03)
    assert noises[10] == pytest.approx(SHALLOWEST, rel=0.12)
    given = unknown(skies(50))
    given[:, :BANDS] = 2.0
    noise, _ = conditions(pixels, known, torch.ones(BANDS), given)
    torch.testing.assert_close(noise, torch.full((50, BANDS), 2.0))


def test_noise_is_added_to_what_the_image_has_however_the_batch_is_divided():
    image, conditions = skies(60), unknown(skies(60))
    image[3, 1] = math.nan
    conditions[:30, :BANDS] = SIGMA
    tokens = torch.zeros(60, 64, dtype=torch.bool)
    masks = Masks.of_tokens(tokens, tokens, tokens, BANDS)
    factor = torch.ones(60)
    factor[::2] = 3.0
    masks = masks._replace(noise=factor, noise_seed=torch.arange(60))
    noisy, told = shallower(image, conditions, masks)
    assert torch.equal(noisy[1::2].nan_to_num(), image[1::2].nan_to_num())
    noise = sky_noise(*seen(noisy[::2]), border())
    torch.testing.assert_close(noise.nanmean(0), 3 * SIGMA, rtol=0.03, atol=0)
    torch.testing.assert_close(told[:30:2, :BANDS].mean(0), 3 * SIGMA, rtol=0.03, atol=0)
    assert told[30:, :BANDS].isnan().all()
    assert noisy[3, 1].isnan().all()
    halves = [
        shallower(image[rows], conditions[rows], masks.rows(rows))[0] for rows in (slice(17), slice(17, 60))
    ]
    torch.testing.assert_close(torch.cat(halves), noisy, equal_nan=True, rtol=0, atol=0)


def test_a_share_of_the_galaxies_is_made_noisier():
    factor = random_noise(4000, 0.25, torch.Generator().manual_seed(0))
    assert (factor > 1).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert (factor >= 1).all()
    assert factor.max() <= SHALLOWEST
    assert (random_noise(100, 0.0, torch.Generator().manual_seed(0)) == 1).all()


def test_a_model_hears_what_it_is_told():
    torch.manual_seed(0)
    model = Model(TINY["mmae"]).eval()
    image = torch.randn(40, 5, 64, 64, generator=torch.Generator().manual_seed(1))
    told = unknown(image)
    told[:, 5:] = 0.5 + torch.rand(40, 6, generator=torch.Generator().manual_seed(2))
    model.fit(image, told, [1.0] * 5, torch.rand(len(image)))
    model.photometric_pdf.up.data += 0.1  # as after some training; at first nothing is made of it
    tokens, spectra = torch.zeros(40, 64, dtype=torch.bool), torch.ones(40, 48, dtype=torch.bool)

    def logits(conditions):
        with torch.inference_mode():
            return model(image, torch.zeros(40, 1296), tokens, spectra, conditions=conditions).logits

    untold = logits(None)
    torch.testing.assert_close(logits(unknown(image)), untold)
    for column in (0, 7, 10):  # noise and seeing of a band, and extinction
        one = unknown(image)
        one[:, column] = 1.2
        assert (logits(one) - untold).abs().amax(1).min() > 1e-6
