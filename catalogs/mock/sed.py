"""Spectral energy distributions: f_lambda above the atmosphere, on the observed wavelengths GRID.

Galaxies are mixtures of the five templates of kcorrect (Blanton & Roweis 2007): stars of Bruzual & Charlot
(2003) with dust, and nebular emission. The templates are sampled every 257 km/s, too coarse for the lines
that DESI resolves, so their emission lines are measured, removed and replaced with Gaussians.
"""

import functools
from collections.abc import Callable
from importlib.resources import files

import numpy as np
from astropy import units
from astropy.io import fits
from dust_extinction.parameter_averages import F99

from catalogs.mock.instruments import BLUE, GRID, RED

DUSTY_OLD, NEBULA, DUSTY_YOUNG, OLD, YOUNG = range(5)
"""Templates in the order of the file, named by their spectra; their shares are of the light at 5500 A."""
EMITTERS = (DUSTY_OLD, NEBULA, DUSTY_YOUNG)
"""Templates with emission lines; at these wavelengths, the others have stellar Balmer absorption."""
PIVOT = 5500.0
"""Wavelength of normalisation, A."""
LIGHT_SPEED = 2.998e5  # km/s
R_V = 3.1
"""A(V) / E(B - V) of the dust of the Galaxy, in the mean."""

# Emission features of the templates: the range removed (A), and the lines of the feature with their shares of
# its flux. Wavelengths in vacuum; ratios of doublets from Osterbrock & Ferland (2006).
FEATURES: tuple[tuple[tuple[float, float], dict[float, float]], ...] = (
    ((3712, 3745), {3727.09: 0.42, 3729.88: 0.58}),  # [O II]
    ((3860, 3878), {3869.86: 1}),  # [Ne III]
    ((3960, 3978), {3968.59: 0.45, 3971.20: 0.55}),  # [Ne III], H-epsilon
    ((4092, 4113), {4102.89: 1}),  # H-delta
    ((4331, 4371), {4341.69: 0.93, 4364.44: 0.07}),  # H-gamma, [O III]
    ((4848, 4875), {4862.69: 1}),  # H-beta
    ((4947, 4971), {4960.30: 1}),  # [O III]
    ((4993, 5022), {5008.24: 1}),  # [O III]
    ((5866, 5888), {5877.25: 1}),  # He I
    ((6290, 6314), {6302.05: 1}),  # [O I]
    ((6358, 6376), {6365.54: 1}),  # [O I]
    ((6535, 6605), {6549.86: 0.065, 6564.63: 0.74, 6585.27: 0.195}),  # [N II], H-alpha, [N II]
    ((6705, 6748), {6718.29: 0.56, 6732.68: 0.44}),  # [S II]
    ((7125, 7148), {7137.76: 1}),  # [Ar III]
    ((7308, 7345), {7321.48: 0.55, 7331.92: 0.45}),  # [O II]
    ((9055, 9085), {9071.1: 1}),  # [S III]
    ((9515, 9555), {9533.2: 1}),  # [S III]
)
LINES = np.array([line for _, lines in FEATURES for line in lines])

QUASAR_LINES = (  # A, equivalent width A, sigma A: the composite of Vanden Berk et al. (2001), table 2
    np.array(
        [
            1033.0,
            1216.3,
            1240.0,
            1398.3,
            1546.2,
            1905.0,
            2800.3,
            3729.0,
            4346.4,
            4853.1,
            4960.4,
            5008.2,
            6564.9,
        ]
    ),
    np.array([9.8, 75.0, 18.0, 8.1, 23.8, 21.2, 32.3, 1.6, 12.6, 46.2, 3.5, 13.2, 194.5]),
    np.array([7.8, 19.5, 7.0, 14.0, 14.3, 23.6, 35.0, 3.3, 20.3, 40.4, 3.9, 6.0, 47.4]),
)  # O VI, Ly-alpha, N V, Si IV, C IV, C III], Mg II, [O II], H-gamma, H-beta, [O III] x 2, H-alpha


def _templates() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Wavelengths (P,), continua (5, P) of 1 at 5500 A, and fluxes of LINES (5, L) in A at that scale."""
    with fits.open(files("kcorrect") / "data/templates/kcorrect-default-v4.fits") as file:
        wave, flux = (file["FLUX"].data[name][0].astype(float) for name in ("wave", "flux"))
    used = (wave > 850) & (wave < 12000)
    wave, flux = wave[used], flux[:, used]
    continuum, strength = flux.copy(), []
    for (low, high), lines in FEATURES:
        inside = (wave > low) & (wave < high)
        beside = (np.abs(wave - (low + high) / 2) < (high - low) / 2 + 20) & ~inside
        for k in EMITTERS:
            line = np.polyfit(wave[beside] - low, flux[k, beside], 1)
            continuum[k, inside] = np.polyval(line, wave[inside] - low)
        excess = np.trapezoid((flux - continuum)[:, inside], wave[inside]).clip(0)
        strength += [excess * share for share in lines.values()]
    pivot = np.array([np.interp(PIVOT, wave, template) for template in continuum])[:, None]
    return wave, continuum / pivot, np.transpose(strength) / pivot


TEMPLATE_WAVE, CONTINUA, LINE_FLUX = _templates()


def on_grid(light: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A function of uniform wavelengths (P,) -> (..., P) on those of GRID, (..., len(GRID))."""
    return np.concatenate([light(BLUE), light(RED)], -1)


def lines(wave: np.ndarray, centre: np.ndarray, flux: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Sum of Gaussian lines (L,) on a uniform grid (P,): fluxes (..., L) in A -> (..., P)."""
    result = np.zeros((*flux.shape[:-1], len(wave)))
    step = wave[1] - wave[0]
    for k, (mean, width) in enumerate(zip(centre, sigma, strict=True)):
        first, last = (int((mean + side * 6 * width - wave[0]) / step) for side in (-1, 1))
        near = slice(max(first, 0), max(last + 1, 0))
        profile = np.exp(-0.5 * ((wave[near] - mean) / width) ** 2) / (width * np.sqrt(2 * np.pi))
        result[..., near] += flux[..., k, None] * profile
    return result


def galaxy(
    rng: np.random.Generator, redshift: float, dispersion: float, ebv: float, shares: np.ndarray
) -> np.ndarray:
    """Components of a galaxy, each a mixture of the templates: shares (K, 5) -> f_lambda (K, len(GRID)).

    The strength of all lines of a galaxy scatters by 0.3 in ln, that of each line by another 0.15;
    `dispersion` is their sigma in km/s, `ebv` the reddening by dust beyond that of the templates.
    """
    strength = LINE_FLUX * rng.lognormal(0, 0.3) * rng.lognormal(0, 0.15, len(LINES))

    def light(wave: np.ndarray) -> np.ndarray:
        rest = wave / (1 + redshift)
        stars = np.stack([np.interp(rest, TEMPLATE_WAVE, template) for template in CONTINUA])  # (5, P)
        nebulae = lines(rest, LINES, shares @ strength, LINES * dispersion / LIGHT_SPEED)
        return (shares @ stars + nebulae) * attenuation(rest, ebv)

    return on_grid(light)


def attenuation(rest: np.ndarray, ebv: float) -> np.ndarray:
    """Transmission of starburst dust (Calzetti et al. 2000, eq. 4), held constant below 1000 A."""
    x = 1e4 / np.maximum(rest, 1000.0)  # 1/micron
    blue = 2.659 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 * x) + 4.05
    return 10 ** (-0.4 * ebv * np.where(rest < 6300, blue, red))


def quasar(rng: np.random.Generator, redshift: float) -> np.ndarray:
    """Power law with broad lines (Vanden Berk et al. 2001), all with scatter: (len(GRID),).

    A few are reddened by SMC dust: 1.39 E(B-V) / wavelength in micron (Prevot 1984).
    """
    slope = rng.normal(-1.56, 0.2)
    centre, width, sigma = QUASAR_LINES
    width = width * rng.lognormal(0, 0.25) * rng.lognormal(0, 0.2, len(width))
    sigma = sigma * rng.uniform(0.7, 1.3)
    ebv = rng.exponential(0.02)

    def light(wave: np.ndarray) -> np.ndarray:
        rest = wave / (1 + redshift)
        continuum = np.where(rest < 5000, (rest / 5000) ** slope, (rest / 5000) ** (slope + 1.1))
        bump = 0.25 * np.exp(-0.5 * ((rest - 2900) / 550) ** 2)  # Fe II and Balmer continuum, 2000 to 4000 A
        dust = 10 ** (-0.4 * ebv * 1.39e4 / rest)
        return continuum * (1 + bump + lines(rest, centre, width, sigma)) * dust

    return on_grid(light)


def star(temperature: float) -> np.ndarray:
    """A black body of `temperature` in K, in any unit: (len(GRID),)."""
    return 1 / (GRID**5 * np.expm1(1.4388e8 / (GRID * temperature)))  # h c / k in A K


# --- Intergalactic absorption ------------------------------------------------------------------------------

FOREST_SIGMA = 1.5
"""Scatter of ln optical depth of a lognormal density field at DESI's resolution (Bi & Davidsen 1997)."""
FOREST_DEPTH = np.geomspace(1e-4, 30, 200)
"""Median optical depths at which FOREST_MEAN is tabulated."""


def _forest_mean() -> np.ndarray:
    """Mean of exp(-depth exp(FOREST_SIGMA g)) over a standard normal g, for each depth: (200,)."""
    g = np.linspace(-6, 6, 1201)
    weight = np.exp(-0.5 * g**2)
    return np.exp(-np.outer(FOREST_DEPTH, np.exp(FOREST_SIGMA * g))) @ (weight / weight.sum())


FOREST_MEAN = _forest_mean()


def mean_transmission(wave: np.ndarray, redshift: float) -> np.ndarray:
    """Mean transmission of intergalactic hydrogen (Madau 1995): four Lyman lines and the limit, (P,)."""
    optical_depth = np.zeros_like(wave)
    for line, strength in ((1215.67, 3.6e-3), (1025.72, 1.7e-3), (972.54, 1.2e-3), (949.74, 9.3e-4)):
        optical_depth += np.where(wave < line * (1 + redshift), strength * (wave / line) ** 3.46, 0)
    optical_depth += np.where(wave < 911.75 * (1 + redshift), 3.0, 0)
    return np.exp(-optical_depth)


@functools.cache
def _galactic() -> np.ndarray:
    """Extinction at E(B - V) = 1 on GRID, mag (Fitzpatrick 1999, R_V = 3.1)."""
    return R_V * F99(Rv=R_V)(1e4 / GRID / units.micron)


def galactic(ebv: float) -> np.ndarray:
    """Transmission of the dust of the Galaxy, (len(GRID),)."""
    return 10 ** (-0.4 * ebv * _galactic())


def intergalactic(rng: np.random.Generator, redshift: float) -> np.ndarray:
    """Transmission of one line of sight: a forest about the mean transmission, (len(GRID),).

    That of BLUE has a generator of its own.
    """
    return np.concatenate([_forest(rng.spawn(1)[0], BLUE, redshift), _forest(rng, RED, redshift)])


def _forest(rng: np.random.Generator, wave: np.ndarray, redshift: float) -> np.ndarray:
    """Transmission at uniform wavelengths of WAVE's step: (P,) -> (P,)."""
    if (1 + redshift) * 1215.67 < wave[0]:
        return np.ones(len(wave))
    mean = mean_transmission(wave, redshift)
    white = rng.standard_normal((2, len(wave)))
    offset = np.arange(-12, 13)
    field = np.zeros(len(wave))
    for noise, width in zip(white, (1.5, 4.0), strict=True):  # pixels: 70 and 200 km/s at 5000 A
        kernel = np.exp(-0.5 * (offset / width) ** 2)
        field += np.convolve(noise, kernel / np.sqrt(2 * (kernel**2).sum()), mode="same")
    depth = np.interp(mean, FOREST_MEAN[::-1], FOREST_DEPTH[::-1])
    return np.where(mean < 1, np.exp(-depth * np.exp(FOREST_SIGMA * field)), 1.0)
