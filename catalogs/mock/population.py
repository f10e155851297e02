"""The population of objects: redshifts, magnitudes, sizes, shapes and stellar populations."""

import dataclasses
from typing import Any

import numpy as np

from catalogs.mock import sed
from catalogs.mock.cameras import HSC, Camera, weighted_sum

REDSHIFT_CDF = (  # share, z: DESI redshifts of the GalaxiesML-Spectra test set (Himes et al. 2025)
    (0, 0.01, 0.05, 0.10, 0.25, 0.50, 0.552, 0.75, 0.857, 0.90, 0.95, 0.99, 1),
    (0.01, 0.039, 0.075, 0.098, 0.162, 0.338, 0.40, 0.611, 1.0, 1.652, 2.320, 3.055, 4.1),
)
PASSIVE_SHARE = ((0, 0.2, 0.4, 0.6, 0.9, 1.2, 1.6), (0.35, 0.45, 0.6, 0.7, 0.6, 0.3, 0.1))
QUASAR_SHARE = ((0.2, 0.5, 0.9, 1.1, 1.5), (0, 0.03, 0.06, 0.85, 0.98))
GALAXY_I = (
    (0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 1, 1.5),
    (15.5, 16.5, 17.3, 18.1, 18.9, 19.5, 20.2, 21.0, 21.8),
)
"""Median i of galaxies at z: DESI's bright galaxies to z = 0.4, its luminous red ones beyond."""
NEIGHBOURS = 1.2
"""Mean number of neighbours in a stamp of HSC to i = 24.5, from 40 galaxies an arcmin^2."""
STAMP_RADIUS = 4.0
"""Largest half-light radius that fits into a stamp of HSC, arcsec."""


@dataclasses.dataclass(frozen=True)
class Component:
    """A part of an object with one spectrum and one Sersic profile; a point source if its radius is 0."""

    sed: np.ndarray
    """(len(GRID),) 1e-17 erg/s/cm2/A"""
    sersic: float = 1.0
    radius: float = 0.0
    """Half-light semi-major axis, arcsec."""
    axis_ratio: float = 1.0
    angle: float = 0.0
    """Angle of the major axis from x towards y, radians."""
    knots: int = 0
    """Number of points drawn from the profile, in place of it; 0: none."""


@dataclasses.dataclass(frozen=True)
class Source:
    """One object above the atmosphere."""

    redshift: float
    """NaN of a star."""
    kind: str
    """GALAXY, QSO or STAR, as DESI's SPECTYPE."""
    components: tuple[Component, ...]

    def magnitudes(self, camera: Camera) -> np.ndarray:
        """AB magnitudes, (bands,)."""
        return camera.zero_point - 2.5 * np.log10(sum(camera.flux(part.sed) for part in self.components))

    def behind(self, transmission: np.ndarray | None) -> "Source":
        """The source behind dust, which lets pass so much of its light, (len(GRID),); None: all of it."""
        if transmission is None:
            return self
        parts = (dataclasses.replace(part, sed=part.sed * transmission) for part in self.components)
        return dataclasses.replace(self, components=tuple(parts))

    @property
    def radius(self) -> float:
        """Half-light semi-major axis of its largest component, arcsec."""
        return max(component.radius for component in self.components)


def _scaled(seds: np.ndarray, i_mag: float) -> np.ndarray:
    """Scale spectra (K, len(GRID)) to a total magnitude in HSC's i, whatever camera observes them."""
    flux = weighted_sum(HSC.weights[HSC.bands.index("hsc_i")], seds.sum(0))
    return seds * 10 ** (0.4 * (HSC.zero_point - i_mag)) / flux


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


# Mean shares of the templates in the light at 5500 A, and their concentration (the sum of a Dirichlet
# distribution's parameters): from fits of the templates to the photometry of massive galaxies in HSC (S16A,
# 0.2 < z < 0.5) and of galaxies with i < 21.5 of DEEP2/3 in the Extended Groth Strip and of zCOSMOS.
PASSIVE_SHARES = np.array([[0.21, 0.002, 0.02, 0.758, 0.01], [0.05, 0.003, 0.12, 0.80, 0.027]])
"""Shares at z < 0.4 and z > 0.7, interpolated in between."""
ACTIVE_SHARES = np.array([0.09, 0.05, 0.26, 0.27, 0.33])
PASSIVE_CONCENTRATION, ACTIVE_CONCENTRATION = 30.0, 3.0


def draw_shares(rng: np.random.Generator, redshift: float, passive: bool) -> np.ndarray:
    """Shares of the templates in the light of a galaxy at 5500 A, (5,)."""
    if not passive:
        return rng.dirichlet(ACTIVE_SHARES * ACTIVE_CONCENTRATION)
    high_z = np.clip((redshift - 0.4) / 0.3, 0, 1)
    return rng.dirichlet((np.array([1 - high_z, high_z]) @ PASSIVE_SHARES) * PASSIVE_CONCENTRATION)


Parts = tuple[np.ndarray, list[dict[str, Any]]]
"""Shares (K, 5) of each template's light in the K components of a galaxy, and the shapes of these."""


def spheroid(rng: np.random.Generator, radius: float) -> Parts:
    """A passive galaxy: one spheroid."""
    shape = {"radius": radius, "axis_ratio": rng.uniform(0.55, 1), "angle": rng.uniform(0, np.pi)}
    return np.ones((1, 5)), [shape | {"sersic": rng.choice([2.5, 3.0, 3.5, 4.0, 4.5, 5.0])}]


def disc_galaxy(rng: np.random.Generator, radius: float) -> Parts:
    """A bulge of old stars in a disc with knots of star formation, 0.2 thick and at any inclination."""
    bulge = rng.beta(1, 3) * np.array([1, 0, 0, 1, 0])
    knots = rng.uniform(0, 0.3) * np.array([0, 1, 0.5, 0, 0.5])
    axis_ratio = float(np.sqrt(0.04 + 0.96 * rng.random() ** 2))
    disc = {"radius": radius, "axis_ratio": axis_ratio, "angle": rng.uniform(0, np.pi)}
    inner = disc | {"sersic": 3.0, "radius": 0.25 * radius, "axis_ratio": max(axis_ratio, 0.6)}
    return np.stack([bulge, 1 - bulge - knots, knots]), [inner, disc, disc | {"knots": rng.integers(10, 40)}]


def draw_galaxy(rng: np.random.Generator, redshift: float, i_mag: float, passive: bool) -> Source:
    """Draw a galaxy of given redshift, magnitude and type."""
    radius = half_light_radius(redshift, i_mag, passive) * rng.lognormal(0, 0.3)
    parts, shapes = (spheroid if passive else disc_galaxy)(rng, min(radius, STAMP_RADIUS))
    shares = parts * draw_shares(rng, redshift, passive)
    dispersion = rng.uniform(150, 280) if passive else rng.uniform(50, 160)
    dust = 0.0 if passive else rng.exponential(0.05)
    light = sed.galaxy(rng, redshift, dispersion, dust, shares) * sed.intergalactic(rng, redshift)
    scaled = _scaled(light, i_mag)
    components = tuple(Component(part, **shape) for part, shape in zip(scaled, shapes, strict=True))
    return Source(redshift, "GALAXY", components)


def draw_quasar(rng: np.random.Generator, redshift: float, i_mag: float) -> Source:
    """Draw a quasar: a point source, whose host is too faint to be seen."""
    light = sed.quasar(rng, redshift) * sed.intergalactic(rng, redshift)
    return Source(redshift, "QSO", (Component(_scaled(light[None], i_mag)[0]),))


def draw_star(rng: np.random.Generator) -> Source:
    """Draw a star as bright as targets are: a black body from an M dwarf's to an F star's."""
    light = sed.star(rng.uniform(3200, 7000))
    return Source(np.nan, "STAR", (Component(_scaled(light[None], rng.normal(20.0, 1.0))[0]),))


def draw_target(rng: np.random.Generator) -> Source:
    """Draw an object as DESI selects them within the HSC survey."""
    redshift = float(np.interp(rng.random(), *REDSHIFT_CDF))
    if rng.random() < np.interp(redshift, *QUASAR_SHARE):
        return draw_quasar(rng, redshift, rng.normal(20.2, 0.7))
    passive = bool(rng.random() < np.interp(redshift, *PASSIVE_SHARE))
    i_mag = np.interp(redshift, *GALAXY_I) + rng.normal(-0.2 if passive else 0.2, 0.6)
    return draw_galaxy(rng, redshift, i_mag, passive)


def draw_neighbour(rng: np.random.Generator) -> Source:
    """Draw a field galaxy; counts rise tenfold in 2.9 magnitudes, as in deep i-band counts."""
    i_mag = max(24.5 + np.log10(rng.random()) / 0.35, 19.0)
    return draw_galaxy(rng, min(0.7 * rng.lognormal(0, 0.5), 3.0), i_mag, rng.random() < 0.2)
