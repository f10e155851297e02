"""Bands by name: as surveys write them, and against the curves."""

import numpy as np
import pytest
from speclite import filters

from catalogs.bands import HSC, LSST, SURVEYS, TABLE, as_in, canonical, match


@pytest.mark.parametrize("band", TABLE.values(), ids=lambda band: band.name)
def test_the_numbers_are_those_of_the_curves(band):
    curve = filters.load_filter(band.curve)
    assert band.survey in SURVEYS
    assert band.wavelength == pytest.approx(curve.effective_wavelength.value, abs=1)
    assert band.width == pytest.approx(
        np.trapezoid(curve.response, curve.wavelength) / curve.response.max(), abs=1
    )


@pytest.mark.parametrize(
    ("written", "survey", "name"),
    [
        ("HSC-G", "", "hsc_g"),
        ("HSC-R2", "", "hsc_r"),
        ("hsc2017-i2", "", "hsc_i"),
        ("lsst_g", "", "lsst_g"),
        ("LSST-y", "HSC PDR2", "lsst_y"),
        ("u_24", "", "lsst_u"),
        ("decam-g", "", "decam_g"),
        ("DES-Y", "", "decam_y"),
        ("Euclid-VIS", "", "euclid_vis"),
        ("pan-starrs.i", "", "ps1_i"),
        ("W1", "unWISE", "W1"),
        ("g", "HSC PDR2", "hsc_g"),
        ("g", "Rubin DP1", "lsst_g"),
        ("g", "Legacy Surveys DR10", "g"),
        ("g", "", "g"),
        ("R", "HSC", "R"),
        ("F814W", "HST", "F814W"),
    ],
)
def test_names_as_surveys_write_them(written, survey, name):
    assert canonical(written, survey) == name
    assert canonical(canonical(written, survey), survey) == name


def test_bands_are_matched_by_name_and_bare_filters_by_their_letter():
    assert match(HSC, HSC[::-1]) == [4, 3, 2, 1, 0]
    assert match(HSC, ("u", "g", "r", "i", "z", "y")) == [1, 2, 3, 4, 5]
    assert match(("g", "r"), HSC) == [0, 1]
    assert match(HSC, LSST) == [None] * 5
    assert match(("hsc_g", "lsst_g"), ("g",)) == [None, None]  # it may be either
    assert match(("g",), ("hsc_g", "lsst_g")) == [None]
    assert match(("hsc_g", "g"), ("hsc_g", "g")) == [0, 1]


def test_bands_take_the_names_of_those_of_the_same_filter():
    assert as_in(HSC, ("decam_g", "decam_r", "decam_z")) == (
        "decam_g",
        "decam_r",
        "hsc_i",
        "decam_z",
        "hsc_y",
    )
    assert as_in(HSC, HSC) == HSC
    assert as_in(("hsc_g", "wise_w1"), ("lsst_u", "lsst_g", "decam_g")) == ("hsc_g", "wise_w1")
