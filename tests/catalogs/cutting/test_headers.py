"""What headers say of units, seeing and masks, by numbers worked by hand."""

from collections import ChainMap

import numpy as np
import pytest
from astropy.io import fits
from survey_files import COSMOS, FLUXMAG0, sky

from catalogs.cutting import headers
from catalogs.errors import InputRefused


@pytest.mark.parametrize(
    ("cards", "zero_point"),
    [
        ({"FLUXMAG0": FLUXMAG0}, 27.0),
        ({"FLUXMAG0": 10**12.56}, 31.4),
        ({"MAGZERO": 22.5, "BUNIT": "nanomaggy"}, 22.5),
        ({"MAGZERO": 30}, 30.0),
        ({"PHOTZP": 30.0}, 30.0),
        ({"MAGZPT": 25.1, "MAGSYS": "AB"}, 25.1),
        ({"BUNIT": "nJy"}, 31.4),
        ({"BUNIT": "uJy"}, 23.9),
        ({"BUNIT": "mJy"}, 16.4),
        ({"BUNIT": "MJy"}, None),
        ({"BUNIT": "adu", "MAGZERO": 0.0}, None),
        ({"MAGZERO": "unknown"}, None),
        ({}, None),
    ],
)
def test_zero_points(cards, zero_point):
    assert headers.zero_point("a.fits", ChainMap(cards)) == zero_point


def test_a_distorted_cube_has_the_wcs_of_its_planes():
    header = fits.ImageHDU(np.zeros((3, 64, 64)), sky((64, 64))).header
    header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CTYPE3": "BAND"})
    header.update({"A_ORDER": 2, "A_2_0": 1e-5, "B_ORDER": 2, "B_0_2": 1e-5})
    wcs = headers.celestial("cube.fits", ChainMap(header))
    assert headers.pixel_scale(wcs) == 0.168
    assert wcs.sip.a[2, 0] == 1e-5


def test_asinh_magnitudes_are_no_flux():
    """As a stack of Pan-STARRS has them, whose user knows a zero point of 25 for its flux."""
    with pytest.raises(InputRefused, match="holds asinh magnitudes"):
        headers.zero_point("a.fits", ChainMap({"BOFFSET": 1.2, "BSOFTEN": 190.0, "MAGZERO": 25.0}))


def test_what_the_extension_lacks_the_primary_header_says():
    cards = ChainMap(fits.Header({"BUNIT": "nJy"}), fits.Header({"SEEING": 0.7, "BUNIT": "adu"}))
    assert headers.zero_point("a.fits", cards) == 31.4
    assert headers.seeing(cards) == 0.7


def test_an_infinite_scale_is_refused():
    """As a header has it whose number is beyond those of a computer."""
    lines = sky((100, 120)).tostring(sep="\n").split("\n")
    lines = [
        "PC1_1   =              1E+400".ljust(80) if line.startswith("PC1_1") else line for line in lines
    ]
    cards = fits.Header.fromstring("\n".join(lines), sep="\n")
    with pytest.raises(InputRefused, match="a scale is not finite"):
        headers.celestial("a.fits", ChainMap(cards))


@pytest.mark.parametrize("scale", [0.168, 0.2, 0.262])
def test_pixel_scales(scale):
    wcs = headers.celestial("a.fits", ChainMap(sky((100, 120), COSMOS, scale)))
    assert headers.pixel_scale(wcs) == scale


def test_bits_of_a_mask_by_name_and_by_number():
    lsst = {"MP_BAD": 0, "MP_SAT": 1, "MP_CR": 3, "MP_DETECTED": 5, "MP_NO_DATA": 8}
    default = ("BAD", "SAT", "CR", "NO_DATA")
    assert headers.bad_bits("m", lsst, default) == (0b1011, 1 << 8)
    assert headers.bad_bits("m", {"MP_SAT": 2}, default) == (0b100, 0)
    assert headers.bad_bits("m", lsst, ("mp_detected", "6")) == (0b1100000, 0)
    assert headers.bad_bits("m", {}, ("2", "7")) == (0b10000100, 0)
    assert headers.bad_bits("m", {}, ("any",)) == (-1, 0)
    assert headers.bad_bits("m", {}, ("none",)) == (0, 0)
    with pytest.raises(InputRefused, match="has no bit 63"):
        headers.bad_bits("m", {}, ("63",))
    for bitpix, beyond in ((8, 8), (16, 16), (32, 32), (64, 63), (-32, 63)):
        last = str(beyond - 1)
        assert headers.bad_bits("m", {"BITPIX": bitpix}, (last,)) == (1 << beyond - 1, 0)
        with pytest.raises(
            InputRefused, match=f"no bit {beyond}: pass --bad-planes with bits below {beyond}"
        ):
            headers.bad_bits("m", {"BITPIX": bitpix}, (last, str(beyond)))
    with pytest.raises(InputRefused, match="has no bit 8"):
        headers.bad_bits("m", lsst | {"BITPIX": 8}, default)
    with pytest.raises(InputRefused, match="with the planes none"):
        headers.bad_bits("m", {"MP_BAD": -1, "MP_SAT": 64}, default)
    with pytest.raises(InputRefused, match="with the planes SUSPECT"):
        headers.bad_bits("m", {"MP_SUSPECT": 7}, default)
