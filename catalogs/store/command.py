"""`mmae store`: print, verify or preview a cutout store."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, subcommand

from catalogs.errors import InputRefused, UsageError
from catalogs.place_flag import PlaceFlag
from catalogs.redshift_values import is_redshift
from catalogs.store.checks import REPAIR, SHARDING, array_codecs, check_folder, inspect
from catalogs.store.chunks import undecodable_files
from catalogs.store.cutouts import CutoutStore, open_store
from catalogs.store.flux_statistics import FluxStatistics
from catalogs.store.format import (
    AXES,
    NO_METADATA,
    ImageMetadata,
    beside,
    manifest_path,
)
from catalogs.store.manifest import altered_files
from catalogs.store.sampling import BLOCK, spread


@dataclass(frozen=True)
class Info:
    """Print layout, size, and statistics of the pixels."""

    store: Positional[PlaceFlag]
    """Cutout store (Zarr)."""
    rows: int = 1024
    """Rows to read for the statistics, in blocks spread evenly over the store; 0: all of them."""
    described: OmitArgPrefixes[ImageMetadata] = NO_METADATA

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise UsageError(f"--rows must be 0 or more, got {self.rows}")


@dataclass(frozen=True)
class Verify:
    """Check every file of a store against its manifest, and list those that differ.

    A store of another program has no manifest: every chunk is decoded instead, which finds what its codecs
    detect. The exit code is 3 if anything is wrong.
    """

    store: Positional[PlaceFlag]
    """Cutout store (Zarr)."""


@dataclass(frozen=True)
class Preview:
    """Draw a sheet of colour images (PNG) of objects spread evenly over the store."""

    store: Positional[PlaceFlag]
    """Cutout store (Zarr)."""
    out: Path | None = None
    """File to write; by default NAME.zarr.preview.png beside the store, or here where that is on S3."""
    count: int = 40
    """Objects to draw."""
    described: OmitArgPrefixes[ImageMetadata] = NO_METADATA

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 1000:
            raise UsageError(f"--count must be from 1 to 1000, got {self.count}")


@dataclass(frozen=True)
class Store:
    """Look into a cutout store: its contents, whether it is intact, what it looks like."""

    action: OmitArgPrefixes[
        Annotated[Info, subcommand("info")]
        | Annotated[Verify, subcommand("verify")]
        | Annotated[Preview, subcommand("preview")]
    ]


def main(config: Store) -> None:
    match config.action:
        case Info():
            info(config.action)
        case Verify():
            verify(config.action)
        case Preview():
            preview(config.action)


# ---------------------------------------------------------------- info


def info(config: Info) -> None:
    store = open_store(config.store, config.described)
    console = Console(markup=False, emoji=False)  # paths may hold brackets and colons
    console.print(summary(store))
    console.print(layout(store))
    blocks = spread(store.n, -(-config.rows // BLOCK) or store.n)
    if blocks:
        console.print(flux_table(store, track(blocks, "reading pixels", transient=True)))


def summary(store: CutoutStore) -> Table:
    """Table of a store's attributes and its size on disk."""
    stored_bytes, _ = inspect(store.path)
    facts = {
        "objects": f"{store.n:,}",
        "survey": store.survey,
        "bands": " ".join(store.bands),
        "pixel scale": f"{store.pixel_scale:g} arcsec",
        "zero point": f"{store.zero_point:g} AB mag",
        "on disk": f"{stored_bytes / 1e6:,.1f} MB, {stored_bytes / max(store.n, 1):,.0f} bytes an object",
        "manifest": "none: made by another program" if store.manifest is None else "yes",
        "spectra": "no",
    }
    if store.has_spectra:
        wave, redshift = store.wave, store.column("redshift")
        facts["spectra"] = f"{len(wave)} pixels, {wave.min():.0f} to {wave.max():.0f} angstrom"
        known = redshift[is_redshift(redshift)]
        facts["redshifts"] = f"{known.min():.4f} to {known.max():.4f}" if len(known) else "none"
    table = Table(box=None, show_header=False, title=str(store.path), title_justify="left")
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def layout(store: CutoutStore) -> Table:
    """Table of the arrays of the format as they are on disk; other arrays of the store are ignored."""
    _, listing = inspect(store.path)
    table = Table("array", "shape", "type", "chunks", "shards", "MB", "codecs", box=box.SIMPLE)
    for name in (*(name for name in AXES if name in store.group), *store.extra):
        array = store.array(name)
        stored = sum(size for file, size, _ in listing if file.startswith(f"{name}/"))
        shapes = ("x".join(map(str, shape)) for shape in (array.shape, array.chunks, array.shards or "-"))
        shape, chunks, shards = shapes
        laying_out = ("bytes", SHARDING)
        codecs = " ".join(codec for codec in array_codecs(store.path / name) if codec not in laying_out)
        table.add_row(name, shape, str(array.dtype), chunks, shards, f"{stored / 1e6:,.2f}", codecs)
    return table


def flux_table(store: CutoutStore, blocks: Iterable[tuple[int, int]]) -> Table:
    flux = {band: FluxStatistics() for band in store.bands}
    read = lost = 0
    for start, stop in blocks:
        image, damaged = store.images(start, stop)
        read, lost = read + stop - start, lost + int(damaged.sum())
        for k, band in enumerate(store.bands):
            flux[band].add(image[~damaged, k])
    table = Table("flux", *flux, box=box.SIMPLE)
    statistics = {
        "median": lambda band: f"{band.quantile(0.5):.4g}",
        "sigma (1.4826 MAD)": lambda band: f"{band.sigma:.4g}",
        "1 %": lambda band: f"{band.quantile(0.01):.4g}",
        "99 %": lambda band: f"{band.quantile(0.99):.4g}",
        "least": lambda band: f"{band.minimum:.4g}",
        "most": lambda band: f"{band.maximum:.4g}",
        "NaN": lambda band: f"{band.nan:,}",
        "infinite": lambda band: f"{band.infinite:,}",
        "share beyond float16": lambda band: f"{band.beyond_half / max(band.pixels, 1):.2g}",
    }
    for name, statistic in statistics.items():
        table.add_row(name, *map(statistic, flux.values()))
    table.title = f"{read:,} of {store.n:,} rows read" + (f", {lost:,} of them damaged" if lost else "")
    return table


# ---------------------------------------------------------------- verify


def verify(config: Verify) -> None:
    path = config.store
    check_folder(path)
    if manifest_path(path).exists():
        faults = altered_files(path, lambda files: track(files, "files"))
        message = "every file is what its manifest says"
    else:
        faults = undecodable_files(path, lambda chunks: track(chunks, "chunks"))
        message = "every chunk that is there decodes"
    for file, fault in faults.items():
        print(f"{file}: {fault}")
    if faults:
        raise InputRefused(f"{path} is damaged, in {len(faults)} files: {REPAIR}")
    print(f"{path}: {message}")


# ---------------------------------------------------------------- preview


def preview(config: Preview) -> None:
    # takes a second to import, which `info` and `verify` do without
    from catalogs.store.preview import contact_sheet, read_composites, shown

    beside_it = config.store if isinstance(config.store, Path) else Path(config.store.name)
    out = config.out or beside(beside_it, ".preview.png")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"{out} cannot be written: --out must name a file in a folder that is there")
    store = open_store(config.store, config.described)
    if not store.n:
        raise InputRefused(f"{store.path} has no objects to draw: take another store")
    rows = np.unique(np.linspace(0, store.n - 1, min(config.count, store.n)).astype(int)).tolist()
    images = read_composites(store, track(rows, "reading cutouts", transient=True))
    contact_sheet(images, [label(store, row) for row in rows], out)
    drawn = " ".join(store.bands[band] for band in shown(store.bands))
    print(f"wrote {out}: {len(rows)} of {store.n:,} objects, {drawn} as red green blue; magenta: no value")


def label(store: CutoutStore, row: int) -> str:
    object_id = int(store.column("object_id", row, row + 1)[0])
    if not store.has_spectra:
        return str(object_id)
    return f"{object_id}\nz = {store.column('redshift', row, row + 1)[0]:.4f}"
