"""Images: GalSim's profiles and PSFs, multiplied in Fourier space; then noise and artefacts.

A profile is transformed once for all bands, and the transforms of all sources in a stamp are added before one
inverse transform per band: twenty times the rate of separate convolutions.
"""

import functools
from enum import IntEnum
from typing import NamedTuple

import galsim
import numpy as np

from catalogs.mock.cameras import HSC, Camera
from catalogs.mock.instruments import FIBRE_DIAMETER, FIBRE_SEEING
from catalogs.mock.population import NEIGHBOURS, Component, Source, draw_neighbour
from catalogs.store.format import SIZE

PADDED = 2 * SIZE
"""Pixels on a side of the transform, with room for light that it would otherwise wrap into the stamp."""
HALF_PLANE = galsim.BoundsI(0, PADDED // 2, -PADDED // 2, PADDED // 2 - 1)
SEEING_SCATTER = 0.1
"""Scatter of ln FWHM between fields and bands; bands of one field are observed on different nights."""
WINGS = 0.3
"""Share of the PSF's light in its wings: 8, 2 and 0.6 % of the peak are left at 2.2, 3.4 and 4.5 HWHM."""
SKY_CORRELATION = 0.1
"""Correlation of the noise of neighbouring pixels, which the coadd's warping smooths."""
STAR_COLOURS = {"u": -1.7, "g": -0.6, "r": 0.0, "i": 0.2, "z": 0.3, "y": 0.35}
"""How much brighter than in r a star of g - r = 0.6 is, AB magnitudes."""


@functools.cache
def wave_numbers(pixel_scale: float) -> tuple[np.ndarray, np.ndarray]:
    """Wave numbers along y and x of a transform, radians per arcsec, (128, 65) each."""
    ky, kx = np.meshgrid(
        2 * np.pi * np.fft.fftfreq(PADDED, pixel_scale),
        2 * np.pi * np.fft.rfftfreq(PADDED, pixel_scale),
        indexing="ij",
    )
    return ky, kx


def transform(profile: galsim.GSObject, pixel_scale: float) -> np.ndarray:
    """Fourier transform of a profile on the half plane of a real image, (128, 65)."""
    _, kx = wave_numbers(pixel_scale)
    plane = profile.drawKImage(galsim.ImageCD(HALF_PLANE), scale=kx[0, 1], recenter=False)
    return np.fft.ifftshift(plane.array, axes=0)


def shift(offset: np.ndarray, pixel_scale: float) -> np.ndarray:
    """Transform of a point at an offset (y, x) in arcsec from pixel (32, 32), (128, 65)."""
    y, x = offset + SIZE / 2 * pixel_scale
    ky, kx = wave_numbers(pixel_scale)
    return np.exp(-1j * (ky * y + kx * x))


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


def transforms(source: Source, rng: np.random.Generator, camera: Camera) -> np.ndarray:
    """Transforms of the components of a source at flux 1, (K, 128, 65)."""
    profiles = [profile(component, rng) for component in source.components]
    return np.stack([transform(each, camera.pixel_scale) for each in profiles])


def _psf() -> galsim.GSObject:
    """PSF of FWHM 1: turbulence, and wings of twice its width with the share WINGS of the light."""
    psf = galsim.Kolmogorov(fwhm=1.0) * (1 - WINGS) + galsim.Kolmogorov(fwhm=2.0) * WINGS
    return psf.dilate(1 / psf.calculateFWHM())


PSF = _psf()


def seeing(rng: np.random.Generator, camera: Camera) -> tuple[np.ndarray, np.ndarray]:
    """Optical transfer functions of one field, pixel response included: (bands, 128, 65); FWHM in arcsec."""
    psfs, widths = [], np.array(camera.seeing) * rng.lognormal(0, SEEING_SCATTER, len(camera.seeing))
    for fwhm in widths:
        e1, e2 = rng.normal(0, 0.015, 2)
        psfs.append(transform(PSF.dilate(fwhm).shear(e1=e1, e2=e2), camera.pixel_scale))
    return np.stack(psfs), widths


def render(
    camera: Camera, sources: list[Source], shapes: list[np.ndarray], offsets: np.ndarray, psf: np.ndarray
) -> np.ndarray:
    """Noiseless stamp: each source at its offset (arcsec along y, x) from pixel (32, 32); (bands, 64, 64)."""
    light = np.zeros((len(camera.bands), *shapes[0].shape[1:]), complex)
    for source, shape, offset in zip(sources, shapes, offsets, strict=True):
        flux = np.stack([camera.flux(component.sed) for component in source.components])  # (K, bands)
        light += np.einsum("kb,kyx->byx", flux, shape) * shift(offset, camera.pixel_scale)
    return np.fft.irfft2(light * psf)[:, :SIZE, :SIZE]


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of variance 1 whose neighbours along y and x (the last two axes) are correlated."""
    rows, columns = shape[-2:]
    white = rng.standard_normal((*shape[:-2], rows + 2, columns + 2))
    a = SKY_CORRELATION / 2  # to first order
    along_y = white[..., 1:-1, :] + a * (white[..., :-2, :] + white[..., 2:, :])
    correlated = along_y[..., 1:-1] + a * (along_y[..., :-2] + along_y[..., 2:])
    return correlated / (1 + 2 * a**2)


class Stamp(NamedTuple):
    """The image of an object, and what its survey says of it."""

    image: np.ndarray
    """(bands, 64, 64) float32"""
    artefact: "Artefact"
    psf_fwhm: np.ndarray
    """(bands,) arcsec, pixel response included"""
    mask: np.ndarray
    """(64, 64) bool, True = bad: saturated, or under a bleed trail, in any band"""


def observe_image(
    rng: np.random.Generator,
    camera: Camera,
    source: Source,
    shape: np.ndarray,
    artefact_share: float,
    dust: np.ndarray | None = None,
) -> Stamp:
    """Stamp with neighbours, the noise of the sky and of the sources, and possibly an artefact.

    `shape` are the transforms of the source; `dust` (len(GRID),) what is let pass of its neighbours' light.
    """
    psf, psf_fwhm = seeing(rng, camera)
    neighbours = [draw_neighbour(rng).behind(dust) for _ in range(rng.poisson(mean_neighbours(camera)))]
    shapes = [shape, *(transforms(neighbour, rng, camera) for neighbour in neighbours)]
    max_offset = np.array([0.5] + [SIZE / 2] * len(neighbours)) * camera.pixel_scale
    offsets = rng.uniform(-1, 1, (len(max_offset), 2)) * max_offset[:, None]
    light = render(camera, [source, *neighbours], shapes, offsets, psf)
    artefact = Artefact(int(rng.integers(1, len(Artefact))) if rng.random() < artefact_share else 0)
    if artefact is Artefact.SATURATED_NEIGHBOUR:
        light += bright_star(rng, camera, psf)
    sky_sigma, gain = (np.array(each)[:, None, None] for each in (camera.sky_sigma, camera.gain))
    variance = sky_sigma**2 + np.maximum(light, 0) / gain
    image = light + np.sqrt(variance) * noise(rng, light.shape)
    saturated = (image >= camera.saturation).any(0)
    image = np.minimum(image, camera.saturation)
    trail = add_artefact(rng, camera, image, artefact)
    return Stamp(image.astype(np.float32), artefact, psf_fwhm, saturated | trail)


def mean_neighbours(camera: Camera) -> float:
    """Mean number of neighbours in a stamp, in proportion to its area."""
    return NEIGHBOURS * (camera.pixel_scale / HSC.pixel_scale) ** 2


# --- Artefacts ---------------------------------------------------------------------------------------------


class Artefact(IntEnum):
    """Artefacts of images; the values are codes of the truth table."""

    NONE = 0
    BLEED_TRAIL = 1
    MISSING_BAND = 2
    NAN_PATCH = 3
    SATURATED_NEIGHBOUR = 4


def bright_star(rng: np.random.Generator, camera: Camera, psf: np.ndarray) -> np.ndarray:
    """A star of magnitude 14 to 17 in the outskirts of the stamp, (bands, 64, 64)."""
    colours = np.array([STAR_COLOURS[name] for name in camera.filters])
    magnitude = rng.uniform(14, 17) - colours * rng.uniform(0.5, 3)  # blue to red
    offset = rng.choice([-1, 1], 2) * rng.uniform(16, 32, 2) * camera.pixel_scale
    flux = 10 ** (0.4 * (camera.zero_point - magnitude))
    star = flux[:, None, None] * psf * shift(offset, camera.pixel_scale)
    return np.fft.irfft2(star)[:, :SIZE, :SIZE]


def add_artefact(
    rng: np.random.Generator, camera: Camera, image: np.ndarray, artefact: Artefact
) -> np.ndarray:
    """Add an artefact to an image (bands, 64, 64), in place; gives the pixels (64, 64) of a bleed trail."""
    band, trail = rng.integers(len(image)), np.zeros(image.shape[1:], bool)
    if artefact is Artefact.MISSING_BAND:
        image[band] = 0
    elif artefact is Artefact.NAN_PATCH:
        (top, left), (height, width) = rng.integers(0, SIZE - 8, 2), rng.integers(4, 33, 2)
        image[band, top : top + height, left : left + width] = np.nan
    elif artefact is Artefact.BLEED_TRAIL:  # charge of a saturated star beyond the stamp, along a column
        left, width = rng.integers(SIZE), rng.integers(2, 6)
        height = camera.saturation * rng.uniform(0.05, 1) * np.exp(-np.arange(SIZE) / rng.uniform(20, 200))
        image[band, :, left : left + width] += height[:: rng.choice([-1, 1]), None]
        trail[:, left : left + width] = True
    return trail


# --- The fibre ---------------------------------------------------------------------------------------------


@functools.cache
def _aperture(pixel_scale: float) -> np.ndarray:
    """Share of each pixel of a stamp centred on pixel (0, 0) that the fibre covers, (128, 128)."""
    subpixel = (np.arange(PADDED * 10) - 4.5) / 10 * pixel_scale
    subpixel = (subpixel + PADDED / 2 * pixel_scale) % (PADDED * pixel_scale) - PADDED / 2 * pixel_scale
    inside = np.hypot(subpixel[:, None], subpixel) < FIBRE_DIAMETER / 2
    return inside.reshape(PADDED, 10, PADDED, 10).mean((1, 3))


@functools.cache
def _fibre_psf(pixel_scale: float) -> np.ndarray:
    """Optical transfer function at the fibres, (128, 65)."""
    return transform(galsim.Kolmogorov(fwhm=FIBRE_SEEING), pixel_scale)


def fibre_fractions(shape: np.ndarray, camera: Camera) -> np.ndarray:
    """Shares of the light of components that enter a centred DESI fibre: (K, 128, 65) -> (K,)."""
    light = np.fft.irfft2(shape * _fibre_psf(camera.pixel_scale))
    return (light * _aperture(camera.pixel_scale)).sum((-2, -1))
