"""Spectra as a galaxy emits them: sums of templates that the model learns in the rest frame, shifted by z.

A network that writes the pixels of observed spectra has to learn every line anew at every redshift, and
smears it over all redshifts that it cannot tell apart. Here a line is learned once; where it is seen is
arithmetic. And where a part of a spectrum is visible, it says how much of each template there is, as in the
classical fit of spectra with gaps (Connolly & Szalay 1999, AJ 117, 2052), about what the image lets expect.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogs.store.spectra import STORED_POOL
from catalogs.surveys.desi import FIRST, STEP

LOG_STEP = 5e-4
"""Of the rest-frame grid in ln(wavelength), 3 A at H-alpha: a pixel of a training store, at the least."""
GAIN = 10.0
"""Of the templates, whose lines are ten times as high as the steps of an optimiser expect."""


class RestFrame(nn.Module):
    """Spectra from what the model knows of galaxies, from their redshifts and from what is visible of them.

    Redshifts are those from 0 to z_max, pixels those of a training store.
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
        """Of the expected coefficients against a visible pixel: ratio of variances, its and theirs."""

    def forward(self, joint: Tensor, redshift: Tensor, spectrum: Tensor, shown: Tensor) -> Tensor:
        """Observed spectra (B, L) of galaxies with joint representations (B, D) at redshifts (B,).

        spectrum (B, L), of which the pixels with shown (B, L) = 1 are visible; the others have no say.
        """
        seen = self.observed(redshift)  # (B, L, K)
        expected = self.coefficients(joint)
        made = (seen @ expected.unsqueeze(2)).squeeze(2)
        visible = (seen * shown.unsqueeze(2)).transpose(1, 2)
        normal = visible @ seen + torch.diag(self.log_weight.exp())
        missing = torch.linalg.solve(normal, visible @ (spectrum - made).unsqueeze(2))
        return made + (seen @ missing).squeeze(2)

    def observed(self, redshift: Tensor) -> Tensor:
        """The templates at redshifts (B,), in the pixels of observed spectra: (B, L, K)."""
        last = self.templates.shape[1] - 2
        place = (self.log_wave - torch.log1p(redshift)[:, None] - self.start) / LOG_STEP  # (B, L)
        left = place.floor().clamp(0, last)
        share = (place - left).clamp(0, 1).unsqueeze(2)
        left, emitted = left.long(), GAIN * self.templates.t()
        return F.embedding(left, emitted) * (1 - share) + F.embedding(left + 1, emitted) * share
