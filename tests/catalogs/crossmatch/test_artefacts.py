"""Cosmic rays are removed and lines of galaxies and quasars kept, on real spectra."""

import numpy as np
import pytest

from catalogs.crossmatch.artefacts import replace_artefacts

LINES = {
    "Lya": 1215.67,
    "C IV": 1549.06,
    "[O II]": 3728.5,
    "H-beta": 4862.7,
    "[O III]": 5008.24,
    "H-alpha": 6564.6,
}
"""Rest wavelengths in vacuum, angstrom."""


@pytest.fixture(scope="module")
def real(real_data):
    return np.load(real_data / "desi_spectra_7781px.npz")


def test_real_lines_are_left_as_they_are(real):
    flux, ivar, artefact = replace_artefacts(real["flux"], real["ivar"])
    visible = 0
    for rest in LINES.values():
        near = np.abs(real["wave"] / (1 + real["z"][:, None]) - rest) < 20
        visible += near.any(1).sum()
        assert not artefact[near].any()
    assert visible >= 30
    assert artefact.sum() <= 2 * len(flux)
    np.testing.assert_array_equal(flux[~artefact], real["flux"][~artefact])
    np.testing.assert_array_equal(ivar, np.where(artefact, 0, real["ivar"]))
    assert flux.dtype == ivar.dtype == np.float32


@pytest.mark.parametrize("sign", [1, -1])
def test_cosmic_rays_injected_into_real_spectra_become_the_median(real, sign):
    flux, ivar = real["flux"].copy(), real["ivar"]
    hit = np.zeros(flux.shape, bool)
    for row, pixels in enumerate(np.random.default_rng(0).integers(0, 7781, (len(flux), 8))):
        hit[row, pixels] = ivar[row, pixels] > 0
    flux[hit] += sign * 100 * ivar[hit] ** -0.5
    cleaned, weight, artefact = replace_artefacts(flux, ivar)
    assert (artefact & hit).sum() >= 0.97 * hit.sum()  # a few are on equally bright lines
    assert (artefact & ~hit).sum() <= 2 * len(flux)
    for row in range(len(flux)):
        median = np.median(flux[row][(ivar[row] > 0) & ~artefact[row]])
        assert (cleaned[row, artefact[row]] == median).all()
    assert not weight[artefact].any()


def test_a_line_at_the_resolution_of_the_spectrograph_is_kept():
    """FWHM 1.8 A: a Gaussian of 0.95 pixels, centred anywhere in a pixel, 1000 times its error."""
    rng = np.random.default_rng(0)
    pixel = np.arange(7781)
    centre = np.arange(100, 7700, 100)[:, None] + rng.uniform(-0.5, 0.5, (76, 1))
    lines = np.exp(-0.5 * ((pixel - centre) / 0.95) ** 2).sum(0)
    flux = np.float32(lines * 1000 + rng.normal(size=(4, 7781)))
    assert not replace_artefacts(flux, np.ones_like(flux))[2].any()


def test_edges_gaps_and_empty_spectra():
    flux, ivar = (
        np.random.default_rng(0).normal(5, 1, (3, 200)).astype(np.float32),
        np.ones((3, 200), np.float32),
    )
    ivar[0, 50], ivar[0, 90:93], ivar[0, 91] = 0, 0, 1
    flux[0, [0, 49, 91, 199]] = 500  # at both edges, beside a gap, and between two gaps
    flux[0, 50] = np.nan  # invalid pixels are left as they are
    flux[1, 100:102] = 500  # as wide as a line
    ivar[2] = 0
    flux[2, 7] = 500
    cleaned, weight, artefact = replace_artefacts(flux, ivar)
    assert np.argwhere(artefact).tolist() == [[0, 0], [0, 49], [0, 91], [0, 199]]
    assert np.isfinite(cleaned[artefact]).all()
    assert weight.sum() == ivar.sum() - 4
