"""A mock survey: galaxies and quasars whose image and spectrum are two views of one object.

Every object has one spectral energy distribution (SED) at one redshift. Seen through five passbands it gives
the colours of the image, through a fibre the spectrum, so a model that learns redshifts here learns them from
physics: the 4000 A break moving through the bands, emission lines, the Lyman-alpha forest. Everything is a
formula with its source; no data file is read. The sample follows GalaxiesML-Spectra (HSC, DESI).
"""

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import tyro
from astropy.table import Table, vstack
from rich.progress import track

from catalogs import atomic, cutouts
from catalogs.cutout_format import BANDS, CHUNK, REQUIRED, SIZE, manifest_path
from catalogs.errors import UsageError
from catalogs.galaxiesml import FLUX, IVAR, PIXEL_SCALE, REDSHIFT, TARGETID, ZERO_POINT
from catalogs.galaxiesml import WAVE as WAVE_PATH

# --- The instruments ---------------------------------------------------------------------------------------

SEEING = np.array([0.85, 0.75, 0.60, 0.65, 0.68])  # FWHM, arcsec; pixel response included
SKY_SIGMA = np.array([0.037, 0.057, 0.077, 0.156, 0.287])  # per pixel, HSC-SSP Wide
GAIN = np.array([2300.0, 2400.0, 3300.0, 2000.0, 1100.0])
"""Effective electrons a unit of flux: dark sky of 21.9 20.9 19.9 18.9 18.2 mag/arcsec^2 over SKY_SIGMA^2."""

PASSBAND_CORNERS = {  # (wavelength in A, response): HSC's response (Kawanomoto et al. 2018), straightened
    "g": ((3900, 0.0), (4100, 0.5), (5400, 1.0), (5500, 0.0)),
    "r": ((5400, 0.0), (5550, 0.93), (6900, 1.0), (7050, 0.0)),
    "i": ((6880, 0.0), (7060, 0.98), (8450, 0.85), (8650, 0.0)),
    "z": ((8400, 0.0), (8620, 1.0), (9230, 0.88), (9370, 0.0)),
    "y": ((9230, 0.0), (9450, 0.9), (9780, 0.88), (10650, 0.0)),
}

PIXELS = 7783
WAVE = np.linspace(3600.0, 9824.0, PIXELS)  # A, vacuum; the spectra of GalaxiesML-Spectra
STEP = WAVE[1] - WAVE[0]
GRID = WAVE[0] + STEP * np.arange(8820)  # A; WAVE carried on to the red end of y
FIBRE_DIAMETER = 1.5  # arcsec
FIBRE_SEEING = 1.1  # FWHM at the DESI focal plane, arcsec
RESOLUTION = 1.8  # FWHM in A; DESI's is nearly constant (Abareshi et al. 2022: R = 2000 to 5100)
FIBRE_SKY = 2.5  # sky in a fibre, 1e-17 erg/s/cm2/A: scales the Poisson noise of the object
SKY_LINES = np.array(
    [
        *(5577.3, 5893.0, 6300.3, 6363.8, 7276.4, 7316.3, 7340.9, 7750.6, 7794.1, 7821.5, 7913.7, 7964.7),
        *(7993.3, 8344.6, 8399.2, 8430.2, 8465.4, 8827.1, 8885.9, 8919.6, 8957.9, 9375.9, 9439.6, 9476.0),
        *(9567.0, 9719.6),
    ]
)  # A, air: the strongest of [O I], Na I and OH (Osterbrock et al. 1996)

C = 2.99792458e18  # A/s


def _band_weights() -> np.ndarray:
    """Weights that turn f_lambda on GRID into image flux: photon-counting AB magnitudes, (5, len(GRID))."""
    corners = [np.transpose(PASSBAND_CORNERS[band]) for band in BANDS]
    response = np.stack([np.interp(GRID, wave, height) for wave, height in corners])
    mean = GRID * response / (C / GRID * response).sum(1, keepdims=True)  # <f_nu> = mean @ f_lambda
    return mean * 1e-17 / 3.631e-20 * 10 ** (0.4 * ZERO_POINT)


BAND_WEIGHTS = _band_weights()

# --- Spectral energy distributions: f_lambda at rest wavelengths, 1 at 5500 A ------------------------------

ABSORPTION_OLD = (  # A, equivalent width A, sigma A: Lick indices of old galaxies (Worthey et al. 1994)
    np.array([3934.8, 3969.6, 4305.6, 5176.4, 5271.0, 5894.6]),
    np.array([9.0, 8.0, 5.5, 6.5, 2.5, 4.5]),
    np.array([8.0, 8.0, 11.0, 14.0, 10.0, 6.0]),
)  # Ca II K, H, G band, Mg b, Fe, Na D
ABSORPTION_YOUNG = (  # Balmer lines of young stars (Gonzalez Delgado et al. 1999)
    np.array([3836.5, 3890.2, 3971.2, 4102.9, 4341.7, 4862.7]),
    np.array([4.0, 4.5, 5.0, 5.5, 5.5, 5.0]),
    np.full(6, 6.0),
)
QUASAR_LINES = (  # the composite of Vanden Berk et al. (2001), table 2
    np.array(
        [1033.0, 1216.3, 1240.0, 1398.3, 1546.2, 1905.0, 2800.3, 4346.4, 4853.1, 4960.4, 5008.2, 6564.9]
    ),
    np.array([9.8, 75.0, 18.0, 8.1, 23.8, 21.2, 32.3, 12.6, 46.2, 3.5, 13.2, 194.5]),
    np.array([7.8, 19.5, 7.0, 14.0, 14.3, 23.6, 35.0, 20.3, 40.4, 3.9, 6.0, 47.4]),
)  # O VI, Ly-alpha, N V, Si IV, C IV, C III], Mg II, H-gamma, H-beta, [O III] x 2, H-alpha
NEBULAR_LINES = np.array(  # A, vacuum: Ly-alpha, [O II] x 2, H-gamma, H-beta, [O III] x 2, [N II], H-alpha,
    [1215.67, 3727.1, 3729.9, 4341.7, 4862.7, 4960.3, 5008.2, 6549.9, 6564.6, 6585.3, 6718.3, 6732.7]
)  # [N II], [S II] x 2


def lines(rest: np.ndarray, centre: np.ndarray, strength: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """Sum of Gaussian lines of given integral (A, where the continuum is 1) and sigma (A): (P,)."""
    profile = np.exp(-0.5 * ((rest - centre[:, None]) / sigma[:, None]) ** 2)  # (L, P)
    return (strength / (sigma * np.sqrt(2 * np.pi))) @ profile


def planck(rest: np.ndarray, temperature: float) -> np.ndarray:
    """Black body, f_lambda, 1 at 5500 A."""
    x = 1.43878e8 / temperature  # hc/k in A K
    return (5500 / rest) ** 5 * np.expm1(x / 5500) / np.expm1(x / rest)


def step(rest: np.ndarray, edge: float, width: float, blue: float) -> np.ndarray:
    """1 redward of `edge`, `blue` blueward of it."""
    return blue + (1 - blue) / (1 + np.exp((edge - rest) / width))


def old_stars(rest: np.ndarray, temperature: float) -> np.ndarray:
    """A population of many Gyr: a cool black body cut by metal lines, with breaks at 4000 and 2900 A.

    With the temperatures of `draw_galaxy` the red sequence has its HSC colours at 0.1 < z < 0.5.
    """
    breaks = step(rest, 3990, 40, 0.6) * step(rest, 2900, 60, 0.5)
    return planck(rest, temperature) * breaks * (1 - lines(rest, *ABSORPTION_OLD))


def young_stars(rest: np.ndarray) -> np.ndarray:
    """Constant star formation: hot, f_lambda ~ lambda^-2.7, flatter blueward of the Balmer break.

    The spectrum of O to A stars (Leitherer et al. 1999), ultraviolet slope -1.8 before dust.
    """
    continuum = (rest / 5500) ** -2.7 * np.minimum(rest / 3700, 1) ** 0.9 * step(rest, 3700, 40, 0.6)
    return continuum * (1 - lines(rest, *ABSORPTION_YOUNG))


def attenuation(rest: np.ndarray, ebv: float) -> np.ndarray:
    """Transmission of starburst dust (Calzetti et al. 2000, eq. 4), held constant below 1000 A."""
    x = 1e4 / np.maximum(rest, 1000.0)  # 1/micron
    blue = 2.659 * (-2.156 + 1.509 * x - 0.198 * x**2 + 0.011 * x**3) + 4.05
    red = 2.659 * (-1.857 + 1.040 * x) + 4.05
    return 10 ** (-0.4 * ebv * np.where(rest < 6300, blue, red))


def nebular(rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Emission lines of H II regions, for young stars of 1 at 5500 A.

    H-beta of about 25 A, scattered by 0.4 in ln; Balmer ratios of case B (Osterbrock 2006); [N II] and
    [O III] on the star-forming sequence of Kewley et al. (2013); Ly-alpha escapes one galaxy in four.
    """
    n2 = rng.uniform(-1.2, -0.4)  # log [N II] 6585 / H-alpha: metallicity
    o3 = 10 ** (0.61 / (n2 + 0.08) + 1.1)  # [O III] 5008 / H-beta
    n2 = 2.86 * 10**n2
    lyman = 23.0 * rng.uniform(0.05, 0.3) * (rng.random() < 0.25)
    ratios = np.array([lyman, 1.2, 1.6, 0.47, 1, o3 / 3, o3, n2 / 3, 2.86, n2, 0.5, 0.4])
    strength = 25.0 * rng.lognormal(0, 0.4) * ratios
    velocity = rng.uniform(60, 180) / 2.998e5
    return lines(rest, NEBULAR_LINES, strength, NEBULAR_LINES * velocity)


def quasar(rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Power law with broad lines (Vanden Berk et al. 2001); slope, widths and strengths scatter."""
    slope = rng.normal(-1.56, 0.25)
    continuum = np.where(rest < 5000, (rest / 5000) ** slope, (rest / 5000) ** (slope + 1.1))
    bump = 0.25 * np.exp(-0.5 * ((rest - 2900) / 550) ** 2)  # Fe II and Balmer continuum, 2000 to 4000 A
    centre, width, sigma = QUASAR_LINES
    width = width * rng.lognormal(0, 0.25) * rng.lognormal(0, 0.2, len(width))
    return continuum * (1 + bump + lines(rest, centre, width, sigma * rng.uniform(0.7, 1.3)))


def intergalactic(wave: np.ndarray, redshift: float) -> np.ndarray:
    """Mean transmission of hydrogen along the line of sight (Madau 1995): four Lyman lines and the limit."""
    optical_depth = np.zeros_like(wave)
    for line, strength in ((1215.67, 3.6e-3), (1025.72, 1.7e-3), (972.54, 1.2e-3), (949.74, 9.3e-4)):
        optical_depth += np.where(wave < line * (1 + redshift), strength * (wave / line) ** 3.46, 0)
    optical_depth += np.where(wave < 911.75 * (1 + redshift), 3.0, 0)
    return np.exp(-optical_depth)


# --- The population ----------------------------------------------------------------------------------------

REDSHIFT_CDF = (  # share, z: DESI redshifts of the GalaxiesML-Spectra test set (Himes et al. 2025)
    (0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.552, 0.75, 0.857, 0.90, 0.95, 0.99, 1),
    (0.01, 0.039, 0.075, 0.098, 0.162, 0.338, 0.40, 0.611, 1.0, 1.652, 2.320, 3.055, 4.1),
)
PASSIVE_SHARE = ((0, 0.2, 0.4, 0.6, 0.9, 1.2, 1.6), (0.35, 0.45, 0.6, 0.75, 0.7, 0.4, 0.1))
QUASAR_SHARE = ((0.2, 0.5, 0.9, 1.1, 1.5), (0, 0.03, 0.06, 0.85, 0.98))
GALAXY_I = (
    (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1, 1.5),
    (15.5, 16.5, 17.3, 18.1, 18.9, 19.5, 20.2, 21.0, 21.8),
)
NEIGHBOURS = 0.7  # mean number in a stamp, to i = 24.5


@dataclasses.dataclass(frozen=True)
class Source:
    """One object above the atmosphere: a bulge and a disc. A quasar is a point, a disc of radius 0."""

    redshift: float
    is_quasar: bool
    sed: np.ndarray
    """(2, len(GRID)): bulge and disc, 1e-17 erg/s/cm2/A at the observed wavelengths GRID."""
    radius: tuple[float, float] = (0.0, 0.0)
    """Half-light semi-major axes of bulge and disc, arcsec."""
    axis_ratio: float = 1.0
    angle: float = 0.0
    """Of the major axis from x towards y, radians."""

    @property
    def flux(self) -> np.ndarray:
        """Total image flux of bulge and disc, (2, 5)."""
        return self.sed @ BAND_WEIGHTS.T

    @property
    def magnitudes(self) -> np.ndarray:
        """AB magnitudes g r i z y, (5,)."""
        return ZERO_POINT - 2.5 * np.log10(self.flux.sum(0))


def _scaled(sed: np.ndarray, redshift: float, i_mag: float) -> np.ndarray:
    """Absorb by the intergalactic medium and scale to an i magnitude: (2, len(GRID)) to the same."""
    sed = sed * intergalactic(GRID, redshift)
    return sed * 10 ** (0.4 * (ZERO_POINT - i_mag)) / (BAND_WEIGHTS[BANDS.index("i")] @ sed.sum(0))


def _distances() -> tuple[np.ndarray, np.ndarray]:
    """Comoving distance in Mpc on a fine grid of z: flat, H0 = 70, Omega_m = 0.3."""
    z = np.linspace(0, 5, 5001)
    inverse = 1 / np.sqrt(0.3 * (1 + z) ** 3 + 0.7)
    return z, 4282.7 * np.concatenate([[0], np.cumsum((inverse[1:] + inverse[:-1]) / 2 * 1e-3)])


DISTANCES = _distances()


def half_light_radius(redshift: float, i_mag: float, passive: bool) -> float:
    """Median half-light radius in arcsec: local size-luminosity relation and its evolution.

    Shen et al. (2003), eqs. 14 and 15, absolute magnitude without K correction; (1 + z)^-1.3 or -0.75
    (van der Wel et al. 2014).
    """
    distance = np.interp(redshift, *DISTANCES)
    absolute = i_mag - 5 * np.log10(distance * (1 + redshift)) - 25
    if passive:
        log_kpc = -0.26 * absolute - 5.06 - 1.3 * np.log10(1 + redshift)
    else:
        bend = 0.25 * np.log10(1 + 10 ** (-0.4 * (absolute + 20.91)))
        log_kpc = -0.104 * absolute + bend - 1.71 - 0.75 * np.log10(1 + redshift)
    return float(10**log_kpc / (distance / (1 + redshift)) * 206.265)


def draw_galaxy(rng: np.random.Generator, redshift: float, i_mag: float, passive: bool) -> Source:
    """A bulge of old stars in a disc of old and young ones, with dust and H II regions in the disc."""
    rest = GRID / (1 + redshift)
    young = rng.uniform(0, 0.025) if passive else rng.beta(3, 2)  # share of the light at 5500 A
    bulge = (1 - young) * (rng.uniform(0.6, 1) if passive else rng.uniform(0, 0.6))
    dust = attenuation(rest, 0.03 if passive else 0.2 * rng.lognormal(0, 0.4))
    temperature = rng.normal(4600, 60) + 500 * redshift  # the past had younger stars
    old, new = old_stars(rest, temperature), young_stars(rest) + nebular(rest, rng)
    sed = np.stack([bulge * old, ((1 - young - bulge) * old + young * new) * dust])
    radius = min(half_light_radius(redshift, i_mag, passive) * rng.lognormal(0, 0.3), 4.0)  # fits the stamp
    return Source(
        redshift=redshift,
        is_quasar=False,
        sed=_scaled(sed, redshift, i_mag),
        radius=(radius if passive else 0.3 * radius, radius),
        axis_ratio=rng.uniform(0.6, 1) if passive else float(np.hypot(0.2, 0.98 * rng.random())),
        angle=rng.uniform(0, np.pi),
    )


def draw_quasar(rng: np.random.Generator, redshift: float, i_mag: float) -> Source:
    """A point whose light outshines its host."""
    light = quasar(GRID / (1 + redshift), rng)
    return Source(redshift, True, _scaled(np.stack([np.zeros_like(light), light]), redshift, i_mag))


def draw_target(rng: np.random.Generator) -> Source:
    """One object as DESI selects them within the HSC survey."""
    redshift = float(np.interp(rng.random(), *REDSHIFT_CDF))
    if rng.random() < np.interp(redshift, *QUASAR_SHARE):
        return draw_quasar(rng, redshift, rng.normal(20.6, 0.8))
    passive = bool(rng.random() < np.interp(redshift, *PASSIVE_SHARE))
    i_mag = np.interp(redshift, *GALAXY_I) + rng.normal(-0.2 if passive else 0.2, 0.6)
    return draw_galaxy(rng, redshift, i_mag, passive)


def draw_neighbour(rng: np.random.Generator) -> Source:
    """A field galaxy; counts rise tenfold in 2.9 magnitudes, as in deep i-band counts."""
    i_mag = max(24.5 + np.log10(rng.random()) / 0.35, 19.0)
    return draw_galaxy(rng, min(0.7 * rng.lognormal(0, 0.5), 3.0), i_mag, rng.random() < 0.2)


# --- The image ---------------------------------------------------------------------------------------------

PADDED = 2 * SIZE  # room for light that the periodic transform would fold back into the stamp
FREQUENCY = np.meshgrid(
    np.fft.fftfreq(PADDED, PIXEL_SCALE), np.fft.rfftfreq(PADDED, PIXEL_SCALE), indexing="ij"
)
"""Cycles per arcsec along y and x, (128, 65) each."""


def seeing(fwhm: float) -> np.ndarray:
    """Transfer function of Kolmogorov turbulence (Fried 1966), (128, 65)."""
    return np.exp(-3.44 * (np.hypot(*FREQUENCY) * fwhm / 0.976) ** (5 / 3))


def _de_vaucouleurs() -> tuple[np.ndarray, np.ndarray]:
    """Flux and variance (half-light radii squared) of Gaussians that add up to a de Vaucouleurs profile.

    exp(-b s^(1/n)) is a completely monotone function of s^2, so it is a mixture of Gaussians (Bernstein).
    Its weights are the one-sided stable density of index a = 1/(2n), given by an integral of
    Kanter (1975); the light beyond some 10 radii, 1 % of it, is cut off.
    """
    a, b = 1 / 8, 7.66925
    variance = np.geomspace(2e-4, 1e2, 16)
    x = 1 / (2 * variance * b**8)
    phi = (np.arange(1000) + 0.5) * np.pi / 1000
    kernel = (np.sin(a * phi) ** a * np.sin((1 - a) * phi) ** (1 - a) / np.sin(phi)) ** (1 / (1 - a))
    density = x ** (-1 / (1 - a)) * (kernel * np.exp(-np.outer(x ** (-a / (1 - a)), kernel))).mean(1)
    return density / density.sum(), variance  # a Gaussian's flux goes as 1/x, its step in log x as x


SEEING_TRANSFER = np.stack([seeing(fwhm) for fwhm in SEEING])  # (5, 128, 65)
FIBRE_TRANSFER = seeing(FIBRE_SEEING)
BULGE_FLUX, BULGE_VARIANCE = _de_vaucouleurs()


def profiles(source: Source) -> np.ndarray:
    """Fourier transforms of the de Vaucouleurs bulge and the exponential disc, of flux 1: (2, 128, 65)."""
    y, x = FREQUENCY
    major = x * np.cos(source.angle) + y * np.sin(source.angle)
    minor = source.axis_ratio * (y * np.cos(source.angle) - x * np.sin(source.angle))
    k2 = (2 * np.pi) ** 2 * (major**2 + minor**2)
    bulge, disc = source.radius
    gaussians = np.exp(-0.5 * bulge**2 * BULGE_VARIANCE[:, None, None] * k2)  # (terms, 128, 65)
    return np.stack([np.tensordot(BULGE_FLUX, gaussians, 1), (1 + (disc / 1.678) ** 2 * k2) ** -1.5])


def render(sources: list[Source], offsets: np.ndarray) -> np.ndarray:
    """Noiseless stamp: each source at its offset (arcsec along y, x) from the centre, (5, 64, 64)."""
    transform = np.zeros((len(BANDS), PADDED, PADDED // 2 + 1), complex)
    for source, (y, x) in zip(sources, offsets + SIZE / 2 * PIXEL_SCALE, strict=True):  # centre: pixel 32
        phase = np.exp(-2j * np.pi * (FREQUENCY[0] * y + FREQUENCY[1] * x))
        transform += np.tensordot(source.flux.T, profiles(source), 1) * phase
    return np.fft.irfft2(transform * SEEING_TRANSFER)[:, :SIZE, :SIZE]


def _aperture() -> np.ndarray:
    """Share of each pixel of a stamp centred on pixel (0, 0) that the fibre covers, (128, 128)."""
    fine = (np.arange(PADDED * 10) - 4.5) / 10 * PIXEL_SCALE
    fine = (fine + PADDED / 2 * PIXEL_SCALE) % (PADDED * PIXEL_SCALE) - PADDED / 2 * PIXEL_SCALE
    inside = np.hypot(fine[:, None], fine) < FIBRE_DIAMETER / 2
    return inside.reshape(PADDED, 10, PADDED, 10).mean((1, 3))


APERTURE = _aperture()


def fibre_fraction(source: Source) -> float:
    """Share of the r-band light that enters a centred DESI fibre."""
    weights = source.flux[:, BANDS.index("r")]
    image = np.fft.irfft2(np.tensordot(weights / weights.sum(), profiles(source), 1) * FIBRE_TRANSFER)
    return float((image * APERTURE).sum())


# --- The spectrum ------------------------------------------------------------------------------------------


def _spectrum_sigma() -> np.ndarray:
    """Noise of a 1000 s DESI exposure, 1e-17 erg/s/cm2/A: blue end, two dichroics, sky lines; (7783,)."""
    blue = WAVE - WAVE[0]
    level = 2.2 * np.exp(-blue / 80) + 0.85 * np.exp(-blue / 1100) + 0.15
    for edge in (5790, 7570):  # both arms see little of the light here
        level += 0.07 * np.exp(-0.5 * ((WAVE - edge) / 60) ** 2)
    bright = np.exp(-0.5 * ((WAVE - SKY_LINES[:, None]) / 1.5) ** 2).sum(0)
    return level * (1 + 1.5 * bright)


SPECTRUM_SIGMA = _spectrum_sigma()


def fibre_spectrum(source: Source) -> np.ndarray:
    """Noiseless spectrum at DESI's resolution, 1e-17 erg/s/cm2/A on WAVE, (7783,)."""
    reach = np.arange(-5, 6)
    kernel = np.exp(-0.5 * (reach * STEP * 2.355 / RESOLUTION) ** 2)
    light = np.pad(source.sed.sum(0)[: PIXELS + 5], (5, 0), mode="edge")
    return fibre_fraction(source) * np.convolve(light, kernel / kernel.sum(), mode="valid")


# --- Observations ------------------------------------------------------------------------------------------

TRAINING, TILE = 0, 1
"""Streams: what the model learns from, and the field it is applied to."""
FIRST_ID = (39_627_000_000_000_000, 43_000_000_000_000_000)
FIELD_CENTRE, FIELD_SIDE = (150.1, 2.2), 0.5  # deg; COSMOS


@dataclasses.dataclass(frozen=True)
class Objects:
    """What the surveys hand in, and the truth behind it; one row an object."""

    object_id: np.ndarray
    """(N,) int64"""
    ra: np.ndarray
    """(N,) float64, deg"""
    dec: np.ndarray
    """(N,) float64, deg"""
    redshift: np.ndarray
    """(N,) float64, true"""
    is_quasar: np.ndarray
    """(N,) bool"""
    magnitudes: np.ndarray
    """(N, 5) float64, true total AB magnitudes g r i z y"""
    image: np.ndarray
    """(N, 5, 64, 64) float32, zero point 27.0"""
    flux: np.ndarray
    """(N, 7783) float32, 1e-17 erg/s/cm2/A"""
    ivar: np.ndarray
    """(N, 7783) float32, inverse variance of `flux`; 0 marks a lost pixel"""


def observe_image(rng: np.random.Generator, source: Source) -> np.ndarray:
    """Stamp with neighbours, Poisson noise of what is in it, and sky noise: (5, 64, 64) float32."""
    neighbours = [draw_neighbour(rng) for _ in range(rng.poisson(NEIGHBOURS))]
    reach = np.array([0.5] + [SIZE / 2] * len(neighbours)) * PIXEL_SCALE
    light = render([source, *neighbours], rng.uniform(-1, 1, (len(reach), 2)) * reach[:, None])
    variance = SKY_SIGMA[:, None, None] ** 2 + np.maximum(light, 0) / GAIN[:, None, None]
    return (light + np.sqrt(variance) * rng.standard_normal(light.shape)).astype(np.float32)


def observe_spectrum(rng: np.random.Generator, source: Source) -> tuple[np.ndarray, np.ndarray]:
    """Flux and inverse variance, (7783,) float32 each; a few runs of pixels are lost to cosmic rays."""
    light = fibre_spectrum(source)
    sigma = SPECTRUM_SIGMA * rng.lognormal(0, 0.15) * np.sqrt(1 + light / FIBRE_SKY)
    flux = light + sigma * rng.standard_normal(PIXELS)
    ivar = sigma**-2
    for start in rng.integers(PIXELS, size=rng.poisson(6)):
        ivar[start : start + rng.integers(1, 12)] = 0
    return flux.astype(np.float32), ivar.astype(np.float32)


def _observe(seed: int, stream: int, index: int) -> dict[str, Any]:
    """One row of Objects. It depends on nothing but its own number: each object has its own generator."""
    rng = np.random.default_rng([seed, stream, index])
    source = draw_target(rng)
    dec = FIELD_CENTRE[1] + FIELD_SIDE * rng.uniform(-0.5, 0.5)
    ra = FIELD_CENTRE[0] + FIELD_SIDE * rng.uniform(-0.5, 0.5) / np.cos(np.radians(dec))
    image = observe_image(rng, source)
    flux, ivar = observe_spectrum(rng, source)
    return {
        "object_id": np.int64(FIRST_ID[stream] + index),
        "ra": ra,
        "dec": dec,
        "redshift": source.redshift,
        "is_quasar": source.is_quasar,
        "magnitudes": source.magnitudes,
        "image": image,
        "flux": flux,
        "ivar": ivar,
    }


def draw(seed: int, stream: int, indices: Iterable[int]) -> Objects:
    """Objects of the given numbers; object k is the same, bit for bit, whichever others are drawn."""
    rows = [_observe(seed, stream, index) for index in indices]
    return Objects(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})


# --- Files -------------------------------------------------------------------------------------------------

SURVEY = "mock"
BLOCK = 64
"""Objects made at once."""
TRUTH_COLUMNS = ("OBJECT_ID", "Z_SPEC", "MAG_I")


@dataclasses.dataclass(frozen=True)
class Mock:
    """Write a mock survey: training pairs (image, spectrum, redshift), and a tile of images to infer on.

    OUT/galaxies.hdf5 has the layout of GalaxiesML-Spectra, OUT/rubin_tile.zarr is a cutout store, and
    OUT/rubin_tile.truth.fits holds the true redshifts of the tile, to score a catalogue with. The same seed
    gives the same objects; a larger number adds objects to them. A training pair takes 0.17 MB of disk, a
    tile object 0.08 MB.
    """

    out: tyro.conf.Positional[Path]
    """Folder to write to; created if need be."""
    galaxies: int = 2000
    """Number of training pairs."""
    tile: int = 1000
    """Number of objects in the tile."""
    seed: int = 1
    """Which universe: any integer from 0."""
    shard_rows: int = 4096
    """Rows a shard of the tile, a multiple of 64; inference takes whole shards."""


def main(config: Mock) -> None:
    """Write the three files; nothing is created when UsageError is raised."""
    galaxies, tile = config.out / "galaxies.hdf5", config.out / "rubin_tile.zarr"
    truth = config.out / "rubin_tile.truth.fits"
    _check(config, (galaxies, manifest_path(tile), tile, truth))
    config.out.mkdir(parents=True, exist_ok=True)
    write_galaxies(galaxies, config.galaxies, config.seed)
    write_tile(tile, truth, config.tile, config.seed, config.shard_rows)
    print(f"{galaxies}: {config.galaxies} training pairs")
    print(f"{tile}: {config.tile} objects to infer on")
    print(f"{truth}: their true redshifts")


def _check(config: Mock, files: Iterable[Path]) -> None:
    for name in ("galaxies", "tile"):
        if getattr(config, name) < 1:
            raise UsageError(f"--{name} must be at least 1, got {getattr(config, name)}")
    if config.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {config.seed}")
    if config.shard_rows < 1 or config.shard_rows % CHUNK:
        raise UsageError(f"--shard-rows must be a multiple of {CHUNK}, got {config.shard_rows}")
    for path in (config.out, *config.out.parents):
        if path.exists() and not path.is_dir():
            raise UsageError(f"{path} is a file: name a folder to write to")
    for file in files:
        if file.exists():
            raise UsageError(f"{file} exists already: remove it, or choose another folder")


def blocks(seed: int, stream: int, start: int, stop: int, what: str) -> Iterator[Objects]:
    """Objects start:stop, a block at a time, with a progress bar."""
    for first in track(range(start, stop, BLOCK), what):
        yield draw(seed, stream, range(first, min(first + BLOCK, stop)))


def write_galaxies(path: Path, count: int, seed: int) -> None:
    """Write training pairs in the HDF5 layout of GalaxiesML-Spectra."""
    with atomic.replacing(path) as temporary, h5py.File(temporary, "w") as file:
        image = file.create_dataset("image", (count, len(BANDS), SIZE, SIZE), np.float32)
        flux = file.create_dataset(FLUX, (count, PIXELS), np.float32)
        ivar = file.create_dataset(IVAR, (count, PIXELS), np.float32)
        wave = file.create_dataset(WAVE_PATH, (count, PIXELS), np.float32)
        redshift = file.create_dataset(REDSHIFT, (count,), np.float64)
        file.attrs["survey"] = SURVEY
        targetid = file.create_dataset(TARGETID, (count,), "S17")
        start = 0
        for objects in blocks(seed, TRAINING, 0, count, "training pairs"):
            rows = slice(start, start := start + len(objects.redshift))
            image[rows], flux[rows], ivar[rows], wave[rows] = objects.image, objects.flux, objects.ivar, WAVE
            redshift[rows] = objects.redshift
            targetid[rows] = objects.object_id.astype("S17")


def write_tile(path: Path, truth: Path, count: int, seed: int, shard_rows: int) -> None:
    """Write the tile as a cutout store, and its true redshifts as a FITS table beside it."""
    truths: list[Table] = []

    def rows(start: int, stop: int) -> dict[str, np.ndarray]:
        parts = []  # without the spectra, which would double the memory of a shard
        for objects in blocks(seed, TILE, start, stop, f"tile objects {start} to {stop - 1}"):
            mag_i = objects.magnitudes[:, BANDS.index("i")].astype(np.float32)
            truths.append(Table([objects.object_id, objects.redshift, mag_i], names=TRUTH_COLUMNS))
            parts.append([getattr(objects, name) for name in REQUIRED])
        return dict(zip(REQUIRED, map(np.concatenate, zip(*parts, strict=True)), strict=True))

    cutouts.write(path, rows, n=count, survey=SURVEY, shard_rows=shard_rows)
    with atomic.replacing(truth) as temporary:
        vstack(truths).write(temporary, format="fits")
