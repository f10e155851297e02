"""Cameras of the mock survey: passbands, seeing, depth and sky of the images that are drawn."""

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np
from speclite import filters

from catalogs import bands
from catalogs.mock.instruments import GRID, PIECES
from catalogs.surveys import galaxiesml

Survey = Literal["hsc", "rubin", "legacy"]
C = 2.99792458e18
"""Speed of light, A/s."""
LEAK = 1e-3
"""Share of a band's response in BLUE that is not counted: only the u band has more."""


@dataclass(frozen=True)
class Camera:
    """What the coadds of a survey are like: tuples by band, fluxes in the unit of the zero point."""

    bands: tuple[str, ...]
    """Names in the table of bands."""
    pixel_scale: float
    """arcsec"""
    zero_point: float
    """AB magnitude of flux 1."""
    seeing: tuple[float, ...]
    """Median FWHM, arcsec, pixel response included."""
    sky_sigma: tuple[float, ...]
    """Sky noise a pixel, flux."""
    gain: tuple[float, ...]
    """Effective electrons a unit of flux."""
    saturation: float
    """Flux above which a pixel is saturated."""
    star_share: float = 0.0
    """Share of stars among the objects of a tile."""
    has_edges: bool = False
    """Whether a tile ends at the sides of its field, beyond which stamps have no data."""
    reddening: float = 0.0
    """Median E(B - V) of the dust of the Galaxy, mag."""
    tells: bool = False
    """Whether noise, seeing, reddening and bad pixels of every stamp are kept beside it."""

    @property
    def filters(self) -> tuple[str, ...]:
        """Filters without the survey: g, r, ..."""
        return tuple(bands.TABLE[name].filter for name in self.bands)

    @property
    def weights(self) -> np.ndarray:
        """Weights that turn f_lambda on GRID into image flux, (bands, len(GRID))."""
        return _weights(self.bands, self.zero_point)

    @property
    def cmodel_names(self) -> tuple[str, ...]:
        """Names of the magnitudes of its catalogue, in the words of HSC's."""
        return tuple(f"{letter}_cmodel_mag" for letter in self.filters)

    def flux(self, sed: np.ndarray) -> np.ndarray:
        """Image flux of f_lambda on GRID, (len(GRID),) 1e-17 erg/s/cm2/A -> (bands,)."""
        return weighted_sum(self.weights, sed)


def weighted_sum(weights: np.ndarray, sed: np.ndarray) -> np.ndarray:
    """weights @ sed, (..., len(GRID)) and (len(GRID),) -> (...,), as the sum of those of BLUE and RED."""
    blue, red = (weights[..., piece] @ sed[piece] for piece in PIECES)
    return blue + red


@functools.cache
def _weights(names: tuple[str, ...], zero_point: float) -> np.ndarray:
    """Weights of photon-counting AB magnitudes."""
    curves = [filters.load_filter(bands.TABLE[name].curve) for name in names]
    response = np.stack([np.interp(GRID, curve.wavelength, curve.response) for curve in curves])
    blue, _ = PIECES
    response[response[:, blue].sum(1) < LEAK * response.sum(1), blue] = 0
    norm = sum((C / GRID * response)[:, piece].sum(1, keepdims=True) for piece in PIECES)
    mean = GRID * response / norm  # <f_nu> = mean @ f_lambda
    return mean * 1e-17 / 3.631e-20 * 10 ** (0.4 * zero_point)


HSC = Camera(
    bands=bands.HSC,
    pixel_scale=galaxiesml.PIXEL_SCALE,
    zero_point=galaxiesml.ZERO_POINT,
    seeing=(0.79, 0.75, 0.61, 0.68, 0.68),  # Aihara et al. 2019, PDR2 Wide
    sky_sigma=(0.037, 0.057, 0.077, 0.156, 0.287),  # HSC-SSP Wide coadds
    # dark sky of 21.9 20.9 19.9 18.9 18.2 mag/arcsec^2 over sky_sigma^2
    gain=(2300.0, 2400.0, 3300.0, 2000.0, 1100.0),
    saturation=10 ** (0.4 * (galaxiesml.ZERO_POINT - 20.0)),  # the peak of a star of magnitude 17
)
"""Coadds of HSC-SSP Wide, as in GalaxiesML: galaxies and quasars alone, no edges, nothing told of a stamp."""


STAR_SHARE = 0.03
"""Share of stars left among what was taken for galaxies: 1.3 to 5.5 %, by redshift, in the lens sample of DES
Y3 (arXiv:2605.04220)."""


REDDENING = 0.03
"""Median E(B - V), mag; an assumption, about that of the sky away from the Galaxy."""


def coadd(
    names: tuple[str, ...],
    pixel_scale: float,
    zero_point: float,
    *,
    seeing: np.ndarray,
    depth: np.ndarray,
    area: np.ndarray,
    sky: np.ndarray,
    peak: float,
) -> Camera:
    """A camera by the depth of its coadds; arrays are (bands,).

    A source of profile p spreads over n_eff = area / pixel_scale^2 pixels: fitted with p, its flux has the
    error sky_sigma sqrt(n_eff). The correlation of the noise, and the wings of the mock's PSF, enlarge it:
    point sources of the mock are at 5 sigma 0.4 mag before the depth.

    depth : AB magnitude of a source at 5 sigma
    area : effective area of its profile, 1 / (integral of p^2), arcsec^2
    sky : AB mag/arcsec^2, to which all noise is ascribed
    peak : AB magnitude of the light in the brightest pixel of a star that begins to saturate
    """
    sigma = 10 ** (0.4 * (zero_point - depth)) / 5 / np.sqrt(area / pixel_scale**2)
    gain = 10 ** (0.4 * (zero_point - sky)) * pixel_scale**2 / sigma**2
    return Camera(
        bands=names,
        pixel_scale=pixel_scale,
        zero_point=zero_point,
        seeing=tuple(seeing.tolist()),
        sky_sigma=tuple(sigma.tolist()),
        gain=tuple(gain.tolist()),
        saturation=10 ** (0.4 * (zero_point - peak)),
        star_share=STAR_SHARE,
        has_edges=True,
        reddening=REDDENING,
        tells=True,
    )


GAUSSIAN_AREA = 2.266
"""Effective area of a Gaussian over the square of its FWHM: pi / (2 ln 2)."""


def rubin(years: int) -> Camera:
    """Coadds of Rubin's survey after some of its ten years, in nJy.

    Ivezic et al. (2019), u g r i z y. Table 1 has the depth of point sources after ten years, which grows
    with the root of the exposure; table 2 the sky, the FWHM of the PSF, and that of the Gaussian of its area.
    """
    gaussian_fwhm = np.array([0.92, 0.87, 0.83, 0.80, 0.78, 0.76])
    return coadd(
        bands.LSST,
        pixel_scale=0.2,
        zero_point=31.4,
        seeing=np.array([0.81, 0.77, 0.73, 0.71, 0.69, 0.68]),
        depth=np.array([26.1, 27.4, 27.5, 26.8, 26.1, 24.9]) + 1.25 * np.log10(years / 10),
        area=GAUSSIAN_AREA * gaussian_fwhm**2,
        sky=np.array([22.99, 22.26, 21.20, 20.48, 19.60, 18.61]),
        peak=19.2,  # 5 % of a star of magnitude 16
    )


def legacy() -> Camera:
    """Coadds of the Legacy Surveys' south, of DECam, in nanomaggies.

    Dey et al. (2019), g r z: seeing, and the depth of an exponential disc of half-light radius 0.45 arcsec.
    The area of the disc, 8 pi (0.45 / 1.678)^2, and that of the PSF add as of Gaussians, which is right to
    5 % in the noise. The sky is the nominal one of the observing software (legacysurvey/obsbot).
    """
    fwhm = np.array([1.3, 1.2, 1.1])
    return coadd(
        ("decam_g", "decam_r", "decam_z"),
        pixel_scale=0.262,
        zero_point=22.5,
        seeing=fwhm,
        depth=np.array([24.0, 23.4, 22.5]),
        area=GAUSSIAN_AREA * fwhm**2 + 8 * np.pi * (0.45 / 1.678) ** 2,
        sky=np.array([22.04, 20.91, 18.46]),
        peak=19.8,  # 3 % of a star of magnitude 16
    )


def camera_of(survey: Survey, years: int) -> Camera:
    """The camera of a survey by name; `years` is of Rubin's."""
    return {"hsc": HSC, "rubin": rubin(years), "legacy": legacy()}[survey]
