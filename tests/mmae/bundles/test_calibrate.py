"""The width of p(z) is fitted to the errors of redshifts."""

import dataclasses
import math

import pytest
import torch
from conftest import TINY

from mmae.bundles import calibrate
from mmae.bundles.calibrate import Widths, calibrate_sets, temperature, width_of
from mmae.bundles.image_pdf import ImagePdf
from mmae.bundles.program import estimates
from mmae.layers import pdf
from mmae.layers.conditions import SHALLOWEST
from mmae.layers.pdf import Grid
from mmae.models.families import build


def test_p_of_z_is_made_as_wide_as_its_errors():
    """Redshifts drawn from Gaussians twice as wide as the p(z): the temperature is four."""
    grid, rng = Grid(200, 3.0), torch.Generator().manual_seed(1)
    centre = 0.4 + 0.6 * torch.rand(4000, generator=rng)  # in ln(1 + z)
    x = torch.log1p(grid.centres).float()
    logits = -0.5 * ((x - centre[:, None]) / 0.01) ** 2
    redshift = torch.expm1(centre + 0.02 * torch.randn(4000, generator=rng))
    assert temperature(logits, grid.bin(redshift)) == pytest.approx(4, rel=0.05)
    assert temperature(logits / 4, grid.bin(redshift)) == pytest.approx(1, rel=0.05)


def test_narrow_and_wide_p_of_z_cover_what_they_say_though_their_tails_are_long():
    """Gaussians, too wide where they are narrow and too narrow where they are wide; a tenth is far off."""
    rng = torch.Generator().manual_seed(1)
    grid = dataclasses.replace(TINY["mmae"], bins=320).grid
    program = ImagePdf(build(dataclasses.replace(TINY["mmae"], bins=320)))
    n = 16000
    is_wide = torch.rand(n, generator=rng) < 0.5
    claimed, true = torch.where(is_wide, 0.05, 0.03), torch.where(is_wide, 0.06, 0.02)
    true = torch.where(torch.rand(n, generator=rng) < 0.1, 5 * true, true)
    centre = 0.6 + 0.3 * torch.rand(n, generator=rng)
    redshift = torch.expm1((centre + true * torch.randn(n, generator=rng)).clamp(min=0))
    x = torch.log1p(grid.centres).float()
    logits = -0.5 * ((x - centre[:, None]) / claimed[:, None]) ** 2
    first, rest = slice(0, n // 2), slice(n // 2, n)
    central = torch.zeros(n, 5)
    widths = Widths(32, 5, grid)
    mass = logits.softmax(1)
    widths.fits[0][7] = width_of(
        mass[first], central[first], torch.zeros(n // 2), 7, redshift[first], grid, widths.stretch
    )
    widths.give(program)
    of_the_set, deep = torch.full((n - n // 2,), 7), torch.zeros(n - n // 2)
    calibrated = program.calibrated(logits[rest], of_the_set, deep, central[rest])
    pit = pdf.cdf(calibrated, grid, redshift[rest])
    for inside, tolerance in ((0.68, 0.03), (0.95, 0.02)):
        covered = ((pit - 0.5).abs() < inside / 2).float()
        for half in (is_wide[rest], ~is_wide[rest]):
            assert covered[half].mean().item() == pytest.approx(inside, abs=tolerance)


def test_a_shallow_survey_is_calibrated_as_it_is():
    """Its images are twice as noisy as those that the model calls deep, as after --from another survey's."""
    torch.manual_seed(0)
    model = build(TINY["mmae"])
    model.conditions.highest.fill_(math.log(SHALLOWEST))
    image, redshift = 2 * torch.randn(64, 5, 64, 64), torch.rand(64)
    program = ImagePdf(model)
    calibrate_sets(program, image, redshift)
    shallow, whole = estimates(program, image).shallow, torch.full((64,), 31)
    assert shallow.median().item() == pytest.approx(math.log(2) / math.log(SHALLOWEST), abs=0.05)
    assert program.way(whole, shallow).median() < 0.05
    torch.testing.assert_close(program.way(whole, torch.ones(64)), torch.ones(64))


def test_a_survey_without_a_band_is_calibrated_by_its_own_galaxies(monkeypatch):
    """Those of another survey, with that band, have another depth; they count where there are too few."""
    enough = 32  # calibrations take as long as they have images
    monkeypatch.setattr(calibrate, "LEAST_ROWS", enough)
    rng, few = torch.Generator().manual_seed(1), enough - 1
    torch.manual_seed(0)
    model = build(TINY["mmae"])
    image = torch.randn(3 * enough, 5, 64, 64, generator=rng)
    image[enough:, 1] = torch.nan
    redshift = torch.rand(len(image), generator=rng)

    def levels_of(rows):
        program = ImagePdf(model)
        calibrate_sets(program, image[rows], redshift[rows])
        return program.levels[0, 0b11101], program.levels[0, 0b11111]

    everything, own = levels_of(slice(None)), levels_of(slice(enough, None))
    assert torch.equal(everything[0], own[0])
    whole, both = levels_of(slice(enough)), levels_of(slice(enough + few))
    assert torch.equal(whole[1], everything[1])
    assert not torch.equal(whole[0], both[0])
    assert not torch.equal(both[0], own[0])
