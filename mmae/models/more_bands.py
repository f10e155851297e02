"""The weights of a model in one that takes more bands: those come first, and mean nothing at first.

Whatever a weight is of, it finds its place by the bands it is of. What is whitened of the other bands stays
what it was: the factor of a covariance is triangular, and so a band that comes first changes none of those
after it. So without the new bands the model is the one that it was.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mmae.layers.image_fit import COMPONENTS, ImageFit
from mmae.layers.patches import PATCH
from mmae.layers.photometry import FLOOR, RADII, Photometry, set_numbers, sets_of
from mmae.layers.whitening import whitening
from mmae.models.mmae import Model

LEAST_COMPLETE = 2
"""Galaxies with data in all bands of a survey, for their covariance."""


@torch.no_grad()
def adopt(model: Model, weights: Mapping[str, Tensor], image: Tensor, noise: Tensor) -> None:
    """Give a model the weights of one that lacks its first bands; the scales of these are of images.

    image (N, bands, 64, 64), NaN in bands that the survey lacks; noise (bands,): of the sky. Raises
    ValueError where too few images have all bands of the survey.
    """
    old, new = len(weights["noise"]), len(model.noise) - len(weights["noise"])
    own = model.state_dict()
    places = axes(old, new, len(model.config.columns), model.config.bins)
    networks = {name for name in own if name.startswith("photometric_pdf.")}
    for name in own.keys() & weights.keys() - networks:
        if own[name].shape == weights[name].shape:
            own[name].copy_(weights[name])
        elif name in places:
            axis, place = places[name]
            own[name].zero_().index_copy_(axis, place, weights[name])
    model.noise[:new] = noise[:new]
    _copy_networks(model, weights, old, new)
    pixels, known = model.pixels(image)
    _extend(model.photometry, weights, pixels, known, new)
    _extend_conditions(model, pixels, known, new)
    _extend_image_fit(model.image_fit, weights, pixels, known, new)


def axes(old: int, new: int, columns: int, bins: int) -> dict[str, tuple[int, Tensor]]:
    """By the name of a weight, the axis that has bands, and the places of the old ones in the new one."""
    rings, area = len(RADII), PATCH**2
    bands, total = new + torch.arange(old), new + old

    def pieces(size: int) -> Tensor:
        return size * new + torch.arange(size * old)

    pixels = torch.cat([pieces(area), area * total + bands, (area + 1) * total + bands])
    measured = torch.cat([pieces(rings), rings * total + torch.arange(rings)])
    photometry = torch.cat([measured, rings * (total + 1) + bands])
    by_band_and_one = torch.cat([bands, torch.tensor([total])])
    told = torch.cat([bands, total + by_band_and_one, 2 * total + 1 + by_band_and_one])
    beside = torch.cat([photometry, rings * (total + 1) + total + told])
    width = 2 * columns + rings * (total + 1) + 4 * total + 2
    of_columns = torch.cat([torch.arange(2 * columns), 2 * columns + beside, width + torch.arange(bins)])
    return {
        "noise": (0, bands),
        "image_embed.up.weight": (1, pixels),
        "photometry_embed.up.weight": (1, beside),
        "conditions.lowest": (0, bands),
        "conditions.highest": (0, bands),
        "conditions.centre": (0, by_band_and_one),
        "conditions.scale": (0, by_band_and_one),
        "image_fit.mean": (0, bands),
        "image_fit.variance": (0, bands),
        "image_fit.expected.weight": (0, pieces(COMPONENTS)),
        "image_fit.expected.bias": (0, pieces(COMPONENTS)),
        "decoder.image.weight": (0, pieces(area)),
        "decoder.image.bias": (0, pieces(area)),
        "column_pdf.0.weight": (1, of_columns),
        "photometric_pdf.up": (3, torch.cat([measured, rings * (total + 1) + told])),
    }


def _copy_networks(model: Model, weights: Mapping[str, Tensor], old: int, new: int) -> None:
    """Every set of bands begins with the networks of those of its bands that are old, if they are two."""
    networks = model.photometric_pdf
    for name in ("out", "out_bias"):
        getattr(networks, name).copy_(weights[f"photometric_pdf.{name}"])
    sizes = sets_of(torch.arange(2**old), old).sum(1)
    place = torch.full((2**old,), -1)
    place[sizes >= 2] = torch.arange(int((sizes >= 2).sum()))
    before = place[networks.numbers >> new]
    rows = (before >= 0).nonzero()[:, 0]
    _, features = axes(old, new, 0, 0)["photometric_pdf.up"]
    up = torch.zeros_like(networks.up[rows])
    networks.up[rows] = up.index_copy(3, features, weights["photometric_pdf.up"][before[rows]])
    for name in ("up_bias", "middle", "middle_bias"):
        getattr(networks, name)[rows] = weights[f"photometric_pdf.{name}"][before[rows]]


def _extend(
    photometry: Photometry, weights: Mapping[str, Tensor], pixels: Tensor, known: Tensor, new: int
) -> None:
    """Whiten the magnitudes of new bands, given the others; pixels, known: as from `Model.pixels`."""
    first = len(RADII) * new
    magnitudes, visible = photometry.measure(pixels, known)
    of_survey = (visible.unflatten(1, (-1, len(RADII))) > 0).any(2).any(0)
    whole = int(set_numbers(of_survey.unsqueeze(0)))
    if len(photometry.galaxies_of(whole, visible)[0]) < LEAST_COMPLETE:
        raise ValueError("no two galaxies have data in all bands of the survey")
    for number, (centre, matrix) in enumerate(zip(photometry.centre, photometry.whiten, strict=True)):
        centre[first:] = weights["photometry.centre"][number >> new]
        matrix.zero_()
        matrix[first:, first:] = weights["photometry.whiten"][number >> new]
        rows, places = photometry.galaxies_of(number & whole, visible)
        added = int((places < first).sum())
        if added:
            mean, whiten = whitening(magnitudes[rows][:, places], FLOOR)
            matrix[places.unsqueeze(1), places[:added]] = whiten[:, :added]
            # the others keep the centre of another survey: the new ones are moved until their means are 0
            shift = (mean - centre[places])[added:] @ whiten[added:, :added]
            centre[places[:added]] = mean[:added] + torch.linalg.solve(whiten[:added, :added].T, shift)


def _extend_conditions(model: Model, pixels: Tensor, known: Tensor, new: int) -> None:
    """Between which depths images in the new bands are told."""
    before = model.conditions.state_dict()
    kept = {name: values.clone() for name, values in before.items()}
    untold = pixels.new_full((len(pixels), 2 * len(model.noise) + 1), torch.nan)
    model.conditions.fit(pixels, known, model.noise, untold)
    for name in ("lowest", "highest"):
        getattr(model.conditions, name)[new:] = kept[name][new:]
    for name in ("centre", "scale"):
        getattr(model.conditions, name).copy_(kept[name])


def _extend_image_fit(
    fit: ImageFit, weights: Mapping[str, Tensor], pixels: Tensor, known: Tensor, new: int
) -> None:
    """Mean images of new bands, and how far theirs are from these along the components of the others."""
    fit.measure(pixels, known)
    for name in ("mean", "variance"):
        getattr(fit, name)[new:] = weights[f"image_fit.{name}"]
