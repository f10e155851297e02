"""`mmae recalibrate`: a bundle for a survey of which some redshifts are known, without training."""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.recalibrate", "Recalibrate")

import dataclasses
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from tyro.conf import Positional

from catalogs.errors import InputRefused, UsageError
from catalogs.object_id import hash_ids
from catalogs.place_flag import PlaceFlag
from catalogs.store.checks import check_folder
from catalogs.store.cutouts import CutoutStore, open_store
from catalogs.tables import redshifts
from catalogs.tables.redshifts import TruthTable
from mmae.bundles.bundle import CARD, TRAINED_ON, Bundle, open_bundle
from mmae.bundles.compiler import check_out
from mmae.bundles.likeness.selection import effective, magnitudes, target_of, weights
from mmae.bundles.recalibration import Known, check, recalibrated
from mmae.bundles.roles import Roles
from mmae.bundles.sample import CALIBRATED_ROWS
from mmae.scores.catalogue.matching import match

LEAST_GALAXIES = 100
"""A 68 % interval that a hundred galaxies set holds 63 to 73 %."""
BLOCK_ROWS = 512
"""Rows that are read together."""


@dataclasses.dataclass(frozen=True)
class Recalibrate:
    """Make the p(z) of a bundle as wide as its errors are on your own galaxies with redshifts.

    The model stays as it is: this is for a survey with some hundred redshifts, too few to train on. Galaxies
    that the model was trained on are left out, and so are those whose images inference would reject. All sets
    of bands are calibrated, and images as shallow as the model knows, by hiding bands and adding noise.

    With --like the galaxies count so that they stand for the objects of a tile: spectra are of the brighter
    and the redder ones (weights of Lima et al. 2008, in colours and magnitudes).
    """

    bundle: Positional[Path]
    """Bundle to begin with; it is not changed."""
    cutouts: Positional[PlaceFlag]
    """Cutout store with the images of the galaxies."""
    out: Path
    """Bundle to write."""
    truth: Path | None = None
    """Table of their redshifts, as `mmae evaluate --truth` takes it; by default those of the store."""
    where: str | None = None
    """Cut of its rows, in quotes, such as "ZWARN == 0 and SPECTYPE == 'GALAXY'"."""
    z_column: str | None = None
    """Its column with the redshift; by default the plainest."""
    id_column: str | None = None
    """Its column with the ids of the store; by default the usual names."""
    match: Literal["auto", "id", "position"] = "auto"
    """How objects are found in it: by id, else by position within 1 arcsec."""
    like: PlaceFlag | None = None
    """Cutout store whose objects the galaxies shall stand for."""


def main(config: Recalibrate) -> None:
    for path in (config.cutouts, *([config.like] if config.like else [])):
        check_folder(path)
    check_out(config.out)
    if config.out.resolve() == config.bundle.resolve():
        raise UsageError("--out is the bundle itself: write another, so that its catalogues keep their model")
    of_truth = config.where, config.z_column, config.id_column, config.match != "auto"
    if config.truth is None and any(of_truth):
        raise UsageError("--where, --z-column, --id-column and --match are for --truth TABLE: name it")
    bundle = open_bundle(config.bundle)
    check(bundle)  # before any image is read
    store = open_store(config.cutouts)
    bundle.input.check(store)
    known = galaxies(config, bundle, store)
    card = recalibrated(bundle, known, config.out)
    tell(bundle.card, card)
    if config.like:
        counted, unlike = (known.description[name] for name in ("effective", "target_unlike"))
        print(f"they stand for {config.like} as {counted:.0f}; {unlike:.1%} of it is unlike any of them")
    print(f"wrote {', '.join(str(config.out / name) for name in (*card['files'], CARD))}")


def tell(before: dict[str, Any], card: dict[str, Any]) -> None:
    """Print how wide p(z) became, by the cards; one that was made without galaxies says so in words."""
    said, fitted = (each["calibration"]["p(z)"] for each in (before, card))
    earlier = said if isinstance(said, str) else f"by {said['temperature']:.2f}"
    print(
        f"{card['calibration']['galaxies']}: p(z) is flatter by {fitted['temperature']:.2f}, before {earlier}"
    )


def galaxies(config: Recalibrate, bundle: Bundle, store: CutoutStore) -> Known:
    """The galaxies of a store with redshifts that can be used; InputRefused where they are too few."""
    redshift = truth_of(config, store)
    has_one = np.isfinite(redshift)
    if (roles := bundle.roles()) is not None:
        place = (store.column(name) for name in ("object_id", "ra", "dec"))
        has_one &= Roles(roles).of(*place) != TRAINED_ON
    rows = np.flatnonzero(has_one)
    ids = store.column("object_id")[rows]
    rows = np.sort(rows[np.argsort(hash_ids(hash_ids(ids)), kind="stable")[:CALIBRATED_ROWS]])
    images, conditions, used = [], [], []
    for start in range(0, store.n, BLOCK_ROWS):
        of_block = rows[(rows >= start) & (rows < start + BLOCK_ROWS)]
        if len(of_block):
            read = bundle.input.read(store, start, min(store.n, start + BLOCK_ROWS))
            usable = of_block[read.reason[of_block - start] == ""]
            images.append(torch.from_numpy(read.image[usable - start]))
            conditions.append(torch.from_numpy(read.conditions[usable - start]))
            used.append(usable)
    number = sum(map(len, used))
    if number < LEAST_GALAXIES:
        raise InputRefused(
            f"{store.path} has {number} galaxies with a redshift and a usable image that the model was not "
            f"trained on, at least {LEAST_GALAXIES} are needed: add some, or use the bundle as it is"
        )
    image, weight = torch.cat(images), np.ones(number)
    description: dict[str, Any] = {"store": store.path.name, "fingerprint": store.fingerprint}
    if config.like:
        noise, own_light = torch.from_numpy(bundle.noise).float(), bundle.own_light
        target = open_store(config.like)
        weight, unlike = weights(
            magnitudes(image, noise, own_light).numpy(), target_of(target, bundle.input, noise, own_light)
        )
        description |= {"like": target.fingerprint, "effective": effective(weight), "target_unlike": unlike}
    z = torch.from_numpy(redshift[np.concatenate(used)]).float()
    return Known(image, torch.cat(conditions), z, torch.from_numpy(weight), description)


def truth_of(config: Recalibrate, store: CutoutStore) -> np.ndarray:
    """Redshifts (N,) of the objects of a store, NaN: not known; says how they were found in a table."""
    if config.truth is None:
        if not store.has_redshifts:
            raise UsageError(f"{store.path} has no redshifts: pass --truth TABLE")
        return store.redshifts()
    asked = TruthTable(config.truth, config.z_column, config.id_column, where=config.where)
    table = redshifts.read(asked)
    object_id, ra, dec = (store.column(name) for name in ("object_id", "ra", "dec"))
    found = match(object_id, ra, dec, table, asked, config.match)
    redshift = np.full(store.n, np.nan)
    redshift[found.rows] = table.z[found.truth_rows]
    print(
        f"{len(found.rows)} objects of {store.path} have a redshift in {config.truth} "
        f"({table.z_column.name}; matched by {found.how})"
    )
    return redshift
