"""What is fitted to galaxies after training: the width of p(z), how sure a class is, and what is typical."""

from collections.abc import Iterator
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from catalogs.products.screen import LEAST_BANDS
from catalogs.store.format import SPECTYPES
from mmae.bundles.image_pdf import ImagePdf
from mmae.bundles.likeness.backing import Backing
from mmae.bundles.likeness.selection import drawn, magnitudes
from mmae.bundles.program import Program, estimates
from mmae.bundles.sample import Sample
from mmae.bundles.stretch import Stretch, Terms, fit
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
DEPTHS = AS_THEY_ARE, MOST_NOISE = range(2)
"""Depths of images that p(z) is calibrated at."""
LEAST_APART = 0.1
"""Entropies, in nats, between which one map of p(z) passes into the other: so that no rounding decides."""


def calibrate(program: Program, sample: Sample) -> dict[str, Any]:
    """Fit the width of p(z), and what is typical, to galaxies; gives what the card says of it."""
    if sample.redshift is None:
        return {
            "galaxies": "none",
            "p(z)": "as the model gives it",
            "typicality": "not known",
            "colours": 0,
            "tail": False,
        }
    of_trained, of_others = sample.conditions
    others = estimates(program, sample.image, of_others)
    trained = estimates(program, sample.trained, of_trained)
    program.typicality.fit(trained.joint, others.joint)
    fitted: dict[str, Any] = {"p(z)": "none"}
    if isinstance(program, ImagePdf):
        remember(program, sample, trained)
        fitted = calibrate_sets(
            program, sample.image, sample.redshift, of_others, sample.spectype, sample.weight
        )
    return {
        "galaxies": f"{len(others.joint)} {sample.name}",
        **fitted,
        "typicality": f"distances of {len(others.joint)} galaxies from {len(sample.trained)}",
        "colours": len(trained.colours) if trained.colours.shape[1] else 0,
        "tail": bool(program.typicality.threshold.isfinite()),
    }


def remember(program: ImagePdf, sample: Sample, trained: Estimate) -> None:
    """Give a program the photometry of the galaxies that it was trained on.

    trained : what it says of them with the identity in the place of whitening
    """
    program.colours.fit(trained.colours)
    if sample.trained_redshift is not None:
        known = sample.trained[sample.trained_redshift.isfinite()]
        program.backing.remember(magnitudes(known, program.noise, program.own_light))


def calibrate_sets(
    program: ImagePdf,
    image: Tensor,
    redshift: Tensor,
    conditions: Tensor | None = None,
    spectype: Tensor | None = None,
    weight: Tensor | None = None,
) -> dict[str, Any]:
    """Fit p(z), and the probabilities of classes, to images (N, bands, 64, 64), for every set of bands.

    And at what distance galaxies like those with redshifts usually are from these. Gives what was fitted to
    all bands at the depth of the images.
    redshift (N,): NaN of a star; conditions (N, 2 * bands + 1): of the images; NaN, or None: not known;
    spectype (N,): codes of SPECTYPES; 0, or None: not known; weight (N,): how often each counts for p(z).
    """
    bands, sets = image.shape[1], program.temperature.shape[1]
    spectype = torch.zeros(len(image)) if spectype is None else spectype
    weight = torch.ones(len(image)) if weight is None else weight
    usual, sureness = torch.full((2, 2**bands), torch.nan), torch.ones(sets)
    widths = Widths(sets, bands, program.grid)
    for depth, number, rows, estimate in looked_at(program, image, conditions, redshift):
        widths.fit(depth, number, estimate, redshift[rows], weight[rows])
        if number < 2**bands:
            usual[depth, number] = Backing.usual_of(estimate.backing[redshift[rows].isfinite()])
        has_class = spectype[rows] > 0
        if program.class_head is not None and depth == AS_THEY_ARE and has_class.any():
            logits = estimate.spectype[has_class].clamp(min=1e-30).log()
            sureness[number] = temperature(logits, spectype[rows][has_class].long() - 1)
    widths.give(program)
    program.class_temperature, program.backing.usual = sureness, usual
    fitted = widths.as_json(sets - 1) | {"sets of bands": 2**bands - bands - 1}
    if program.class_head is None:
        return {"p(z)": fitted}
    counts = {name: int((spectype == code).sum()) for code, name in enumerate(SPECTYPES) if name}
    return {"p(z)": fitted, "classes": {"temperature": float(sureness[-1]), "objects": counts}}


class Widths:
    """The widths of p(z) of all sets of bands at both depths.

    Where a set has none of its own it is that of the set at the other depth, or what the model gives.
    """

    def __init__(self, sets: int, bands: int, grid: Grid):
        self.sets, self.grid = sets, grid
        self.stretch = Stretch(bands, grid.bins, grid.step, sets)
        self.fits: tuple[dict[int, Width], dict[int, Width]] = ({}, {})

    def fit(self, depth: int, number: int, estimate: Estimate, redshift: Tensor, weight: Tensor) -> None:
        """Fit that of a set to its estimates (N,), to those that have a redshift; weight (N,): how often.

        Nothing is fitted where they are too few.
        """
        known = redshift.isfinite()
        if known.sum() < LEAST_KNOWN:
            return
        mass, central, shallow = (part[known] for part in (estimate.mass, estimate.central, estimate.shallow))
        redshift, weight = redshift[known], weight[known]
        if (weight != 1).any():
            rows = torch.from_numpy(drawn(weight.double().numpy(), np.random.default_rng(0)))
            mass, central, shallow, redshift = mass[rows], central[rows], shallow[rows], redshift[rows]
        width = width_of(mass, central, shallow, number, redshift, self.grid, self.stretch)
        self.fits[depth][number] = width

    def of(self, depth: int, number: int) -> "Width":
        own, other = self.fits[depth], self.fits[1 - depth]
        return own.get(number) or other.get(number) or Width.unknown()

    def give(self, program: nn.Module) -> None:
        """Set the widths of a program."""
        of_depths = [[self.of(depth, number) for number in range(self.sets)] for depth in DEPTHS]
        together = [[torch.stack(part) for part in zip(*widths, strict=True)] for widths in of_depths]
        parts = map(torch.stack, zip(*together, strict=True))
        program.temperature, program.levels, program.widths, program.shallow, *terms = parts
        for name, values in zip(Terms._fields, terms, strict=True):
            setattr(program.stretch, name, values)

    def as_json(self, number: int) -> dict[str, Any]:
        """What was fitted to a set, for the card."""
        return self.of(AS_THEY_ARE, number).as_json() | {"shallowest": self.of(MOST_NOISE, number).as_json()}


def looked_at(
    program: nn.Module, image: Tensor, conditions: Tensor | None, redshift: Tensor
) -> Iterator[tuple[int, int, Tensor, Estimate]]:
    """Of every set of bands of images (N, bands, 64, 64): depth, its number, the rows, estimates.

    Twice: as deep as the images are, and those with a redshift (N,) with the most noise that the model has
    seen. conditions (N, 2 * bands + 1): of the images; NaN, or None: not known
    """
    for number, rows, estimate in estimates_of_sets(program, image, conditions, MOST_IMAGES):
        yield AS_THEY_ARE, number, rows, estimate
    known = redshift.isfinite().nonzero()[:, 0][:MOST_SHALLOW]
    told = unknown(image[known]) if conditions is None else conditions[known]
    noisier = shallowest(image[known], told)
    for number, rows, estimate in estimates_of_sets(program, *noisier, MOST_IMAGES // 2):
        yield MOST_NOISE, number, known[rows], estimate


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
    program: nn.Module, image: Tensor, conditions: Tensor | None, most: int
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
        if len(rows) < LEAST_ROWS and not seen.all():
            rows = observed[:, seen].all(1).nonzero()[:, 0][:of_a_part]
        if len(rows) >= 2:
            hidden = ~seen
            seen_only = image[rows].masked_fill(hidden[:, None, None], torch.nan)
            of_image, columns = split_told(told[rows], bands, told.shape[1] - 2 * bands - 1)
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
    shallow: Tensor
    """(), of the galaxies that it was fitted to"""
    centre: Tensor
    """(5,), and further: Terms of stretch.py"""
    scale: Tensor
    weights: Tensor

    def as_json(self) -> dict[str, Any]:
        return {
            "temperature": float(self.temperature),
            "entropies": self.entropies.tolist(),
            "shallow": float(self.shallow),
            "PIT levels": self.levels.tolist(),
            "stretch": {name: getattr(self, name).tolist() for name in Terms._fields},
        }

    @classmethod
    def unknown(cls) -> Self:
        """The width that the model gives."""
        uniform = torch.linspace(0, 1, PIT_PIECES + 1)
        entropies, deep = torch.tensor([0.0, 1.0]), torch.zeros(())
        return cls(torch.ones(()), uniform.repeat(2, 1), entropies, deep, *Terms.none())


def width_of(
    mass: Tensor,
    central: Tensor,
    shallow: Tensor,
    number: int,
    redshift: Tensor,
    grid: Grid,
    stretch: Stretch,
) -> Width:
    """Fit the width of p(z), mass (N, K) as the model gives it, and then its CDF, to redshifts (N,).

    central (N, bands): magnitudes of objects in the set of bands with this number, by which p(z) is stretched
    before its CDF is mapped (stretch.py); shallow (N,): how shallow their images are.

    The temperature alone would make bright galaxies pay for the outliers: the likelihood asks for wide tails,
    and one width serves tails and core. The CDFs of the narrower half, those of bright galaxies, and of the
    wider one are mapped apart.
    """
    logits = mass.clamp(min=1e-30).log()
    divisor = temperature(logits, grid.bin(redshift))
    mass = (logits / divisor).softmax(1)
    pit = pdf.cdf(mass, grid, redshift)
    terms = fit(stretch, mass, central, number, pit)
    mass = stretched_by_others(stretch, mass, central, number, pit)
    pit, width = pdf.cdf(mass, grid, redshift), pdf.entropy(mass)
    order, n = width.argsort(), len(width)
    halves = order[: n - n // 2], order[n // 2 :]
    narrow, wide = (width[half].median() for half in halves)
    return Width(
        torch.tensor(divisor),
        torch.stack([pit_levels(pit[half]) for half in halves]),
        torch.stack([narrow, torch.maximum(wide, narrow + LEAST_APART)]),
        shallow.median(),
        *terms,
    )


def stretched_by_others(stretch: Stretch, mass: Tensor, central: Tensor, number: int, pit: Tensor) -> Tensor:
    """p(z) (N, K), each half of the galaxies stretched by what the other half says.

    Its PIT is that of galaxies that were not fitted to: of those that were it is a little too uniform.
    """
    even, result = torch.arange(len(mass)) % 2 == 0, torch.empty_like(mass)
    for half in (even, ~even):
        if half.any():
            terms = fit(stretch, mass[~half], central[~half], number, pit[~half])
            result[half] = stretch.by(terms, mass[half], central[half], number)
    return result


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
