"""Spectra are normalised as the paper's released code does it, to nine digits."""

import json

import numpy as np
import pytest

from catalogs.store.spectra import normalise, pool, pooled_noise


@pytest.fixture
def random():
    rng = np.random.default_rng(5)
    flux, ivar = rng.normal(3, 2, (4, 500)), rng.uniform(0.1, 2, (4, 500))
    ivar[:, 100:120] = 0
    return flux, ivar


def test_values_agree_with_the_released_code(reference):
    golden = json.loads((reference / "golden.json").read_text())["spectrum_normalisation"]
    k = np.arange(7783)
    flux = 2 + np.sin(0.002 * k) + 0.3 * np.sin(0.9 * k)
    flux[5000], flux[0] = 0, 5e4
    ivar = 1 + 0.5 * np.cos(0.01 * k)
    ivar[100:140], ivar[0] = 0, 1e-6
    normalised = normalise(flux, ivar)
    pooled = pool(normalised)
    assert len(pooled) == golden["pooled_length"]
    for name, values in (("normalised", normalised), ("pooled", pooled)):
        for index, value in golden[name].items():
            assert values[int(index)] == pytest.approx(value, rel=1e-9, abs=0), (name, index)


def test_three_pixels_by_hand():
    # mean (1 * 1 + 3 * 5) / 4 = 4; variance (1 * 9 + 3 * 1) / 4 = 3; the middle pixel has no weight
    np.testing.assert_allclose(normalise([1, 7, 5], [1, 0, 3]), [-3 / 3**0.5, 0, 1 / 3**0.5], rtol=1e-15)


def test_noise_of_three_pixels_by_hand():
    # rms sqrt(3), as above: variances 1 / (1 * 3) and 1 / (3 * 3); the middle pixel is invalid
    np.testing.assert_allclose(pooled_noise([1, 7, 5], [1, 0, 3], 1), [1 / 3**0.5, np.nan, 1 / 3], rtol=1e-15)
    # mean (4 + 0) / 4 = 1, variance (9 + 3) / 4 = 3; of a mean of two, (1 / 3 + 1 / 3) / 4
    noise = pooled_noise([4, 1e-9, 0, 1e-9, 1e-9], [1, 1, 0, 1, 1], 2)
    np.testing.assert_allclose(noise, [6**-0.5, np.nan], rtol=1e-6)


def test_noise_is_the_scatter_of_spectra_drawn_again(random):
    flux, ivar = random
    sigma = np.where(ivar > 0, ivar, np.inf) ** -0.5 / 20  # mean and rms hardly change
    draws = flux + sigma * np.random.default_rng(6).standard_normal((400, *flux.shape))
    scatter = pool(normalise(draws, ivar * 400), 6).std(0)
    noise = pooled_noise(flux, ivar * 400, 6)
    unknown = np.isnan(noise)
    assert unknown.sum() == 4 * 4  # pixels 100 to 119 are in the means of pixels 96 to 119
    assert scatter[~unknown] / noise[~unknown] == pytest.approx(1, abs=0.16)
    assert np.mean(scatter[~unknown] / noise[~unknown]) == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("flux", "ivar"),
    [
        ([1.0, 2, 3], [0.0, 0, 0]),
        ([0.0, 0, 0], [1.0, 1, 1]),
        ([np.nan] * 3, [1.0] * 3),
        ([1.0] * 3, [np.nan] * 3),
        ([1.0, 2, 3], [-1.0, -1, -1]),
        ([4.0, 4, 4], [1.0, 2, 3]),  # valid, and without any contrast
    ],
    ids=["no weight", "no flux", "flux NaN", "ivar NaN", "ivar negative", "constant"],
)
def test_a_spectrum_without_valid_pixels_or_contrast_is_all_zeros(flux, ivar):
    assert normalise(flux, ivar).tolist() == [0, 0, 0]
    assert np.isnan(pooled_noise(flux, ivar, 1)).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["flux", "ivar"])
def test_values_that_are_not_finite_have_no_weight(random, name, value):
    flux, ivar = random
    masked = ivar.copy()
    masked[:, 7] = 0
    invalid = {"flux": flux.copy(), "ivar": ivar.copy()}
    invalid[name][:, 7] = value
    np.testing.assert_array_equal(normalise(**invalid), normalise(flux, masked))


def test_unit_and_zero_of_flux_and_unit_of_ivar_do_not_matter(random):
    flux, ivar = random
    np.testing.assert_allclose(normalise(1e-17 * flux, 1e34 * ivar), normalise(flux, ivar), rtol=1e-9)
    np.testing.assert_allclose(normalise(flux + 50, ivar), normalise(flux, ivar), rtol=0, atol=1e-12)


def test_valid_pixels_have_weighted_mean_0_and_rms_1(random):
    flux, ivar = random
    result = normalise(flux, ivar)
    np.testing.assert_allclose((ivar * result).sum(-1), 0, atol=1e-10)
    np.testing.assert_allclose((ivar * result**2).sum(-1) / ivar.sum(-1), 1, rtol=1e-12)
    assert not result[:, 100:120].any()


def test_an_artefact_at_an_edge_becomes_the_median(random):
    flux, ivar = random
    flux[:, -1], ivar[:, -1] = 1e6, 1e-9
    result = normalise(flux, ivar)
    assert (np.abs(result) < 100).all()
    for spectrum, weight in zip(result, ivar, strict=True):
        # the edge pixel, among the valid ones, moves the median by half a step at most
        assert spectrum[-1] == pytest.approx(np.median(spectrum[weight > 0]), abs=0.02)


def test_a_spectrum_does_not_depend_on_its_batch(random):
    flux, ivar = random
    for k in range(len(flux)):
        np.testing.assert_array_equal(normalise(flux[k], ivar[k]), normalise(flux, ivar)[k])


@pytest.mark.parametrize("pixels", [7781, 7783])
def test_both_grids_of_desi_pool_to_259(pixels):
    assert pool(np.zeros((2, pixels))).shape == (2, 259)


def test_pooling_is_a_mean_over_30_and_drops_the_rest():
    assert pool(np.arange(65.0)).tolist() == [14.5, 44.5]
    wave = 3600 + 0.8 * np.arange(65)
    np.testing.assert_allclose(pool(wave), [3600 + 0.8 * 14.5, 3600 + 0.8 * 44.5])
