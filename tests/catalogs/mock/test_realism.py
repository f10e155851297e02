"""The mock survey compared with the real sky; values and tolerances are those of bench_mock_realism.py.

Fewer objects are drawn than in the benchmark: enough for medians and for the photometric baseline.
"""

import bench_mock_realism as realism
import numpy as np
import pytest

from catalogs.mock.objects import TRAINING, draw
from catalogs.mock.workers import workers


@pytest.fixture(scope="module")
def population():
    return realism.population()


@pytest.fixture(scope="module")
def measured():
    with workers(2) as pool:
        return realism.measured(pool, 3000)


def agree(rows):
    assert not [f"{row.what}: {row.mock:.3f}, not {row.real:.3f}" for row in rows if not row.agrees]


def test_redshifts_and_magnitudes_are_those_of_the_paper(population):
    agree(realism.redshifts_and_magnitudes(population))


def test_colours_are_those_of_real_galaxies_at_their_redshifts(real_data, population):
    rows = realism.colours(real_data, population)
    assert len(rows) == 5 * 4 + 3 * 3 + 2 * 3
    agree(rows)


def test_noise_of_images_and_spectra(real_data):
    objects = draw(realism.SEED, TRAINING, range(150), artefacts=0)
    faint = objects.magnitudes[:, realism.I_BAND] > 19.5
    wave = np.linspace(3600, 9824, objects.flux.shape[1])
    agree(realism.sky(objects.image[faint]))
    agree(realism.spectral_noise(real_data, wave, objects.ivar[faint]))
    agree([realism.signal(real_data, objects.flux, objects.ivar)])


@pytest.mark.slow
def test_sizes_are_those_of_real_galaxies_at_their_magnitudes(real_data, measured):
    _, quasar, measures = measured
    agree(realism.sizes(real_data, quasar, measures))


@pytest.mark.slow
def test_photometry_alone_gives_neither_trivial_nor_hopeless_redshifts(measured):
    redshift, _, measures = measured
    assert 0.02 < realism.baseline(redshift, measures) < 0.05
