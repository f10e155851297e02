"""`python -m mmae.infer --catalog tile.zarr`: the photo-z catalogues of cutout stores.

Plan, let Ray actors do the units, merge; tile after tile, and several at once. Whatever is killed, the same
command goes on from the units that are done, and the catalogues have the same bytes.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.infer", "Infer")

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from tyro.conf import OmitArgPrefixes

from catalogs.errors import InputRefused, Interrupted, UsageError
from catalogs.place_flag import PlaceFlag
from catalogs.store.format import NO_METADATA, ImageMetadata
from mmae import cli
from mmae.bundles.bundle import open_bundle
from mmae.bundles.image_mask import Masking
from mmae.hardware import Precision
from mmae.production import dry_run, index, ray_session
from mmae.production.launch import (
    Session,
    check_flags,
    current_umask,
    default_workers,
    find_bundle,
    session_of,
)
from mmae.production.plan import MIN_UNIT
from mmae.production.predictor import Predictor, Setup
from mmae.production.production import Production
from mmae.production.scheduler import Scheduler
from mmae.production.tiles import Tile, named_tiles

LISTED = 20
"""Failed tiles named at the end; the index has all."""


@dataclass(frozen=True)
class Infer:
    """Write the photo-z catalogues of cutout stores.

    Writes for each store TILE.photoz.fits (one row an object with a redshift) and TILE.rejects.fits (the
    others, with the reason), and keeps what it needs to go on after a crash in TILE.photoz/. Every object of
    the store is in one of the two files, once. For several stores, index.ecsv lists the catalogues. A store
    that is refused does not stop the others; it is named at the end (exit code 3, or 5 after a failure of
    input or output). Run again, the same command does what is not done yet.
    """

    catalog: tuple[str, ...]
    """Cutout stores (Zarr; see README): paths, s3://BUCKET/KEY, globs of either in quotes, @FILE with one of
    these a line. S3 is reached as the variables AWS_* say."""
    model: Path | None = None
    """Model bundle; else $MMAE_MODEL, else the newest under runs/."""
    precision: Precision | None = None
    """Of the arithmetic; by default bf16 where the bundle offers it and the hardware has it, else fp32."""
    image_mask: float = 0.0
    """Share of every image to hide, as in training: the paper's model does better with 0.25 than with 0."""
    draws: int = 1
    """With --image-mask: masks drawn for each object, whose redshifts are averaged."""
    pdf: bool = False
    """Keep the whole p(z), too: table PDF of each catalogue, 4 bytes a bin (its quantiles have 80 in all)."""
    out: PlaceFlag | None = None
    """Folder to write to, here or on S3; by default that of the stores."""
    dry_run: bool = False
    """Show what would be done, and how long it would take; write nothing."""

    # Where
    workers: int = 0
    """Ray actors at most; 0: one a GPU, or one a CPU core where there is none."""
    ray_address: str = ""
    """HOST:PORT of a Ray cluster that this machine is a node of; by default a Ray of our own."""

    described: OmitArgPrefixes[ImageMetadata] = NO_METADATA

    def __post_init__(self) -> None:
        check_flags(self.catalog, self.workers, self.ray_address)


def main(config: Infer, session: Session | None = None) -> None:
    """Raises what is wrong with a single tile; of several, InputRefused or OSError at the end."""
    started = time.monotonic()
    bundle = open_bundle(
        find_bundle(config.model), config.precision, Masking(config.image_mask, config.draws)
    )
    if config.pdf and not bundle.card["grid"]:
        raise UsageError(f"--pdf: the model of {bundle.path} gives a redshift alone, no p(z)")
    bundle = replace(bundle, keep_pdf=config.pdf)
    survey, name = bundle.card["training_data"]["survey"], bundle.sha256[:12]
    print(f"model: {bundle.path} ({bundle.precision}, sha256 {name}, trained on {survey})", flush=True)
    tiles = named_tiles(config.catalog, config.out)
    if config.dry_run:
        dry_run.show(tiles, bundle, config.described, config.workers or default_workers())
        return
    setup = Setup.of(bundle, current_umask())
    try:
        with Production(tiles, bundle, config.described) as production:
            if production.begin():
                units = sum(-(-tile.objects // MIN_UNIT) for tile in tiles)
                places = min(config.workers or default_workers(), max(1, units))
                with (session or session_of(config.ray_address))(places), production.progress():
                    alone = session is None and not config.ray_address
                    capacity = ray_session.Capacity(config.workers, alone)
                    start = partial(ray_session.actor_type(Predictor).remote, setup)
                    Scheduler(start, capacity).run(production)
                    production.finish()
            production.finish()
    except KeyboardInterrupt:
        kept = tiles[0].files.run if len(tiles) == 1 else tiles[0].files.folder
        raise Interrupted(
            f"stopped; {kept} keeps what is done, the same command goes on from there"
        ) from None
    if len(tiles) > 1 or index.path(tiles[0].files.folder).exists():
        index.write(tiles[0].files.folder, tiles)
    report(production, time.monotonic() - started)


# ---------------------------------------------------------------- after the run


def report(production: Production, seconds: float) -> None:
    """Say what was written and what was not. Raises why a tile has no catalogue."""
    tiles = production.tiles
    failed = [tile for tile in tiles if tile.error]
    if len(tiles) == 1 and tiles[0].error:
        raise tiles[0].error
    if all(tile.was_finished for tile in tiles):
        print(f"{named(tiles)} finished already; nothing to do")
        return
    if production.units_before:
        print(f"{production.units_before} of {production.units} units were done before")
    done = [tile for tile in tiles if not tile.error]
    rows, rejects = sum(tile.rows for tile in done), sum(tile.rejects for tile in done)
    reasons = sum((tile.reasons for tile in done), Counter[str]())
    listed = ", ".join(f"{reason} {count}" for reason, count in sorted(reasons.items()))
    folder = tiles[0].files.folder
    catalogues, rejected = folder / f"{len(done)} x *.photoz.fits", folder / "*.rejects.fits"
    if len(tiles) == 1:
        catalogues, rejected = tiles[0].files.catalogue, tiles[0].files.rejects
    print(f"wrote {catalogues}: {rows} objects")
    print(f"wrote {rejected}: {rejects} objects{f' ({listed})' if listed else ''}")
    objects = rows + rejects - sum(tile.before for tile in done)
    print(f"{objects} objects in {seconds:.1f} s: {objects / seconds:.0f} a second")
    if len(tiles) > 1:
        print(f"index: {index.path(folder)}")
    if failed:
        raise failure(failed, len(tiles))


def named(tiles: Sequence[Tile]) -> str:
    return f"{tiles[0].files.catalogue} is" if len(tiles) == 1 else f"all {len(tiles)} tiles are"


def failure(failed: Sequence[Tile], tiles: int) -> Exception:
    """One sentence over all tiles that failed; worth another try (OSError) if one of them is."""
    for tile in failed[:LISTED]:
        print(f"failed: {tile.path}: {tile.error}")
    names = ", ".join(tile.name for tile in failed[:LISTED]) + (", ..." if len(failed) > LISTED else "")
    sentence = f"{len(failed)} of {tiles} tiles have no catalogue: {names}"
    again = any(isinstance(tile.error, OSError) for tile in failed)
    return OSError(f"{sentence}; the same command tries them again") if again else InputRefused(sentence)
