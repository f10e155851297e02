"""What is hidden in training: masks are boolean, True = hidden; and how images are changed otherwise."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from catalogs.products.screen import LEAST_BANDS
from mmae.layers.conditions import SHALLOWEST, border, sky_noise
from mmae.layers.gpu import sent
from mmae.layers.patches import known_pixels, patches

UNTOLD = 0.2
"""Share of the galaxies of which nothing is told but their image: so it may be with those to come."""


class Known(NamedTuple):
    """What is known of the objects of a batch, bool."""

    spectrum: Tensor
    """(B,)"""
    redshift: Tensor
    """(B,)"""
    spectype: Tensor
    """(B,), whether it is a star, a galaxy or a quasar"""
    columns: Tensor
    """(B, C), of a catalogue"""
    bands: Tensor
    """(B, bands), which were observed"""


class Masks(NamedTuple):
    """Masks of a batch, and the rotations, flips and noise of its images."""

    image: Tensor
    """(B, 64) bool, tokens, True = hidden"""
    spectrum: Tensor
    """(B, T) bool, tokens, True = hidden; all of them where there is no spectrum"""
    target: Tensor
    """(B, T) bool, True = hidden and to be rebuilt"""
    bands: Tensor
    """(B, bands) bool, True = hidden, in all of the image"""
    labelled: Tensor
    """(B,) bool, True = the redshift is known"""
    classified: Tensor
    """(B,) bool, True = it is known whether it is a star, a galaxy or a quasar"""
    turn: Tensor
    """(B,) int64, index of one of the eight symmetries of a square, applied to the image; 0: identity"""
    noise: Tensor
    """(B,) float32, factor by which the noise of the sky is increased; 1: not at all"""
    noise_seed: Tensor
    """(B,) int64, of the noise added: it does not depend on how the batch is divided"""
    untold: Tensor
    """(B,) bool, True = the conditions of the observation are hidden"""
    columns: Tensor
    """(B, C) bool, columns of a catalogue, True = hidden"""
    columns_target: Tensor
    """(B, C) bool, True = hidden, and to be rebuilt"""

    @classmethod
    def of_tokens(
        cls, image: Tensor, spectrum: Tensor, target: Tensor, bands: int, columns: int = 0
    ) -> "Masks":
        """Masks of tokens alone: the images are seen as they are, in all bands, and all columns."""
        rows = len(image)
        nothing = torch.zeros(rows, dtype=torch.int64, device=image.device)
        return cls(
            image=image,
            spectrum=spectrum,
            target=target,
            bands=nothing.bool()[:, None].expand(-1, bands),
            labelled=~nothing.bool(),
            classified=~nothing.bool(),
            turn=nothing,
            noise=1.0 + nothing,
            noise_seed=nothing,
            untold=nothing.bool(),
            columns=nothing.bool()[:, None].expand(-1, columns),
            columns_target=nothing.bool()[:, None].expand(-1, columns),
        )

    def rows(self, which: "slice | np.ndarray") -> "Masks":
        return Masks(*(tensor[which] for tensor in self))

    def to(self, device: torch.device) -> "Masks":
        """Copy on a device."""
        return Masks(*(sent(tensor, device) for tensor in self))

    def counts(self, parts: Iterable[str]) -> Tensor:
        """How many there are of what the parts of a loss are means over, (P,).

        Patches, in single bands, spectrum tokens and columns to be rebuilt; redshifts; and known classes.
        """
        of = {
            "image": self.image.unsqueeze(1) | self.bands.unsqueeze(2),
            "spectrum": self.target,
            "redshift": self.labelled,
            "spectype": self.classified,
            "columns": self.columns_target,
        }
        return torch.stack([of[part].sum() for part in parts]).float()

    def of(self, known: Known) -> "Masks":
        """The masks of objects of which this is known; bands are hidden only where LEAST_BANDS are left."""
        left = (known.bands & ~self.bands).sum(1, keepdim=True)
        return self._replace(
            bands=self.bands & (left >= LEAST_BANDS),
            spectrum=without_spectrum(self.spectrum, known.spectrum),
            target=self.target & known.spectrum[:, None],
            labelled=known.redshift,
            classified=known.spectype,
            columns_target=self.columns & known.columns,
        )


def random_mask(batch: int, tokens: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """Hide `int(ratio * tokens)` tokens of each galaxy, drawn without replacement: (B, tokens)."""
    assert 0 <= ratio <= 1, ratio
    noise = torch.rand(batch, tokens, generator=generator)
    return noise.argsort(1).argsort(1) < int(ratio * tokens)


def random_bands(batch: int, bands: int, share: float, generator: torch.Generator) -> Tensor:
    """Hide bands of a share of the galaxies, at least one and all but LEAST_BANDS at most: (B, bands).

    Their number is drawn first, and then which they are.
    """
    draws, order = torch.rand(2, batch, 1, generator=generator), torch.rand(batch, bands, generator=generator)
    number = 1 + (draws[0] * max(0, bands - LEAST_BANDS)).long()
    return (order.argsort(1).argsort(1) < number) & (draws[1] < share) & (bands > LEAST_BANDS)


def random_columns(batch: int, columns: int, generator: torch.Generator) -> Tensor:
    """Hide columns (B, C): none of half of the objects, shares from none to all of the others.

    To hide more of them cost their p(z) a quarter of its scatter in short trainings; what p(z) is without any
    is learned apart from it.
    """
    share, drawn = torch.rand(batch, 1, generator=generator), torch.rand(batch, columns, generator=generator)
    return drawn < 2 * share - 1


def random_noise(batch: int, share: float, generator: torch.Generator) -> Tensor:
    """Factors (B,) by which noise is increased: for a share of the galaxies, from 1 to SHALLOWEST."""
    exponent, drawn = torch.rand(2, batch, generator=generator)
    return SHALLOWEST ** (exponent * (drawn < share))


def shallower(image: Tensor, conditions: Tensor, masks: Masks) -> tuple[Tensor, Tensor]:
    """Images (B, bands, 64, 64) with white noise added, and their conditions (B, 2 * bands + 1).

    masks : on the host
    """
    chosen, bands, device = (masks.noise > 1).nonzero()[:, 0], image.shape[1], image.device
    if not len(chosen):
        return image, conditions
    rows, factor = sent(chosen, device), sent(masks.noise[chosen], device)
    pixels, known = map(patches, known_pixels(image[rows]))
    sky = sky_noise(pixels, known, sent(border(), device)).nan_to_num(0.0)
    added = sky * (factor**2 - 1).sqrt().unsqueeze(1)  # (m, bands)
    noisy = image[rows] + white(masks.noise_seed[chosen], image) * added[:, :, None, None]
    noise = (conditions[rows, :bands] ** 2 + added**2).sqrt()
    told = torch.cat([noise, conditions[rows, bands:]], 1)
    return image.index_copy(0, rows, noisy), conditions.index_copy(0, rows, told)


def white(seeds: Tensor, image: Tensor) -> Tensor:
    """Noise (m, bands, 64, 64) of unit scatter, on the device of images; seeds (m,), on the host."""
    drawn = torch.empty(len(seeds), *image.shape[1:], device=image.device)
    for noise, seed in zip(drawn, seeds.tolist(), strict=True):
        noise.normal_(generator=torch.Generator(image.device).manual_seed(seed))
    return drawn


def without_spectrum(mask: Tensor, present: Tensor) -> Tensor:
    """Hide the whole spectrum of the galaxies that have none; `present` is (B,), True = has one."""
    return mask | ~present[:, None]


def turned(image: Tensor, turn: Tensor) -> Tensor:
    """Images (B, bands, S, S), each rotated by `turn` (B,) quarter turns, and flipped first from 4 on.

    turn : on the host
    """
    if not turn.any():
        return image
    result = image.clone()
    for symmetry in range(1, 8):
        rows = sent((turn == symmetry).nonzero()[:, 0], image.device)
        flipped = image[rows].flip(3) if symmetry > 3 else image[rows]
        result.index_copy_(0, rows, torch.rot90(flipped, symmetry % 4, (2, 3)))
    return result
