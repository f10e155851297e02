"""Patches of images, 64 of 8 x 8 pixels, row by row: the image tokens of both models."""

from torch import Tensor

from catalogs.store.format import SIZE

PATCH = 8
SIDE = SIZE // PATCH
IMAGE_TOKENS = SIDE**2


def patches(image: Tensor, patch: int = PATCH) -> Tensor:
    """(B, bands, 64, 64) -> (B, 64, bands * 64). `patch` is an argument for TorchScript."""
    grid = image.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # (B, bands, 8, 8, 8, 8)
    return grid.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def unpatch(tokens: Tensor) -> Tensor:
    """(B, 64, bands * 64) -> (B, bands, 64, 64)."""
    grid = tokens.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (SIDE, SIDE))
    return grid.permute(0, 3, 1, 4, 2, 5).flatten(2, 3).flatten(3)


def pixels_of(tokens: Tensor, patch: int = PATCH) -> Tensor:
    """A value of each token (B, 64) at all of its pixels: (B, 1, 64, 64)."""
    side = int(tokens.shape[1] ** 0.5)
    grid = tokens.view(-1, 1, side, side)
    return grid.repeat_interleave(patch, 2).repeat_interleave(patch, 3)


def known_pixels(image: Tensor) -> tuple[Tensor, Tensor]:
    """Images (B, bands, 64, 64) with 0 for NaN, which is no data; and whether there are: 1 or 0."""
    unknown = image.isnan()
    return image.masked_fill(unknown, 0.0), (~unknown).to(image.dtype)


def observed_bands(image: Tensor) -> Tensor:
    """Which bands of images (B, bands, 64, 64) have any data: (B, bands) bool."""
    return ~image.isnan().flatten(2).all(2)
