"""The likeliest image of a galaxy by what is visible of it: the first guess of the hidden part.

On the asinh scale images of bright and faint galaxies differ in a few numbers: the mean of the training set,
and its first principal components, fitted to the visible pixels, foretell the hidden ones. That is their
linear least-squares estimate, about the coefficients that the network expects, as spectra with gaps are
fitted by templates (Connolly & Szalay 1999, AJ 117, 2052).
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from catalogs.store.format import SIZE
from mmae.layers.patches import IMAGE_TOKENS, patches
from mmae.layers.photometry import asinh
from mmae.layers.rings import by_band

COMPONENTS = 32
"""Principal components, which all bands share."""
OVERSAMPLED, PASSES = 10, 3
"""Of the randomised decomposition: components beside those wanted, and passes over the covariance."""
AT_ONCE = 128
"""Galaxies that are looked at together, when the components are found."""
LEANING = 30
"""How many galaxies the mean over all bands counts for beside those of a band."""
LEAST_VARIANCE = 0.02
"""Of pixels and coefficients: what a small sample tells too well, and noise that rounding hides."""


class ImageFit(nn.Module):
    """Mean image of each band and components of all, fitted band by band to the visible pixels."""

    mean: Tensor
    """(bands, 4096), asinh of signal to noise, in the order of the patches"""
    components: Tensor
    """(C, 4096), orthonormal"""
    variance: Tensor
    """(bands, C), of their coefficients"""
    residual: Tensor
    """(4096,), variance of a pixel about its fit"""

    def __init__(self, bands: int, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(bands, SIZE**2))
        self.register_buffer("components", torch.zeros(COMPONENTS, SIZE**2))
        self.register_buffer("variance", torch.ones(bands, COMPONENTS))
        self.register_buffer("residual", torch.ones(SIZE**2))
        self.expected = nn.Linear(width, bands * COMPONENTS)
        """In units of their scatter."""
        nn.init.zeros_(self.expected.weight)
        nn.init.zeros_(self.expected.bias)

    def forward(self, pixels: Tensor, weights: Tensor, joint: Tensor, noise: Tensor) -> Tensor:
        """Patches (B, 64, bands * 64) of the likeliest image, on the asinh scale.

        pixels (B, 64, bands * 64), finite, in units of the noise of the sky of the training set; weights, of
        their shape and type: 1 = visible, 0 = not; joint (B, D); noise (B, bands) of these images, in the
        same units
        """
        light = by_band(pixels, self.mean)  # (B, bands, 4096)
        # what shallower images have more than is in the residual: on the asinh scale bright pixels have less
        added = (noise.square() - 1).clamp(min=0).sqrt().unsqueeze(2) / (1 + light.square()).sqrt()
        weight = by_band(weights, self.mean) / (self.residual + asinh(added).square())
        first, second = torch.triu_indices(COMPONENTS, COMPONENTS, device=pixels.device)
        products = self.components[first] * self.components[second]
        normal = pixels.new_zeros(*weight.shape[:2], COMPONENTS, COMPONENTS)
        normal[..., first, second] = normal[..., second, first] = weight @ products.T
        normal = normal + torch.diag_embed(1 / self.variance)
        expected = self.expected(joint).unflatten(1, self.variance.shape) / self.variance.sqrt()
        beside = (asinh(light) - self.mean) * weight
        right = beside @ self.components.T + expected
        coefficients = torch.linalg.solve_ex(normal, right)[0]  # `solve` would wait for a GPU
        likeliest = self.mean + coefficients @ self.components
        return likeliest.unflatten(2, (IMAGE_TOKENS, -1)).transpose(1, 2).flatten(2)

    @torch.no_grad()
    def fit(self, pixels: Tensor, known: Tensor) -> None:
        """Take mean and components from patches (N, 64, bands * 64) of images, in units of the sky noise.

        known, of their shape and type: 1 = there are data, 0 = there are none.
        """
        self._take_means(pixels, known)
        number, seen = 0, torch.zeros_like(self.residual)
        covariance = seen.new_zeros(SIZE**2, SIZE**2)
        for beside, there in self._beside(pixels, known):
            planes = beside[there.any(2)]
            covariance.addmm_(planes.T, planes)
            seen, number = seen + there.sum((0, 1)), number + len(planes)
        covariance, share = covariance / max(1, number), seen / max(1, number)
        for turn in turns():
            covariance, share = (covariance + covariance[turn][:, turn]) / 2, (share + share[turn]) / 2
        with torch.random.fork_rng(devices=[]):  # ranks draw alike, and what is drawn later is as without
            torch.manual_seed(0)
            found = torch.svd_lowrank(covariance, COMPONENTS + OVERSAMPLED, PASSES)[2][:, :COMPONENTS]
        self.components.copy_(found.T)
        left = covariance.diagonal() - ((covariance @ found) * found).sum(1)
        self.residual.copy_(left / share.clamp(min=1 / SIZE**2)).clamp_(min=LEAST_VARIANCE)
        self._take_variances(pixels, known)

    @torch.no_grad()
    def measure(self, pixels: Tensor, known: Tensor) -> None:
        """Take mean images, and variances of the coefficients of these components; arguments as for `fit`."""
        self._take_means(pixels, known)
        self._take_variances(pixels, known)

    def _take_means(self, pixels: Tensor, known: Tensor) -> None:
        self.mean.zero_()
        total, number = torch.zeros_like(self.mean), torch.zeros_like(self.mean)
        for light, there in self._beside(pixels, known):
            total, number = total + light.sum(0), number + there.sum(0)
        for turn in turns():
            total, number = (total + total[:, turn]) / 2, (number + number[:, turn]) / 2
        self.mean.copy_(shared(total, number))

    def _take_variances(self, pixels: Tensor, known: Tensor) -> None:
        squares, number = torch.zeros_like(self.variance), torch.zeros_like(self.variance)
        _, _, quarter = turns()
        for beside, there in self._beside(pixels, known):
            # components come in pairs, each the other one turned by a quarter
            for light in (beside, beside[..., quarter]):
                squares = squares + (light @ self.components.T).square_().sum(0)
                number = number + there.any(2).sum(0).unsqueeze(1)
        self.variance.copy_(shared(squares, number)).clamp_(min=LEAST_VARIANCE)

    def _beside(self, pixels: Tensor, known: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Light beside the mean, 0 without data, and where there are: some (n, bands, 4096) at a time."""
        for some, data in zip(pixels.split(AT_ONCE), known.split(AT_ONCE), strict=True):
            there = by_band(data, self.mean)
            yield (asinh(by_band(some, self.mean)) - self.mean) * there, there


def shared(total: Tensor, number: Tensor) -> Tensor:
    """Means (bands, ...) of values with these sums and numbers: those of few galaxies lean on all bands'."""
    of_all = total.sum(0) / number.sum(0).clamp(min=1)
    return (total + LEANING * of_all) / (number + LEANING)


def turns() -> list[Tensor]:
    """Where each pixel of patches lies in a flipped image, in one turned by half, and by a quarter: (4096,).

    To average over an image and its flip, then over these by half a turn, then by a quarter, is to average
    over the eight symmetries of a square: a galaxy is as likely in any orientation.
    """
    pixel = patches(torch.arange(SIZE**2).view(1, 1, SIZE, SIZE)).flatten()  # of each place
    place = pixel.argsort().view(SIZE, SIZE)
    return [turned.flatten()[pixel] for turned in (place.T, torch.rot90(place, 2), torch.rot90(place))]
