"""The program of either family: an image in, an estimate of its redshift out."""

import torch
from torch import Tensor, nn

from mmae.bundles.image_pdf import ImagePdf
from mmae.bundles.image_redshift import ImageRedshift
from mmae.models import pdf
from mmae.models.families import AnyModel
from mmae.models.mmae import Model
from mmae.models.output import Estimate
from mmae.models.pdf import Grid

Program = ImagePdf | ImageRedshift
BATCH = 64


def program_of(model: AnyModel) -> Program:
    """What inference needs of a model: redshifts from images, spectra hidden."""
    return ImagePdf(model) if isinstance(model, Model) else ImageRedshift(model)


def estimates(program: nn.Module, image: Tensor) -> Estimate:
    """The estimates of a program for images (N, bands, 64, 64), a batch at a time."""
    with torch.inference_mode():
        parts = [program(part) for part in image.split(BATCH)]
    return Estimate(*map(torch.cat, zip(*parts, strict=True)))


def best_redshift(estimate: Estimate, grid: Grid | None) -> Tensor:
    """The point estimate (N,) that a catalogue is evaluated by: of least risk, else the scalar head's."""
    return pdf.best(estimate.mass, grid)[0] if grid else estimate.point
