"""p(z) stretched by what an object is."""

import pytest
import torch

from mmae.bundles.stretch import MOST_LOG, PRIOR, TERMS, Stretch, fit, stretched, three_of, unlikelihood
from mmae.layers import pdf
from mmae.layers.pdf import Grid

GRID = Grid(200, 3.0)
STRETCH = Stretch(5, GRID.bins, GRID.step, 32)
WHOLE = 0b11111


def galaxies(n, seed):
    """p(z) of one width, and redshifts: blue ones scatter twice as much as it says, red ones half as much."""
    rng = torch.Generator().manual_seed(seed)
    central = 3 + torch.randn(n, 5, generator=rng)
    blue = central[:, 2] < central[:, 0]
    centre = 0.4 + 0.5 * torch.rand(n, generator=rng)
    x = torch.log1p(GRID.centres).float()
    mass = (-0.5 * ((x - centre[:, None]) / 0.03) ** 2).softmax(1)
    error = torch.where(blue, 0.06, 0.015) * torch.randn(n, generator=rng)
    return mass, central, blue, torch.expm1((centre + error).clamp(min=0))


def held(mass, redshift, rows):
    pit = pdf.cdf(mass, GRID, redshift)[rows]
    return float(((pit - 0.5).abs() < 0.34).float().mean())


def test_a_stretch_is_kumaraswamys():
    mass = torch.full((1, 4), 0.25)
    found = stretched(mass, torch.tensor([[2.0, 3.0]])).cumsum(1)[0]
    assert found.tolist() == pytest.approx([1 - (1 - f**2) ** 3 for f in (0.25, 0.5, 0.75, 1)])
    assert stretched(mass, torch.ones(1, 2)).tolist() == [pytest.approx([0.25] * 4)]


def test_the_tail_of_a_narrow_p_of_z_is_exact_in_single_precision():
    """At either end F is within rounding of 0 or 1, and its slope is infinite there."""
    x = torch.log1p(GRID.centres)
    mass = (-0.5 * ((x - torch.tensor([[0.1], [0.5], [1.3]])) / 0.01) ** 2).softmax(1)
    for a, b in ((0.3, 0.3), (3.0, 0.3), (0.3, 3.0), (3.0, 3.0)):
        shape = torch.tensor([[a, b]], dtype=torch.float64)
        exact, found = stretched(mass, shape), stretched(mass.float(), shape.float())
        torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=0)
        torch.testing.assert_close(found.sum(1), torch.ones(3))


def test_the_gradient_of_the_fit_is_that_of_its_likelihood():
    generator = torch.Generator().manual_seed(2)
    terms = torch.randn(40, TERMS, dtype=torch.float64, generator=generator)
    u = torch.rand(40, dtype=torch.float64, generator=generator)
    weights = 0.1 * torch.randn(TERMS, 2, dtype=torch.float64, generator=generator)
    assert ((terms @ weights).abs() > MOST_LOG).any()  # and some are not
    weights.requires_grad_()
    total, gradient = unlikelihood(weights, terms, u)
    total.backward()
    torch.testing.assert_close(gradient, weights.grad, rtol=1e-12, atol=1e-9)


def test_blue_and_red_galaxies_get_the_width_of_their_own_errors():
    mass, central, blue, redshift = galaxies(4000, 0)
    assert held(mass, redshift, blue) < 0.45
    assert held(mass, redshift, ~blue) > 0.9
    terms = fit(STRETCH, mass, central, WHOLE, pdf.cdf(mass, GRID, redshift))
    mass, central, blue, redshift = galaxies(4000, 1)
    after = STRETCH.by(terms, mass, central, WHOLE)
    # a quadratic form is no step at blue = red: far from it
    far = (central[:, 2] - central[:, 0]).abs() > 0.7
    assert held(after, redshift, blue & far) == pytest.approx(0.68, abs=0.12)
    assert held(after, redshift, ~blue & far) == pytest.approx(0.68, abs=0.12)


def test_where_p_of_z_is_right_or_galaxies_are_few_it_stays():
    mass, central, _, _ = galaxies(4000, 2)
    rng = torch.Generator().manual_seed(3)
    right = torch.rand(4000, generator=rng)  # the PIT of a p(z) that is right
    terms = fit(STRETCH, mass, central, WHOLE, right)
    moved = STRETCH.by(terms, mass, central, WHOLE).cumsum(1) - mass.cumsum(1)
    assert moved.abs().amax(1).mean() < 0.03
    some = fit(STRETCH, mass[:60], central[:60], WHOLE, right[:60] ** 2)
    assert some.weights[1:].abs().max() < 60 / PRIOR
    few = fit(STRETCH, mass[:40], central[:40], WHOLE, right[:40] ** 2)
    assert not few.weights.any()


def test_what_is_in_the_program_is_what_was_fitted():
    """And between two depths half of either."""
    stretch = Stretch(5, GRID.bins, GRID.step, 32)
    mass, central, _, redshift = galaxies(500, 4)
    terms = fit(stretch, mass, central, WHOLE, pdf.cdf(mass, GRID, redshift))
    for name, values in terms._asdict().items():
        getattr(stretch, name)[0, WHOLE] = values
    sets = torch.full((500,), WHOLE)
    script = torch.jit.script(stretch)
    found = script(mass, central, sets, torch.zeros(500))
    torch.testing.assert_close(found, stretch.by(terms, mass, central, WHOLE))
    shallowest = script(mass, central, sets, torch.ones(500))
    torch.testing.assert_close(shallowest, mass)


def test_colours_are_of_the_bands_that_are_there():
    assert three_of(torch.tensor([1, 1, 1, 1, 1]).bool()) == [0, 2, 4]
    assert three_of(torch.tensor([0, 1, 0, 0, 1]).bool()) == [1, 4, 4]
    assert three_of(torch.zeros(5).bool()) == [0, 0, 0]
