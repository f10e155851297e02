"""Objects of the mock survey: draw a target, and observe its image and spectrum."""

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from astropy.table import Table

from catalogs.mock.cameras import GAUSSIAN_AREA, HSC, Camera
from catalogs.mock.image import observe_image, transforms
from catalogs.mock.population import draw_star, draw_target
from catalogs.mock.sed import galactic
from catalogs.mock.spectrum import fibre_spectrum, observe_spectrum
from catalogs.store.format import SIZE, spectype_codes

TRAINING, TILE = 0, 1
"""Random streams: training pairs, and the field that the model is applied to."""
FIRST_ID = (39_627_000_000_000_000, 43_000_000_000_000_000)
"""First object id of each stream."""
FIELD_CENTRE, FIELD_SIDE = (150.1, 2.2), 0.5
"""Centre (ra, dec) and side of the field, deg: COSMOS."""
CMODEL_ERROR = 0.02
"""Least error of a magnitude of a catalogue, of models and of deblending; an assumption."""
REDDENING_SCATTER, MAX_REDDENING = 0.6, 0.2
"""Scatter of ln E(B - V) between the objects of a survey, and its upper end, mag: assumptions, too."""
ARTEFACTS = 0.015
"""Share of images with an artefact, by default."""


@dataclasses.dataclass(frozen=True)
class Objects:
    """Simulated survey data and the truth behind them, one row an object."""

    object_id: np.ndarray
    """(N,) int64"""
    ra: np.ndarray
    """(N,) float64, deg"""
    dec: np.ndarray
    """(N,) float64, deg"""
    redshift: np.ndarray
    """(N,) float64, true; NaN of a star"""
    kind: np.ndarray
    """(N,) str, GALAXY, QSO or STAR"""
    magnitudes: np.ndarray
    """(N, bands) float64, true total AB magnitudes, without the dust of the Galaxy"""
    cmodel: np.ndarray
    """(N, bands) float32, magnitudes as catalogues have them: with the dust of the Galaxy, and errors of the
    sky within the galaxy, and of CMODEL_ERROR; NaN in a band that was not observed"""
    radius: np.ndarray
    """(N,) float64, true half-light semi-major axis before the PSF, arcsec; 0 for a point"""
    artefact: np.ndarray
    """(N,) int, an `image.Artefact`"""
    image: np.ndarray
    """(N, bands, 64, 64) float32, flux at the zero point of the camera"""
    noise: np.ndarray
    """(N, bands) float32, sky noise a pixel, flux"""
    psf_fwhm: np.ndarray
    """(N, bands) float32, arcsec"""
    ebv: np.ndarray
    """(N,) float32, E(B - V) of the dust of the Galaxy, mag"""
    mask: np.ndarray
    """(N, 64, 64) bool, True = bad in any band"""
    flux: np.ndarray
    """(N, 7783) float32, 1e-17 erg/s/cm2/A"""
    ivar: np.ndarray
    """(N, 7783) float32, inverse variance of `flux`; 0 marks a lost pixel"""

    @property
    def spectype(self) -> np.ndarray:
        """(N,) uint8, codes of the kinds (format.SPECTYPES)."""
        return spectype_codes(self.kind)

    def truth(self, bands: Sequence[str]) -> Table:
        """Table of the true properties, N rows; magnitudes are named by the bands: MAG_HSC_G, ..."""
        table = Table({"OBJECT_ID": self.object_id, "Z_SPEC": self.redshift, "SPECTYPE": self.kind})
        for band, magnitude in zip(bands, self.magnitudes.T, strict=True):
            table[f"MAG_{band.upper()}"] = magnitude.astype(np.float32)
        table["RADIUS"], table["ARTEFACT"] = self.radius.astype(np.float32), self.artefact.astype(np.int16)
        return table


def _observe(
    seed: int,
    stream: int,
    index: int,
    artefacts: float,
    camera: Camera,
    missing_bands: float,
    stars: float | None,
) -> dict[str, Any]:
    """One row of Objects, which depends on its own number only: each object has its own generators."""
    rng = np.random.default_rng([seed, stream, index])
    star_rng, band_rng, dust_rng, cmodel_rng = rng.spawn(4)
    source = draw_target(rng)
    usual = camera.star_share if stream == TILE else 0.0
    if star_rng.random() < (usual if stars is None else stars):
        source = draw_star(star_rng)
    ebv = min(MAX_REDDENING, camera.reddening * dust_rng.lognormal(0, REDDENING_SCATTER))
    dust = galactic(ebv) if ebv else None
    seen = source.behind(dust)
    dec = FIELD_CENTRE[1] + FIELD_SIDE * rng.uniform(-0.5, 0.5)
    ra = FIELD_CENTRE[0] + FIELD_SIDE * rng.uniform(-0.5, 0.5) / np.cos(np.radians(dec))
    shape = transforms(source, rng, camera)
    flux, ivar = observe_spectrum(rng, fibre_spectrum(seen, shape, camera))
    image, artefact, psf_fwhm, mask = observe_image(rng, camera, seen, shape, artefacts, dust)
    if stream == TILE and camera.has_edges:
        image[:, beyond_field(ra, dec, camera.pixel_scale)] = np.nan
    missing = unobserved(band_rng, len(image), missing_bands)
    image[missing] = np.nan
    cmodel = catalogue_magnitudes(cmodel_rng, seen.magnitudes(camera), source.radius, psf_fwhm, camera)
    return {
        "object_id": np.int64(FIRST_ID[stream] + index),
        "ra": ra,
        "dec": dec,
        "redshift": source.redshift,
        "kind": source.kind,
        "magnitudes": source.magnitudes(camera),
        "cmodel": np.where(missing, np.nan, cmodel).astype(np.float32),
        "radius": source.radius,
        "artefact": artefact,
        "image": image,
        "noise": np.array(camera.sky_sigma, np.float32),
        "psf_fwhm": psf_fwhm.astype(np.float32),
        "ebv": np.float32(ebv),
        "mask": mask,
        "flux": flux,
        "ivar": ivar,
    }


def catalogue_magnitudes(
    rng: np.random.Generator, magnitudes: np.ndarray, radius: float, psf_fwhm: np.ndarray, camera: Camera
) -> np.ndarray:
    """Magnitudes (bands,) with the errors that a fit of the right profile has; NaN where no light is left.

    radius, psf_fwhm (bands,): arcsec; the area is that of a Gaussian as wide as both.
    """
    area = GAUSSIAN_AREA * (psf_fwhm**2 + (2 * radius) ** 2) / camera.pixel_scale**2
    flux = 10 ** (0.4 * (camera.zero_point - magnitudes))
    error = np.hypot(np.array(camera.sky_sigma) * np.sqrt(area), CMODEL_ERROR * np.log(10) / 2.5 * flux)
    seen = flux + error * rng.standard_normal(len(flux))
    return camera.zero_point - 2.5 * np.log10(np.where(seen > 0, seen, np.nan))


def beyond_field(ra: float, dec: float, pixel_scale: float) -> np.ndarray:
    """Pixels of a stamp about (ra, dec) that are outside of the field, (64, 64) bool; north up, east left."""
    offset = (np.arange(SIZE) - SIZE // 2) * pixel_scale / 3600  # deg
    north = dec - FIELD_CENTRE[1] + offset
    east = (ra - FIELD_CENTRE[0]) * np.cos(np.radians(dec)) - offset
    return (np.abs(north)[:, None] > FIELD_SIDE / 2) | (np.abs(east) > FIELD_SIDE / 2)


def unobserved(rng: np.random.Generator, bands: int, share: float) -> np.ndarray:
    """Draw which bands of an object were not observed, (bands,) bool; one always was."""
    missing = rng.random(bands) < share
    if missing.all():
        missing[rng.integers(bands)] = False
    return missing


def draw(
    seed: int,
    stream: int,
    indices: Iterable[int],
    artefacts: float = ARTEFACTS,
    camera: Camera = HSC,
    missing_bands: float = 0.0,
    stars: float | None = None,
) -> Objects:
    """Draw objects by number; object k is the same, bit for bit, whichever others are drawn.

    artefacts : share of images with an artefact; missing_bands : share of the bands that are NaN throughout;
        stars : share of the objects that are stars; None: in a tile those of its survey, else none
    """
    rows = [_observe(seed, stream, index, artefacts, camera, missing_bands, stars) for index in indices]
    return Objects(**{name: np.stack([row[name] for row in rows]) for name in rows[0]})
