"""Spectra as sums of templates that the model learns in the rest frame and redshifts.

A network that predicts the pixels of observed spectra has to learn every line again at every redshift, and
smears it over all redshifts that it cannot separate. Here a line is learned once, and its observed wavelength
is computed. The visible part of a spectrum updates the coefficients that the network expects, as in the
classical fit of spectra with gaps (Connolly & Szalay 1999, AJ 117, 2052).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogs.store.spectra import STORED_POOL
from catalogs.surveys.desi import FIRST, STEP

LOG_STEP = 5e-4
"""Step of the rest-frame grid in ln(wavelength), 3 A at H-alpha: at most a pixel of a training store."""
GAIN = 10.0
"""Scale of the templates, whose lines are ten times as high as the steps of an optimiser expect."""


class RestFrame(nn.Module):
    """Spectra from the joint representations, redshifts and visible pixels of galaxies.

    Redshifts are from 0 to z_max, pixels those of a training store.
    """

    log_wave: Tensor

    def __init__(self, width: int, templates: int, pixels: int, z_max: float):
        super().__init__()
        wave = FIRST + STEP * (STORED_POOL * torch.arange(pixels) + (STORED_POOL - 1) / 2)
        self.register_buffer("log_wave", wave.double().log().float(), persistent=False)
        self.start = float(self.log_wave[0]) - math.log1p(z_max)
        points = math.ceil((float(self.log_wave[-1]) - self.start) / LOG_STEP) + 2
        self.coefficients = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, templates)
        )
        self.templates = nn.Parameter(torch.zeros(templates, points))
        self.log_weight = nn.Parameter(torch.ones(templates))
        """Log weight of the expected coefficients: variance of a visible pixel over that of a coefficient."""

    def forward(self, joint: Tensor, redshift: Tensor, spectrum: Tensor, shown: Tensor) -> Tensor:
        """Observed spectra (B, L) of galaxies with joint representations (B, D) at redshifts (B,).

        spectrum (B, L), whose pixels with shown (B, L) = 1 are visible; the others are not used.
        """
        templates = self.observed(redshift)  # (B, L, K)
        expected = self.coefficients(joint)
        prior = (templates @ expected.unsqueeze(2)).squeeze(2)
        visible = (templates * shown.unsqueeze(2)).transpose(1, 2)
        normal = visible @ templates + torch.diag(self.log_weight.exp())
        # `solve` would wait for a GPU, to see whether it succeeded
        correction = torch.linalg.solve_ex(normal, visible @ (spectrum - prior).unsqueeze(2))[0]
        return prior + (templates @ correction).squeeze(2)

    def observed(self, redshift: Tensor) -> Tensor:
        """Templates at redshifts (B,), in the pixels of observed spectra: (B, L, K)."""
        last = self.templates.shape[1] - 2
        position = (self.log_wave - torch.log1p(redshift)[:, None] - self.start) / LOG_STEP  # (B, L)
        left = position.floor().clamp(0, last)
        share = (position - left).clamp(0, 1).unsqueeze(2)
        left, emitted = left.long(), GAIN * self.templates.t()
        return F.embedding(left, emitted) * (1 - share) + F.embedding(left + 1, emitted) * share
