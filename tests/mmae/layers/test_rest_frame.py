"""Spectra from templates in the rest frame: observed wavelengths of lines, and updates of coefficients."""

import pytest
import torch

from mmae.layers.rest_frame import GAIN, LOG_STEP, RestFrame

HALPHA = 6564.6


def with_one_line(rest_wave):
    """A single template with coefficient 1: a line of height 1 and three grid points wide."""
    frame = RestFrame(8, templates=1, pixels=1296, z_max=4.5).double()
    for parameter in frame.coefficients.parameters():
        parameter.data.zero_()
    frame.coefficients[2].bias.data.fill_(1.0)
    point = round((torch.tensor(rest_wave).log().item() - frame.start) / LOG_STEP)
    frame.templates.data[0, point - 1 : point + 2] = torch.tensor([0.5, 1.0, 0.5]) / GAIN
    return frame


def predicted(frame, redshift):
    """Spectra at redshifts, with no visible pixels."""
    hidden = torch.zeros(len(redshift), 1296).double()
    return frame(torch.zeros(len(redshift), 8).double(), redshift, hidden, hidden)


@pytest.mark.parametrize("redshift", [0.0, 0.0729, 0.4])
@torch.no_grad()
def test_a_line_is_seen_at_its_wavelength_times_one_and_z(redshift):
    """On pixels of 4.8 A, the first of which is the mean of six of 0.8 A from 3600 A on."""
    spectrum = predicted(with_one_line(HALPHA), torch.tensor([redshift]).double())[0]
    wave = 3602.0 + 4.8 * torch.arange(1296)
    observed = HALPHA * (1 + redshift)
    assert abs(wave[spectrum.argmax()] - observed) <= 2.4 + LOG_STEP * observed / 2
    assert 0.3 < spectrum.max() <= 1.0
    assert spectrum[(wave - observed).abs() > 20].abs().max() == 0


@torch.no_grad()
def test_a_line_that_lies_beyond_the_spectrograph_is_not_seen():
    frame = with_one_line(HALPHA)
    assert not predicted(frame, torch.tensor([0.6, 4.5, 7.0]).double()).any()
    assert predicted(frame, torch.tensor([0.45, 0.1, 0.0]).double()).any(1).all()


@torch.no_grad()
def test_visible_pixels_update_the_coefficients():
    """A line of height 3 where 1 is expected, visible in two pixels, for three weights of the prior."""
    frame, redshift = with_one_line(HALPHA), torch.tensor([0.1]).double()
    expected = predicted(frame, redshift)
    visible = torch.zeros_like(expected)
    visible[0, expected[0].topk(2).indices] = 1
    spectrum = torch.where(visible > 0, 3 * expected, 1e6)  # hidden pixels are not used
    information = (frame.observed(redshift)[0, :, 0] * visible[0]).square().sum()
    for weight, height in ((1e-9, 3.0), (1.0, 2.0), (1e9, 1.0)):
        frame.log_weight.data.fill_((weight * information).log())
        rebuilt = frame(torch.zeros(1, 8).double(), redshift, spectrum, visible)
        torch.testing.assert_close(rebuilt, height * expected)
