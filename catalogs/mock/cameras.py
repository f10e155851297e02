"""Cameras of the mock survey: passbands, seeing, depth and sky of the images that are drawn."""

import functools
from dataclasses import dataclass

import numpy as np
from speclite import filters

from catalogs.mock.instruments import GRID, PIECES
from catalogs.surveys import bands, galaxiesml

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

    @property
    def filters(self) -> tuple[str, ...]:
        """Filters without the survey: g, r, ..."""
        return tuple(bands.TABLE[name].filter for name in self.bands)

    @property
    def weights(self) -> np.ndarray:
        """Weights that turn f_lambda on GRID into image flux, (bands, len(GRID))."""
        return _weights(self.bands, self.zero_point)

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
"""Coadds of HSC-SSP Wide, as in GalaxiesML."""
