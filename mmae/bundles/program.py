"""The program of either family: an image in, an estimate of its redshift out."""

import torch
from torch import Tensor, nn

from mmae.bundles.image_pdf import ImagePdf
from mmae.bundles.image_redshift import ImageRedshift
from mmae.layers import pdf
from mmae.layers.conditions import unknown
from mmae.layers.pdf import Grid
from mmae.models.families import AnyModel
from mmae.models.mmae import Model
from mmae.models.output import Estimate

Program = ImagePdf | ImageRedshift
BATCH = 64


def program_of(model: AnyModel) -> Program:
    """What inference needs of a model: redshifts from images, spectra hidden."""
    return ImagePdf(model) if isinstance(model, Model) else ImageRedshift(model)


def estimates(program: nn.Module, image: Tensor, conditions: Tensor | None = None) -> Estimate:
    """The estimates of a program for images (N, bands, 64, 64), a batch at a time.

    conditions (N, 2 * bands + 1): of the images; NaN, or None: not known.
    """
    told = unknown(image) if conditions is None else conditions
    with torch.inference_mode():
        batches = zip(image.split(BATCH), told.split(BATCH), strict=True)
        parts = [program(pixels, None, known) for pixels, known in batches]
    return Estimate(*map(torch.cat, zip(*parts, strict=True)))


def best_redshift(estimate: Estimate, grid: Grid | None) -> Tensor:
    """The point estimate (N,) that a catalogue is evaluated by: of least risk, else the scalar head's."""
    return pdf.best(estimate.mass, grid)[0] if grid else estimate.point
