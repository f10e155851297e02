"""Redshifts from visible pixels of spectra: the likelihood is that of the fit, and the peak is right."""

import math

import pytest
import torch

from mmae.layers.pdf import Grid
from mmae.layers.rest_frame import GAIN, LOG_STEP, RestFrame
from mmae.layers.template_fit import INDEPENDENT, TemplateFit, on_log_grid

GRID = Grid(100, 4.5)
PIXELS = 1296


@pytest.fixture
def frame():
    """Three random templates with small expected coefficients."""
    torch.manual_seed(3)
    frame = RestFrame(8, templates=3, pixels=PIXELS, z_max=GRID.z_max)
    frame.templates.data.normal_(std=1 / GAIN)
    return frame.requires_grad_(False)


def spectrum_at(frame, coefficients, redshift):
    return (frame.observed(torch.tensor([redshift]))[0] @ coefficients).float()


def quarter():
    """Pixels of which 12 of the 48 tokens are visible."""
    shown = torch.zeros(48)
    shown[torch.randperm(48)[:12]] = 1
    return shown.repeat_interleave(27)


def test_the_fit_is_that_of_the_normal_equations(frame):
    """At one shift, by least squares over the pixels."""
    fit, joint, shown = TemplateFit(frame, GRID), torch.randn(8), quarter()
    spectrum = torch.randn(PIXELS)
    tried = torch.zeros(len(fit.redshift), dtype=torch.bool)
    tried[1234] = True
    flux, weight = on_log_grid(frame.log_wave.double().exp(), spectrum, shown)
    seen = GAIN * frame.templates.double()[:, 1234 : 1234 + len(flux)].t()  # (P, 3)
    expected = frame.coefficients(joint[None])[0].double()
    ridge = frame.log_weight.double().exp()
    # the prior is three more pixels, each of which measures one coefficient
    design = torch.cat([seen * weight.sqrt()[:, None], torch.diag(ridge.sqrt())])
    target = torch.cat([flux * weight.sqrt(), ridge.sqrt() * expected])
    best = torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
    chi2 = (target - design @ best).square().sum()
    expected = (-0.5 * INDEPENDENT * shown.sum() * chi2.log())[None].double()
    torch.testing.assert_close(fit.log_likelihood(joint, spectrum, shown, tried), expected)


@pytest.mark.parametrize("redshift", [0.05, 0.731, 3.2])
def test_a_quarter_of_a_spectrum_gives_the_redshift(frame, redshift):
    shown = quarter()
    spectrum = spectrum_at(frame, torch.tensor([1.0, -2.0, 0.5]), redshift) + 0.3 * torch.randn(PIXELS)
    spectrum = torch.where(shown > 0, spectrum, 50.0)  # hidden pixels are not used
    logits, peak = TemplateFit(frame, GRID).sharpened(torch.zeros(GRID.bins), torch.zeros(8), spectrum, shown)
    assert abs(math.log1p(peak) - math.log1p(redshift)) <= LOG_STEP
    assert logits.softmax(0)[GRID.bin(torch.tensor(redshift))] > 0.99


def test_what_p_of_z_rules_out_stays_so(frame):
    """The redshift of the spectrum is 0.731; p(z) of the image is 2, almost surely."""
    spectrum, logits = spectrum_at(frame, torch.ones(3), 0.731), torch.zeros(GRID.bins)
    logits[GRID.bin(torch.tensor(2.0))] = 30.0
    sharp, peak = TemplateFit(frame, GRID).sharpened(logits, torch.zeros(8), spectrum, torch.ones(PIXELS))
    assert peak == pytest.approx(2.0, abs=3 * GRID.step)
    assert sharp.argmax() == logits.argmax()
