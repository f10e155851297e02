"""`mmae report TILE.photoz.fits ...`: one page of HTML on catalogues, that opens anywhere."""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.report", "Report")

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tyro.conf import Positional

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.output import check_output
from catalogs.products.photoz import healpix29
from catalogs.store.cutouts import open_store
from catalogs.store.preview import read_composites
from catalogs.surveys.desi import locate
from catalogs.tables.redshifts import TruthTable
from mmae import __version__, cli
from mmae.bundles.bundle import open_bundle
from mmae.bundles.columns import QUANTILES
from mmae.scores.catalogue import brightness
from mmae.scores.page import figures, html, light, report
from mmae.scores.page.facts import Facts, gather
from mmae.scores.page.light import Judged
from mmae.scores.page.planes import Planes, planes_of
from mmae.scores.page.sky import Depths
from mmae.scores.pairs import INTERVALS, Pairs, read_pairs

RISK, CONFIDENCE = "PHOTOZ_RISK_BEST", "PHOTOZ_CONF_BEST"
ENDING = ".report.html"


@dataclass(frozen=True)
class Report:
    """Make one page of HTML on catalogues: what they hold, how good they are, and whether to believe them.

    The page holds its pictures, so that it can be sent by mail and opens without a network: a traffic light
    with its reasons and what to do about each; counts, flags and rejects; n(z); how like the training set the
    objects are; maps of the sky; examples of p(z); and with spectra, calibration and reliability. Catalogues
    of one model make one page together. Memory does not grow with them; with a truth, or Z_SPEC, it is that
    of one catalogue.
    """

    catalogues: Positional[tuple[Path, ...]]
    """Catalogues that `mmae infer` wrote; the rejects beside them are counted, too."""

    truth: Path | None = None
    """Table of spectroscopic redshifts, as for `mmae evaluate`; overrides Z_SPEC of the catalogues."""

    z_column: str | None = None
    """Column of the truth with the redshift, where none of the usual names is right."""

    where: str | None = None
    """Cut of the truth's rows, such as "ZWARN == 0"."""

    images: Path | None = None
    """Cutout store of the objects, to draw those that are shown as examples, and to map how deep it is."""

    model: Path | None = None
    """With --images: the bundle of the catalogues, whose galaxies with redshifts are drawn beside the objects
    in planes of magnitude and colour."""

    out: Path | None = None
    """The page; without it X.report.html beside the first catalogue X.fits."""


def main(config: Report) -> None:
    """Write the page; UsageError or InputRefused, and nothing written, when that cannot be done."""
    if not config.catalogues:
        raise UsageError("name a catalogue, such as tile.photoz.fits")
    first = config.catalogues[0]
    out = config.out or first.with_name(first.name.removesuffix(".fits") + ENDING)
    if out.is_dir():
        raise UsageError(f"{out} is a folder: name a file with --out")
    check_output(out)
    facts = gather(config.catalogues)
    judged, quantiles = judge(config, facts)
    composites = drawn(config.images, facts) if config.images and len(facts.with_pdf) else None
    depths = mapped(config.images) if config.images else None
    beside = magnitudes(config, facts)
    names = (
        first.name if len(config.catalogues) == 1 else f"{first.name} and {len(config.catalogues) - 1} more"
    )
    made = f"Made by mmae {__version__} on {datetime.date.today()}."
    page = html.page(names, report.parts(names, facts, judged, quantiles, composites, beside, depths, made))
    out.parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(out) as temporary:
        temporary.write_text(page, encoding="utf-8")
    found = light.reasons(facts, judged)
    colour = light.colour(found)
    print(f"{colour}: {report.SAID[colour]}")
    for reason in found:
        print(f"  {reason.colour}: {reason.finding}; {reason.remedy}")
    print(f"wrote {out} ({len(page) / 1e6:.1f} MB): open it in a browser")


def magnitudes(config: Report, facts: Facts) -> Planes | None:
    """Of the objects and of the galaxies behind them; UsageError for a bundle of another model."""
    if config.model is None:
        return None
    if config.images is None:
        raise UsageError("--model is for --images ZARR, whose objects it measures")
    bundle = open_bundle(config.model)
    if bundle.sha256 != facts.header["PZMODEL"]:
        raise UsageError(f"{config.model} is not the model of {facts.paths[0].name}: name that, or none")
    return planes_of(open_store(config.images), bundle)


def judge(config: Report, facts: Facts) -> tuple[Judged | None, np.ndarray | None]:
    """The objects with a redshift of the truth, or of the catalogues; none where there is none.

    And the quantiles of their p(z). Raises InputRefused where a truth was given and no object has any, and
    says why the first catalogue has none.
    """
    truth = None
    if config.truth:
        truth = TruthTable(config.truth, config.z_column, None, None, None, where=config.where)
    elif config.z_column or config.where:
        raise UsageError("--z-column and --where are for --truth TABLE")
    elif not np.isfinite(facts.sample["Z_SPEC"]).any():
        return None, None
    without = InputRefused if config.truth else (InputRefused, UsageError)  # a tile may have no Z_SPEC
    found, refused = [], []
    for path in facts.paths:
        try:
            found.append(_pairs(path, truth))
        except without as error:
            refused.append(error)
    if not found:
        if config.truth:
            raise InputRefused(
                f"no object of the catalogues can be judged by {config.truth}: {refused[0]}"
            ) from refused[0]
        return None, None
    return pooled(found), np.concatenate([pairs.columns[QUANTILES] for pairs in found])


def _pairs(path: Path, truth: TruthTable | None) -> Pairs:
    """Objects of a catalogue with a redshift, and a p(z); raises as `read_pairs`, also where none has."""
    pairs = read_pairs(path, truth, by=(RISK, CONFIDENCE))
    needed = (pairs.columns[QUANTILES], *(pairs.columns[name] for name in INTERVALS), pairs.by[RISK])
    pairs = pairs.take(np.isfinite(np.column_stack(needed)).all(1))
    if not len(pairs.z_spec):
        raise InputRefused(f"no object of {path} with a spectroscopic redshift has a p(z)")
    return pairs


def pooled(found: Sequence[Pairs]) -> Judged:
    def column(name: str) -> np.ndarray:
        return np.concatenate([pairs.columns[name] for pairs in found])

    return Judged(
        np.concatenate([pairs.z_phot for pairs in found]),
        np.concatenate([pairs.z_spec for pairs in found]),
        column(INTERVALS[0]),
        column(INTERVALS[1]),
        np.concatenate([pairs.by[RISK] for pairs in found]),
        np.concatenate([pairs.by[CONFIDENCE] for pairs in found]),
        found[0].origin.summary(),
    )


def mapped(images: Path) -> Depths:
    """How deep the images of a store are, and where."""
    store = open_store(images)
    seen = brightness.measure(store)
    ra, dec = (store.column(name)[seen.rows] for name in ("ra", "dec"))
    return Depths(seen.band, healpix29(ra, dec), seen.depth)


def drawn(images: Path, facts: Facts) -> np.ndarray:
    """Pictures (k, 64, 64, 3) of the examples; InputRefused for a store without them."""
    store = open_store(images)
    few, _ = figures.chosen(facts.with_pdf)
    rows = locate(store.column("object_id"), few["OBJECT_ID"].astype(np.int64))
    if (missing := few["OBJECT_ID"][rows < 0]).size:
        raise InputRefused(f"{images} lacks object {missing[0]}: name the store that was inferred on")
    return read_composites(store, rows.tolist())
