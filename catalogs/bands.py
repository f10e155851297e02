"""Bands by name: the table of them, what surveys call them, and which of two lists are the same.

A name is `survey_filter`, as `hsc_g` or `lsst_u`. A store may call a band by an alias (HSC-G, decam2014-g,
Rubin's u_24), or by the bare filter (g) beside the name of its survey. A bare filter of a survey that nobody
names is known by its letter alone.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple


class Band(NamedTuple):
    """A passband: photons of a source are counted with its response R."""

    name: str
    wavelength: int
    """Effective wavelength of a source of constant AB magnitude, angstrom."""
    width: int
    """Integral of R over its maximum, angstrom."""
    curve: str
    """Name of R in speclite (speclite.filters), from which both numbers are; it names R's own source."""

    @property
    def survey(self) -> str:
        return self.name.partition("_")[0]

    @property
    def filter(self) -> str:
        return self.name.partition("_")[2]


TABLE = {
    name: Band(name, wavelength, width, curve)
    for name, wavelength, width, curve in (
        ("hsc_g", 4844, 1179, "hsc2017-g"),
        ("hsc_r", 6259, 1478, "hsc2017-r2"),  # r2 and i2 replaced r and i in 2016
        ("hsc_i", 7774, 1446, "hsc2017-i2"),
        ("hsc_z", 8912, 752, "hsc2017-z"),
        ("hsc_y", 9787, 749, "hsc2017-y"),
        ("lsst_u", 3746, 432, "lsst2023-u"),
        ("lsst_g", 4846, 1354, "lsst2023-g"),
        ("lsst_r", 6249, 1304, "lsst2023-r"),
        ("lsst_i", 7579, 1246, "lsst2023-i"),
        ("lsst_z", 8691, 993, "lsst2023-z"),
        ("lsst_y", 9767, 828, "lsst2023-y"),
        ("decam_g", 4862, 1131, "decamDR1-g"),
        ("decam_r", 6461, 1385, "decamDR1-r"),
        ("decam_i", 7851, 1391, "decamDR1-i"),
        ("decam_z", 9199, 1254, "decamDR1-z"),
        ("decam_y", 9907, 661, "decamDR1-Y"),
        ("bass_g", 4816, 1349, "BASS-g"),
        ("bass_r", 6438, 1399, "BASS-r"),
        ("mzls_z", 9230, 1236, "MzLS-z"),
        ("sdss_u", 3614, 510, "sdss2010-u"),
        ("sdss_g", 4749, 1163, "sdss2010-g"),
        ("sdss_r", 6206, 1108, "sdss2010-r"),
        ("sdss_i", 7526, 1100, "sdss2010-i"),
        ("sdss_z", 8947, 1089, "sdss2010-z"),
        ("ps1_g", 4900, 1166, "panstarrs-g"),
        ("ps1_r", 6241, 1318, "panstarrs-r"),
        ("ps1_i", 7564, 1243, "panstarrs-i"),
        ("ps1_z", 8690, 966, "panstarrs-z"),
        ("ps1_y", 9645, 615, "panstarrs-y"),
        ("megacam_u", 3693, 483, "cfht_megacam-u"),
        ("megacam_g", 4824, 1405, "cfht_megacam-g"),
        ("megacam_r", 6425, 1424, "cfht_megacam-r"),
        ("megacam_i", 7721, 1255, "cfht_megacam-i"),
        ("megacam_z", 9005, 749, "cfht_megacam-z"),
        ("euclid_vis", 7506, 3678, "Euclid-VIS"),
        ("euclid_y", 10890, 2572, "Euclid-Y"),
        ("euclid_j", 13791, 3947, "Euclid-J"),
        ("euclid_h", 17860, 4942, "Euclid-H"),
        ("2mass_j", 12408, 1691, "twomass-J"),
        ("2mass_h", 16514, 2543, "twomass-H"),
        ("2mass_ks", 21656, 2714, "twomass-Ks"),
        ("wise_w1", 34003, 6824, "wise2010-W1"),
        ("wise_w2", 46520, 10508, "wise2010-W2"),
    )
}

HSC = ("hsc_g", "hsc_r", "hsc_i", "hsc_z", "hsc_y")
LSST = ("lsst_u", "lsst_g", "lsst_r", "lsst_i", "lsst_z", "lsst_y")

SURVEYS = {
    "hsc": ("hsc", "hsc_ssp", "hsc2017"),
    "lsst": ("lsst", "rubin", "lsstcam", "lsstcomcam", "comcam", "lsst2016", "lsst2023"),
    "decam": ("decam", "des", "delve", "decals", "decam2014", "decamdr1"),
    "bass": ("bass",),
    "mzls": ("mzls",),
    "sdss": ("sdss", "sdss2010"),
    "ps1": ("ps1", "panstarrs", "pan_starrs"),
    "megacam": ("megacam", "cfht", "cfhtls", "unions", "cfht_megacam"),
    "euclid": ("euclid", "euclid_nisp"),
    "2mass": ("2mass", "twomass"),
    "wise": ("wise", "unwise", "allwise", "wise2010"),
}
"""What a survey, or its camera, is called in names of bands and in the attribute `survey` of stores.

The Legacy Surveys are not among them: their north is of BASS and MzLS, their south of DECam.
"""
ALIASES = {
    **{"hsc_r2": "hsc_r", "hsc_i2": "hsc_i", "wise_1": "wise_w1"},
    # physical filters of LSSTCam and LSSTComCam (lsst/obs_lsst)
    **{"u_24": "lsst_u", "g_6": "lsst_g", "r_57": "lsst_r", "i_39": "lsst_i", "z_20": "lsst_z"},
    **{"y_10": "lsst_y", "u_02": "lsst_u", "g_01": "lsst_g", "r_03": "lsst_r", "i_06": "lsst_i"},
    **{"z_03": "lsst_z", "y_04": "lsst_y"},
}
MAX_SHIFT = 0.06
"""Largest difference of the wavelengths of bands that one can stand for, as a share of the smaller."""
BARE = re.compile(r"[a-z]")
"""A bare filter; a capital letter is of another system (R and I of Johnson and Cousins)."""


def canonical(name: str, survey: str = "") -> str:
    """The table's name of a band that a store, said to be of this survey, calls `name`.

    A bare filter remains bare where the survey says nothing; a name that the table does not hold remains what
    it is.
    """
    normal = _normal(name)
    if normal in ALIASES:
        return ALIASES[normal]
    for known, prefixes in SURVEYS.items():
        for prefix in prefixes:
            band = f"{known}_{normal.removeprefix(prefix + '_')}"
            if normal.startswith(prefix + "_") and (band := ALIASES.get(band, band)) in TABLE:
                return band
    if BARE.fullmatch(name) and (qualified := f"{_survey(survey)}_{name}") in TABLE:
        return qualified
    return name


def _normal(name: str) -> str:
    return re.sub(r"[-. ]+", "_", name.strip()).lower()


def _survey(text: str) -> str:
    """The survey that an attribute names: "HSC PDR2", "Rubin DP1"; "" where it names none of the table."""
    words = _normal(text)
    for known, names in SURVEYS.items():
        if any(words == name or words.startswith(name + "_") for name in names):
            return known
    return ""


def match(wanted: Sequence[str], offered: Sequence[str]) -> list[int | None]:
    """Where each of the bands `wanted` is among those `offered`; None where it is not.

    Bands are the same if their names are; a bare filter is that of any one survey, where there is but one.
    """
    return [offered.index(name) if name in offered else _by_filter(name, wanted, offered) for name in wanted]


def had_by(bands: Sequence[str], stores: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Which of the bands each of the stores has, once each; none where all have all of them."""
    places = [match(bands, store) for store in stores]
    had = {
        tuple(band for band, place in zip(bands, of_store, strict=True) if place is not None)
        for of_store in places
    }
    return () if had == {tuple(bands)} else tuple(sorted(had))


def _filter(name: str) -> str:
    """The filter of a band: g of hsc_g, and of a bare g."""
    return name.rpartition("_")[2]


def as_in(bands: Sequence[str], survey: Sequence[str]) -> tuple[str, ...]:
    """Bands with the names of another survey's, where a filter is of one in both: hsc_g becomes lsst_g."""
    letters, others = ([_filter(name) for name in names] for names in (bands, survey))
    return tuple(
        survey[others.index(letter)] if letters.count(letter) == others.count(letter) == 1 else name
        for name, letter in zip(bands, letters, strict=True)
    )


def united(stores: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """The bands of stores as one list: those of a single one, or of several in the order of wavelength.

    Where surveys have bands of the same filter, hsc_g and lsst_g, it is the bare filter, g, that stands for
    all, as for those of any other survey (`match`). Raises ValueError where these are too unlike, or a store
    has two of a filter.
    """
    if len(stores) == 1:
        return tuple(stores[0])
    names = list(dict.fromkeys(name for bands in stores for name in bands))
    letters = [_filter(name) for name in names]
    if len(set(letters)) < len(names):
        for bands in stores:
            _check_filters(bands)
        for letter in letters:
            _check_alike([name for name in names if _filter(name) == letter])
        names = list(dict.fromkeys(letters))
    return tuple(sorted(names, key=lambda name: _wavelength(name, stores)))


def _check_filters(bands: Sequence[str]) -> None:
    letters = [_filter(name) for name in bands]
    if twice := [name for name, letter in zip(bands, letters, strict=True) if letters.count(letter) > 1]:
        raise ValueError(
            f"{' and '.join(twice)} of one store are of one filter: leave one out, or rename it (--bands)"
        )


def _check_alike(bands: Sequence[str]) -> None:
    known = {name: TABLE[name].wavelength for name in bands if name in TABLE}
    if known and max(known.values()) > (1 + MAX_SHIFT) * min(known.values()):
        said = ", ".join(f"{name} ({wavelength} angstrom)" for name, wavelength in known.items())
        raise ValueError(f"{said} are too unlike to be one band: rename one when it is stored")


def _wavelength(name: str, stores: Sequence[Sequence[str]]) -> float:
    """Of a band, or of the first that a filter stands for; infinite where the table has none."""
    letter = _filter(name)
    same = [band for bands in stores for band in bands if band == name or _filter(band) == letter]
    return next((TABLE[band].wavelength for band in same if band in TABLE), float("inf"))


def _by_filter(name: str, wanted: Sequence[str], offered: Sequence[str]) -> int | None:
    letter = _filter(name)
    same = [other for other in offered if _filter(other) == letter and other not in wanted]
    rivals = [other for other in wanted if _filter(other) == letter]
    if len(same) != 1 or len(rivals) != 1 or (name != letter and same[0] != letter):
        return None
    return offered.index(same[0])
