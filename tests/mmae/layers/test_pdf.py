"""p(z) by hand-worked numbers, by numerical integration, and by draws from it."""

import math

import numpy as np
import pytest
import torch

from mmae.layers import pdf
from mmae.layers.pdf import Grid

GRID = Grid(300, 5.0)


def tensor(*numbers):
    return torch.tensor(numbers, dtype=torch.float64)


def gaussian(mean, sigma, grid=GRID):
    """Mass of Gaussians in ln(1 + z), cut off at the ends: (N, K)."""
    x = torch.log1p(grid.centres)
    return (-0.5 * ((x - torch.log1p(mean)[:, None]) / sigma[:, None]) ** 2).softmax(1)


def two_peaks(share):
    narrow = tensor(0.02)
    return (1 - share) * gaussian(tensor(0.5), narrow) + share * gaussian(tensor(2.0), narrow)


@pytest.fixture(scope="module")
def many():
    """2,000 Gaussians of different means and widths, and a redshift drawn from each."""
    rng = np.random.default_rng(1)
    mean, sigma = rng.uniform(0.05, 3, 2000), rng.uniform(0.01, 0.3, 2000)
    mass = gaussian(torch.from_numpy(mean), torch.from_numpy(sigma))
    return mass, pdf.quantiles(mass, GRID, torch.from_numpy(rng.uniform(size=(2000, 1))))[:, 0]


def close(a, b, **tolerance):
    np.testing.assert_allclose(torch.as_tensor(a), torch.as_tensor(b), **tolerance)


def test_two_bins_by_hand():
    """Edges 0, 1, 3: ln 2 wide each. 3/4 of the mass below redshift 1."""
    grid, mass = Grid(2, 3.0), tensor([0.75, 0.25])
    close(grid.edges, tensor(0, 1, 3), atol=1e-12)
    close(grid.centres, tensor(2**0.5 - 1, 2**1.5 - 1))
    close(pdf.cdf(mass, grid, tensor(2**0.5 - 1)), 0.375)
    close(pdf.quantiles(mass, grid, tensor([0.375, 0.75, 1.0])), tensor([2**0.5 - 1, 1, 3]))
    close(pdf.density(mass, grid), tensor([0.75 / math.log(2) / 2**0.5, 0.25 / math.log(2) / 2**1.5]))
    close(pdf.mean(mass, grid), 0.75 * (2**0.5 - 1) + 0.25 * (2**1.5 - 1))


def test_recalibration_by_hand():
    """Half of all galaxies lie in the first quarter of their p(z): so that quarter gets half the mass."""
    mass = torch.tensor([[0.25, 0.25, 0.5]] * 2).double()
    levels = torch.tensor([[0.0, 0.25, 1.0], [0.0, 0.5, 1.0]]).double()
    close(
        pdf.recalibrated(mass, levels), torch.tensor([[1 / 2, 1 / 6, 1 / 3], [1 / 4, 1 / 4, 1 / 2]]).double()
    )
    uniform = torch.linspace(0, 1, 9).double()[None]
    close(pdf.recalibrated(tensor([0.25, 0.75]), uniform), tensor([0.25, 0.75]))
    close(pdf.entropy(torch.tensor([[0.5, 0.5, 0.0]])), torch.tensor([math.log(2)]))


def test_soft_labels_of_a_p_of_z_peak_at_the_redshift():
    z = tensor(0.0, 0.3, 1.7, 5.0)
    target = GRID.soft_labels(z)
    close(target.sum(1), 1)
    assert target.argmax(1).tolist() == GRID.bin(z).tolist()
    close(torch.expm1(target @ torch.log1p(GRID.centres))[1:3], z[1:3], atol=1e-3)


def test_quantiles_and_cdf_are_inverse(many):
    mass, _ = many
    levels = torch.linspace(0.01, 0.99, 15, dtype=torch.float64)
    z = pdf.quantiles(mass, GRID, levels.expand(2000, -1))
    assert (z.diff(dim=1) > 0).all()
    for k, level in enumerate(levels):
        close(pdf.cdf(mass, GRID, z[:, k]), level, atol=1e-9)


def test_the_cdf_of_draws_is_uniform_and_that_of_other_redshifts_is_not(many):
    mass, z = many
    uniform = (np.arange(2000) + 0.5) / 2000
    assert np.abs(np.sort(pdf.cdf(mass, GRID, z)) - uniform).max() < 1.63 / 2000**0.5  # KS, 1 %
    assert np.abs(np.sort(pdf.cdf(mass, GRID, z * 1.05)) - uniform).max() > 0.1


def test_a_narrow_p_of_z_is_its_redshift():
    mass = gaussian(tensor(0.3, 1.7), tensor(0.004, 0.004))
    z, risk = pdf.best(mass, GRID)
    close(z, tensor(0.3, 1.7), rtol=2e-3)
    assert (risk < 0.002).all()
    close(pdf.spread(mass, GRID, z), 0.004 * (1 + z), rtol=0.1)
    close(pdf.confidence(mass, GRID, z), 1, atol=1e-6)
    first, second = pdf.modes(mass, GRID)
    close(first, tensor(0.3, 1.7), atol=0.02)
    assert second.isnan().all()


def test_of_two_peaks_the_best_redshift_is_the_likelier_one_and_no_mean():
    for share, expected, other in ((0.3, 0.5, 2.0), (0.7, 2.0, 0.5)):
        z, risk = pdf.best(two_peaks(share), GRID)
        assert z.item() == pytest.approx(expected, abs=0.02)
        confidence = pdf.confidence(two_peaks(share), GRID, z).item()
        assert confidence == pytest.approx(max(share, 1 - share), abs=0.15)
        assert 0.25 < risk.item() < 0.4
        modes = sorted(mode.item() for mode in pdf.modes(two_peaks(share), GRID))
        assert modes == [pytest.approx(z, abs=0.02) for z in sorted((expected, other))]
    assert pdf.modes(two_peaks(0.01), GRID)[1].isnan().all()  # too low to count


def test_a_ripple_on_a_peak_is_no_other_peak():
    mass = gaussian(tensor(0.5), tensor(0.05))
    ripple = 1 + 0.2 * torch.cos(torch.arange(300) * math.pi)
    assert pdf.modes(mass * ripple, GRID)[1].isnan().all()


def test_the_risk_is_the_least_of_all_redshifts(many):
    mass, _ = many
    z, risk = pdf.best(mass[:50], GRID)
    for trial in (z - 0.02, z + 0.02, z * 1.2, torch.ones(50)):
        dz = (trial[:, None] - GRID.centres) / (1 + GRID.centres)
        assert ((mass[:50] * (1 - 1 / (1 + (dz / 0.15) ** 2))).sum(1) > risk - 1e-4).all()


def test_a_p_of_z_in_a_single_bin_is_as_wide_as_the_bin_and_of_no_negative_risk():
    mass = torch.eye(GRID.bins, dtype=torch.float32)
    _, risk = pdf.best(mass, GRID)
    assert (risk >= 0).all()
    centres, widths = GRID.centres.float(), GRID.edges.diff().float()
    close(pdf.spread(mass, GRID, centres), widths / 12**0.5, rtol=1e-3)
