"""Images: GalSim's profiles and PSFs, multiplied in Fourier space; then noise and artefacts.

A profile is transformed once for all bands, and the transforms of all sources in a stamp are added before one
inverse transform per band: twenty times the rate of separate convolutions.
"""

from enum import IntEnum

import galsim
import numpy as np

from catalogs.mock.instruments import (
    FIBRE_DIAMETER,
    FIBRE_SEEING,
    GAIN,
    SATURATION,
    SEEING,
    SEEING_SCATTER,
    SKY_CORRELATION,
    SKY_SIGMA,
    WINGS,
)
from catalogs.mock.population import NEIGHBOURS, Component, Source, draw_neighbour
from catalogs.store.format import BANDS, SIZE
from catalogs.surveys.galaxiesml import PIXEL_SCALE, ZERO_POINT

PADDED = 2 * SIZE
"""Pixels on a side of the transform, with room for light that it would otherwise wrap into the stamp."""
KY, KX = np.meshgrid(
    2 * np.pi * np.fft.fftfreq(PADDED, PIXEL_SCALE),
    2 * np.pi * np.fft.rfftfreq(PADDED, PIXEL_SCALE),
    indexing="ij",
)
"""Wave numbers, radians per arcsec, (128, 65) each."""
HALF_PLANE = galsim.BoundsI(0, PADDED // 2, -PADDED // 2, PADDED // 2 - 1)


def transform(profile: galsim.GSObject) -> np.ndarray:
    """Fourier transform of a profile on the half plane of a real image, (128, 65)."""
    plane = profile.drawKImage(galsim.ImageCD(HALF_PLANE), scale=KX[0, 1], recenter=False)
    return np.fft.ifftshift(plane.array, axes=0)


def profile(component: Component, rng: np.random.Generator) -> galsim.GSObject:
    """Profile of a component at flux 1; `rng` scatters its knots."""
    if component.radius == 0:
        return galsim.DeltaFunction()
    round_radius = component.radius * component.axis_ratio**0.5  # GalSim's shear keeps the area
    if component.knots:
        seed = galsim.BaseDeviate(int(rng.integers(1, 2**31)))
        shape = galsim.RandomKnots(component.knots, half_light_radius=round_radius, rng=seed)
    else:
        shape = galsim.Sersic(component.sersic, half_light_radius=round_radius)
    return shape.shear(q=component.axis_ratio, beta=component.angle * galsim.radians)


def transforms(source: Source, rng: np.random.Generator) -> np.ndarray:
    """Transforms of the components of a source at flux 1, (K, 128, 65)."""
    return np.stack([transform(profile(component, rng)) for component in source.components])


def _psf() -> galsim.GSObject:
    """PSF of FWHM 1: turbulence, and wings of twice its width with the share WINGS of the light."""
    psf = galsim.Kolmogorov(fwhm=1.0) * (1 - WINGS) + galsim.Kolmogorov(fwhm=2.0) * WINGS
    return psf.dilate(1 / psf.calculateFWHM())


PSF = _psf()


def seeing(rng: np.random.Generator) -> np.ndarray:
    """Optical transfer functions of one field, g r i z y, pixel response included: (5, 128, 65)."""
    psfs = []
    for fwhm in SEEING * rng.lognormal(0, SEEING_SCATTER, len(SEEING)):
        e1, e2 = rng.normal(0, 0.015, 2)
        psfs.append(transform(PSF.dilate(fwhm).shear(e1=e1, e2=e2)))
    return np.stack(psfs)


def render(
    sources: list[Source], shapes: list[np.ndarray], offsets: np.ndarray, psf: np.ndarray
) -> np.ndarray:
    """Noiseless stamp: each source at its offset (arcsec along y, x) from pixel (32, 32); (5, 64, 64)."""
    light = np.zeros((len(BANDS), *KX.shape), complex)
    for source, shape, (y, x) in zip(sources, shapes, offsets + SIZE / 2 * PIXEL_SCALE, strict=True):
        phase = np.exp(-1j * (KY * y + KX * x))
        flux = np.stack([component.flux for component in source.components])  # (K, 5)
        light += np.einsum("kb,kyx->byx", flux, shape) * phase
    return np.fft.irfft2(light * psf)[:, :SIZE, :SIZE]


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of variance 1 whose neighbours along y and x (the last two axes) are correlated."""
    rows, columns = shape[-2:]
    white = rng.standard_normal((*shape[:-2], rows + 2, columns + 2))
    a = SKY_CORRELATION / 2  # to first order
    along_y = white[..., 1:-1, :] + a * (white[..., :-2, :] + white[..., 2:, :])
    correlated = along_y[..., 1:-1] + a * (along_y[..., :-2] + along_y[..., 2:])
    return correlated / (1 + 2 * a**2)


def observe_image(
    rng: np.random.Generator, source: Source, shape: np.ndarray, artefact_share: float
) -> tuple[np.ndarray, "Artefact"]:
    """Stamp with neighbours, the noise of the sky and of the sources, and possibly an artefact.

    `shape` are the transforms of the source. Returns (5, 64, 64) float32 and its artefact.
    """
    psf = seeing(rng)
    neighbours = [draw_neighbour(rng) for _ in range(rng.poisson(NEIGHBOURS))]
    shapes = [shape, *(transforms(neighbour, rng) for neighbour in neighbours)]
    max_offset = np.array([0.5] + [SIZE / 2] * len(neighbours)) * PIXEL_SCALE
    offsets = rng.uniform(-1, 1, (len(max_offset), 2)) * max_offset[:, None]
    light = render([source, *neighbours], shapes, offsets, psf)
    artefact = Artefact(int(rng.integers(1, len(Artefact))) if rng.random() < artefact_share else 0)
    if artefact is Artefact.SATURATED_NEIGHBOUR:
        light += bright_star(rng, psf)
    variance = SKY_SIGMA[:, None, None] ** 2 + np.maximum(light, 0) / GAIN[:, None, None]
    image = light + np.sqrt(variance) * noise(rng, light.shape)
    image = np.minimum(image, SATURATION)
    add_artefact(rng, image, artefact)
    return image.astype(np.float32), artefact


# --- Artefacts ---------------------------------------------------------------------------------------------


class Artefact(IntEnum):
    """Artefacts of images; the values are codes of the truth table."""

    NONE = 0
    BLEED_TRAIL = 1
    MISSING_BAND = 2
    NAN_PATCH = 3
    SATURATED_NEIGHBOUR = 4


def bright_star(rng: np.random.Generator, psf: np.ndarray) -> np.ndarray:
    """A star of magnitude 14 to 17 in the outskirts of the stamp, (5, 64, 64)."""
    magnitude = rng.uniform(14, 17) - np.array([-0.6, 0, 0.2, 0.3, 0.35]) * rng.uniform(0.5, 3)  # blue to red
    y, x = rng.choice([-1, 1], 2) * rng.uniform(16, 32, 2) * PIXEL_SCALE + SIZE / 2 * PIXEL_SCALE
    flux = 10 ** (0.4 * (ZERO_POINT - magnitude))
    star = flux[:, None, None] * psf * np.exp(-1j * (KY * y + KX * x))
    return np.fft.irfft2(star)[:, :SIZE, :SIZE]


def add_artefact(rng: np.random.Generator, image: np.ndarray, artefact: Artefact) -> None:
    """Add an artefact to an image (5, 64, 64), in place."""
    band = rng.integers(len(BANDS))
    if artefact is Artefact.MISSING_BAND:
        image[band] = 0
    elif artefact is Artefact.NAN_PATCH:
        (top, left), (height, width) = rng.integers(0, SIZE - 8, 2), rng.integers(4, 33, 2)
        image[band, top : top + height, left : left + width] = np.nan
    elif artefact is Artefact.BLEED_TRAIL:  # charge of a saturated star beyond the stamp, along a column
        left, width = rng.integers(SIZE), rng.integers(2, 6)
        height = SATURATION * rng.uniform(0.05, 1) * np.exp(-np.arange(SIZE) / rng.uniform(20, 200))
        image[band, :, left : left + width] += height[:: rng.choice([-1, 1]), None]


# --- The fibre ---------------------------------------------------------------------------------------------


def _aperture() -> np.ndarray:
    """Share of each pixel of a stamp centred on pixel (0, 0) that the fibre covers, (128, 128)."""
    subpixel = (np.arange(PADDED * 10) - 4.5) / 10 * PIXEL_SCALE
    subpixel = (subpixel + PADDED / 2 * PIXEL_SCALE) % (PADDED * PIXEL_SCALE) - PADDED / 2 * PIXEL_SCALE
    inside = np.hypot(subpixel[:, None], subpixel) < FIBRE_DIAMETER / 2
    return inside.reshape(PADDED, 10, PADDED, 10).mean((1, 3))


APERTURE = _aperture()
FIBRE_PSF = transform(galsim.Kolmogorov(fwhm=FIBRE_SEEING))


def fibre_fractions(shape: np.ndarray) -> np.ndarray:
    """Shares of the light of components that enter a centred DESI fibre: (K, 128, 65) -> (K,)."""
    return (np.fft.irfft2(shape * FIBRE_PSF) * APERTURE).sum((-2, -1))
