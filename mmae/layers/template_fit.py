"""Likelihood of redshifts from the visible pixels of a spectrum: fits of templates at all redshifts, by FFT.

On a grid of equal steps in ln(wavelength) a redshift is a shift of the templates, and the sums over pixels of
a weighted fit are correlations (Glazebrook, Offer & Deeley 1998, ApJ 492, 98). The p(z) from the network is
the prior.
"""

import math

import torch
from torch import Tensor

from catalogs.store.spectra import STORED_POOL
from catalogs.surveys.desi import STEP
from mmae.layers.pdf import Grid
from mmae.layers.rest_frame import GAIN, LOG_STEP, RestFrame

MIN_RELATIVE_MASS = 1e-4
"""Smallest mass of a bin of p(z), relative to the highest, for which redshifts are tried."""
INDEPENDENT = 0.3
"""Fraction of the pixels that are independent: residuals from the templates are correlated in neighbours. If
all pixels counted, 7.7 % of redshifts would be outliers instead of 5 %, at 75 % of images and spectra hidden
(300 mock galaxies)."""


class TemplateFit:
    """Templates, with the quantities of the fit that are the same for all galaxies."""

    def __init__(self, frame: RestFrame, grid: Grid):
        templates = (GAIN * frame.templates).double()  # (K, G)
        self.frame, self.grid = frame, grid
        self.length = 2 ** math.ceil(math.log2(templates.shape[1]))  # a fast length of the FFT
        self.pairs = torch.triu_indices(len(templates), len(templates), device=templates.device)
        self.templates = torch.fft.rfft(templates, self.length)
        self.products = torch.fft.rfft(templates[self.pairs[0]] * templates[self.pairs[1]], self.length)
        self.ridge = torch.diag(frame.log_weight.double().exp())
        farthest = math.log1p(grid.z_max)
        shifts = torch.arange(math.floor(farthest / LOG_STEP) + 1, device=templates.device)
        self.redshift = torch.expm1(farthest - LOG_STEP * shifts)
        """(S,), redshift of every shift."""
        self.bins = grid.bin(self.redshift)

    def sharpened(
        self, logits: Tensor, joint: Tensor, spectrum: Tensor, shown: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Logits (K,) of the p(z) of a galaxy, updated with the visible pixels of its spectrum; its peak, ().

        logits (K,) of the prior p(z); joint (D,); spectrum (L,), visible in pixels with shown (L,) = 1.
        """
        prior = logits.double().log_softmax(0)
        tried = (prior > prior.max() + math.log(MIN_RELATIVE_MASS))[self.bins]
        bins = self.bins[tried]
        posterior = prior[bins] + self.log_likelihood(joint, spectrum, shown, tried)
        mass = torch.zeros_like(prior).index_add(0, bins, (posterior - posterior.max()).exp())
        smallest = torch.finfo(logits.dtype).tiny
        peak = self.redshift[tried][posterior.argmax()]
        return mass.clamp(min=smallest).log().to(logits.dtype), peak.to(logits.dtype)

    def log_likelihood(self, joint: Tensor, spectrum: Tensor, shown: Tensor, tried: Tensor) -> Tensor:
        """Log-likelihood of the visible pixels at the tried ones of the shifts (S,): (S',), up to a constant.

        Coefficients have the Gaussian prior of `RestFrame`. The variance of noise and template mismatch is
        taken from the residuals of the fit.
        """
        expected = self.frame.coefficients(joint.unsqueeze(0))[0].double()
        flux, weight = on_log_grid(self.frame.log_wave.double().exp(), spectrum, shown)
        products = self.correlated(self.products, weight)[tried]
        normal = products.new_zeros(len(products), len(expected), len(expected))
        normal[:, self.pairs[0], self.pairs[1]] = normal[:, self.pairs[1], self.pairs[0]] = products
        projection = self.correlated(self.templates, weight * flux)[tried]
        residual = projection - normal @ expected
        chi2_prior = (weight * flux**2).sum() - (projection + residual) @ expected
        decrease = (residual * torch.linalg.solve(normal + self.ridge, residual)).sum(1)
        chi2 = (chi2_prior - decrease).clamp(min=torch.finfo(torch.float32).tiny)
        return -0.5 * INDEPENDENT * shown.sum() * chi2.log()

    def correlated(self, series: Tensor, pixels: Tensor) -> Tensor:
        """Correlations of pixels (P,) with M series, passed as FFTs, at every shift: (S, M)."""
        sums = torch.fft.irfft(series * torch.fft.rfft(pixels, self.length).conj(), self.length)
        return sums[:, : len(self.bins)].t()


def on_log_grid(wave: Tensor, spectrum: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Resample a spectrum (L,) to steps of LOG_STEP from its first pixel on: flux and weight, (P,).

    The weight of a point is its width in pixels, and 0 beside a hidden pixel.
    """
    width, points = STORED_POOL * STEP, math.floor(math.log(wave[-1] / wave[0]) / LOG_STEP) + 1
    grid = wave[0] * (LOG_STEP * torch.arange(points, device=wave.device, dtype=wave.dtype)).exp()
    position = (grid - wave[0]) / width
    left = position.floor().long().clamp(max=len(wave) - 2)
    flux = torch.lerp(spectrum[left].double(), spectrum[left + 1].double(), position - left)
    return flux, (shown[left] * shown[left + 1]).double() * grid * LOG_STEP / width
