"""What is fitted to galaxies after training: the width of p(z), how sure a class is, and what is typical."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from catalogs.products.screen import LEAST_BANDS
from catalogs.store.format import SPECTYPES
from mmae.bundles.image_pdf import ImagePdf
from mmae.bundles.program import Program, estimates
from mmae.bundles.sample import Sample
from mmae.layers import pdf
from mmae.layers.conditions import SHALLOWEST, split_told, unknown
from mmae.layers.patches import observed_bands
from mmae.layers.pdf import Grid
from mmae.layers.photometry import set_of
from mmae.models.masking import Masks, shallower
from mmae.models.output import Estimate

PIT_PIECES, PIT_RESOLUTION = 16, 5e-3
"""Of the polylines that p(z) is calibrated by, and the least step between two of their levels."""
MOST_IMAGES, LEAST_ROWS = 2**15, 256
"""Images without some of the bands that are looked at, about, and for each set of bands at least."""
MOST_SHALLOW, LEAST_KNOWN = 2048, 2
"""Galaxies to whose images noise is added, and those that a width is fitted to, at the least."""
LEAST_APART = 0.1
"""Entropies, in nats, between which one map of p(z) passes into the other: so that no rounding decides."""


def calibrate(program: Program, sample: Sample) -> dict[str, Any]:
    """Fit the width of p(z), and what is typical, to galaxies; gives what the card says of it."""
    if sample.redshift is None:
        return {"galaxies": "none", "p(z)": "as the model gives it", "typicality": "not known", "tail": False}
    of_trained, of_others = sample.conditions
    others = estimates(program, sample.image, of_others)
    program.typicality.fit(estimates(program, sample.trained, of_trained).joint, others.joint)
    fitted: dict[str, Any] = {"p(z)": "none"}
    if isinstance(program, ImagePdf):
        fitted = calibrate_sets(program, sample.image, sample.redshift, of_others, sample.spectype)
    return {
        "galaxies": f"{len(others.joint)} {sample.name}",
        **fitted,
        "typicality": f"distances of {len(others.joint)} galaxies from {len(sample.trained)}",
        "tail": bool(program.typicality.threshold.isfinite()),
    }


def calibrate_sets(
    program: ImagePdf,
    image: Tensor,
    redshift: Tensor,
    conditions: Tensor | None = None,
    spectype: Tensor | None = None,
) -> dict[str, Any]:
    """Fit p(z), and the probabilities of classes, to images (N, bands, 64, 64), for every set of bands.

    p(z) twice: as deep as the images are, and with the most noise that the model has seen. Gives what was
    fitted to all bands at the former.
    redshift (N,): NaN of a star; conditions (N, 2 * bands + 1): of the images; NaN, or None: not known;
    spectype (N,): codes of SPECTYPES; 0, or None: not known.
    """
    bands, sets = image.shape[1], program.temperature.shape[1]
    spectype = torch.zeros(len(image)) if spectype is None else spectype
    fits, sureness = {number: Width.unknown() for number in range(sets)}, torch.ones(sets)
    for number, rows, estimate in estimates_of_sets(program, image, conditions, MOST_IMAGES):
        fits[number] = width_of_known(estimate, redshift[rows], program.grid) or fits[number]
        has_class = spectype[rows] > 0
        if program.class_head is not None and has_class.any():
            logits = estimate.spectype[has_class].clamp(min=1e-30).log()
            sureness[number] = temperature(logits, spectype[rows][has_class].long() - 1)
    shallow = dict(fits)
    known = redshift.isfinite().nonzero()[:, 0][:MOST_SHALLOW]
    told = unknown(image[known]) if conditions is None else conditions[known]
    noisier = shallowest(image[known], told)
    for number, rows, estimate in estimates_of_sets(program, *noisier, MOST_IMAGES // 2):
        shallow[number] = width_of_known(estimate, redshift[known][rows], program.grid) or fits[number]
    of_depths = [[torch.stack(part) for part in zip(*of.values(), strict=True)] for of in (fits, shallow)]
    program.temperature, program.levels, program.widths = map(torch.stack, zip(*of_depths, strict=True))
    program.class_temperature = sureness
    fitted = fits[sets - 1].as_json() | {"shallowest": shallow[sets - 1].as_json()}
    fitted["sets of bands"] = 2**bands - bands - 1
    if program.class_head is None:
        return {"p(z)": fitted}
    counts = {name: int((spectype == code).sum()) for code, name in enumerate(SPECTYPES) if name}
    return {"p(z)": fitted, "classes": {"temperature": float(sureness[-1]), "objects": counts}}


def shallowest(image: Tensor, conditions: Tensor) -> tuple[Tensor, Tensor]:
    """Images (N, bands, 64, 64) and their conditions with the most noise that is added in training."""
    rows = len(image)
    seen = torch.zeros(rows, 1, dtype=torch.bool)
    noisier = Masks.of_tokens(seen, seen, seen, image.shape[1])
    seeds = torch.arange(rows)
    return shallower(
        image, conditions, noisier._replace(noise=torch.full((rows,), SHALLOWEST), noise_seed=seeds)
    )


def estimates_of_sets(
    program: ImagePdf, image: Tensor, conditions: Tensor | None, most: int
) -> Iterator[tuple[int, Tensor, Estimate]]:
    """Of every set of two bands or more of images (N, bands, 64, 64): its number, the rows, estimates.

    Objects of a survey that has these bands and no others tell best, if they are enough; else other bands are
    hidden from those that have more. Sets that fewer than two objects have are left out. A model that takes
    columns is calibrated without and with those that objects have; the numbers of these are 2^bands higher.
    most : images without some of the bands, about
    """
    bands = image.shape[1]
    observed = observed_bands(image)
    told = unknown(image) if conditions is None else conditions
    sets = {number: set_of(number, bands) for number in range(2**bands)}
    several = {number: seen for number, seen in sets.items() if seen.sum() >= LEAST_BANDS}
    of_a_part = max(LEAST_ROWS, most // len(several))
    for number, seen in several.items():
        rows = (observed == seen).all(1).nonzero()[:, 0]
        if len(rows) < LEAST_ROWS:
            rows = observed[:, seen].all(1).nonzero()[:, 0]
        rows = rows if seen.all() else rows[:of_a_part]
        if len(rows) >= 2:
            hidden = ~seen
            seen_only = image[rows].masked_fill(hidden[:, None, None], torch.nan)
            of_image, columns = split_told(told[rows], bands, program.column_number)
            yield number, rows, estimates(program, seen_only, of_image)
            if (known := ~columns.isnan().all(1)).any():
                yield 2**bands + number, rows[known], estimates(program, seen_only[known], told[rows][known])


class Width(NamedTuple):
    """What makes p(z) as wide as its errors are; see ImagePdf."""

    temperature: Tensor
    """()"""
    levels: Tensor
    """(2, PIT_PIECES + 1)"""
    entropies: Tensor
    """(2,)"""

    def as_json(self) -> dict[str, Any]:
        return {
            "temperature": float(self.temperature),
            "entropies": self.entropies.tolist(),
            "PIT levels": self.levels.tolist(),
        }

    @classmethod
    def unknown(cls) -> Self:
        """The width that the model gives."""
        uniform = torch.linspace(0, 1, PIT_PIECES + 1)
        return cls(torch.ones(()), uniform.repeat(2, 1), torch.tensor([0.0, 1.0]))


def width_of_known(estimate: Estimate, redshift: Tensor, grid: Grid) -> Width | None:
    """The width of p(z) of those of the objects (N,) that have a redshift; None where they are too few."""
    known = redshift.isfinite()
    return width_of(estimate.mass[known], redshift[known], grid) if known.sum() >= LEAST_KNOWN else None


def width_of(mass: Tensor, redshift: Tensor, grid: Grid) -> Width:
    """Fit the width of p(z), mass (N, K) as the model gives it, and then its CDF, to redshifts (N,).

    The temperature alone would make bright galaxies pay for the outliers: the likelihood asks for wide tails,
    and one width serves tails and core. The CDFs of the narrower half, those of bright galaxies, and of the
    wider one are mapped apart.
    """
    logits = mass.clamp(min=1e-30).log()
    divisor = temperature(logits, grid.bin(redshift))
    mass = (logits / divisor).softmax(1)
    pit, width = pdf.cdf(mass, grid, redshift), pdf.entropy(mass)
    order, n = width.argsort(), len(width)
    halves = order[: n - n // 2], order[n // 2 :]
    narrow, wide = (width[half].median() for half in halves)
    return Width(
        torch.tensor(divisor),
        torch.stack([pit_levels(pit[half]) for half in halves]),
        torch.stack([narrow, torch.maximum(wide, narrow + LEAST_APART)]),
    )


def pit_levels(pit: Tensor) -> Tensor:
    """Quantiles of the PIT (N,) of galaxies, from 0 to 1, ascending: (PIT_PIECES + 1,)."""
    levels = pit.quantile(torch.linspace(0, 1, PIT_PIECES + 1))
    levels[0], levels[-1] = 0.0, 1.0
    least = PIT_RESOLUTION * torch.arange(PIT_PIECES + 1)
    return (levels - least).cummax(0).values.clamp(max=1 - least[-1]) + least


def temperature(logits: Tensor, right: Tensor) -> float:
    """What to divide logits (N, K) by for the answers (N,), from 0 to K - 1, to be likeliest: 1/4 to 4."""
    candidates = torch.logspace(-2, 2, 161, base=2.0)
    losses = [nn.functional.cross_entropy(logits / candidate, right) for candidate in candidates]
    return float(candidates[torch.stack(losses).argmin()])
