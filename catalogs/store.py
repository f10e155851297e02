"""`mmae store`: what is in a cutout store, whether it is whole, what it looks like."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import zarr
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional, subcommand

from catalogs import atomic
from catalogs.cutout_format import (
    BANDS,
    FORMAT,
    NOTHING_SAID,
    RANKS,
    REPAIR,
    Described,
    beside,
    check_arrays,
    check_blosc,
    chunk_file,
    chunks_of,
    codec_names,
    get_array,
    inspect,
    manifest_path,
    open_group,
    read_manifest,
    refusing,
)
from catalogs.cutouts import CutoutStore, open_store
from catalogs.errors import InputRefused, UsageError

BLOCK = 64
"""Rows read at a time."""
HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class Info:
    """Print layout, size, and statistics of the pixels."""

    store: Positional[Path]
    """Cutout store (Zarr)."""
    rows: int = 1024
    """Rows to read for the statistics, in blocks spread evenly over the store; 0: all of them."""
    described: OmitArgPrefixes[Described] = NOTHING_SAID

    def __post_init__(self) -> None:
        if self.rows < 0:
            raise UsageError(f"--rows must be 0 or more, got {self.rows}")


@dataclass(frozen=True)
class Verify:
    """Check every file of a store against its manifest, and name those that are not what was written.

    A store of another program has no manifest: then every chunk is decoded, which finds what its codecs find.
    The exit code is 3 where anything is wrong.
    """

    store: Positional[Path]
    """Cutout store (Zarr)."""


@dataclass(frozen=True)
class Preview:
    """Draw a sheet of colour images (PNG) of objects spread evenly over the store."""

    store: Positional[Path]
    """Cutout store (Zarr)."""
    out: Path | None = None
    """File to write; by default NAME.zarr.preview.png beside the store."""
    count: int = 40
    """Objects to draw."""
    described: OmitArgPrefixes[Described] = NOTHING_SAID

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 1000:
            raise UsageError(f"--count must be from 1 to 1000, got {self.count}")


@dataclass(frozen=True)
class Store:
    """Look into a cutout store: what is in it, whether it is whole, what it looks like."""

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
    console = Console()
    console.print(summary(store))
    console.print(layout(store))
    blocks = spread(store.n, -(-config.rows // BLOCK) or store.n)
    if blocks:
        console.print(flux_table(store, track(blocks, "reading pixels", transient=True)))


def summary(store: CutoutStore) -> Table:
    """What the store says of itself, and what it takes on disk."""
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
        known = redshift[np.isfinite(redshift)]
        facts["redshifts"] = f"{known.min():.4f} to {known.max():.4f}" if len(known) else "none"
    table = Table(box=None, show_header=False, title=str(store.path), title_justify="left")
    for name, fact in facts.items():
        table.add_row(name, fact)
    return table


def layout(store: CutoutStore) -> Table:
    """The arrays of the format as they lie on disk; others that a store may hold are never touched."""
    _, listing = inspect(store.path)
    table = Table("array", "shape", "type", "chunks", "shards", "MB", "codecs", box=box.SIMPLE)
    for name in (name for name in RANKS if name in store.group):
        array = store.array(name)
        stored = sum(size for file, size, _ in listing if file.startswith(f"{name}/"))
        shapes = ("x".join(map(str, shape)) for shape in (array.shape, array.chunks, array.shards or "-"))
        shape, chunks, shards = shapes
        codecs = " ".join(_codecs(store.path / name))
        table.add_row(name, shape, str(array.dtype), chunks, shards, f"{stored / 1e6:,.2f}", codecs)
    return table


def _codecs(array: Path) -> list[str]:
    """Names of the codecs of an array, each once; not those that only lay out what another encodes."""
    metadata = next(file for file in (array / "zarr.json", array / ".zarray") if file.exists())
    names = dict.fromkeys(codec_names(json.loads(metadata.read_text())))
    return [name for name in names if name not in ("bytes", "sharding_indexed")]


def spread(n: int, blocks: int) -> list[tuple[int, int]]:
    """Row ranges (start, stop) of whole blocks, as many as asked for or there are, spread evenly over n."""
    there = -(-n // BLOCK)
    chosen = np.linspace(0, max(there - 1, 0), min(blocks, there)).round().astype(int).tolist()
    return [(BLOCK * k, min(n, BLOCK * (k + 1))) for k in chosen]


def flux_table(store: CutoutStore, blocks: Iterable[tuple[int, int]]) -> Table:
    flux = {band: Flux() for band in BANDS}
    read = lost = 0
    for start, stop in blocks:
        image, damaged = store.images(start, stop)
        read, lost = read + stop - start, lost + int(damaged.sum())
        for k, band in enumerate(BANDS):
            flux[band].add(image[~damaged, k])
    table = Table("flux", *flux, box=box.SIMPLE)
    statistics = {
        "median": lambda one: f"{one.quantile(0.5):.4g}",
        "sigma (1.4826 MAD)": lambda one: f"{one.sigma:.4g}",
        "1 %": lambda one: f"{one.quantile(0.01):.4g}",
        "99 %": lambda one: f"{one.quantile(0.99):.4g}",
        "least": lambda one: f"{one.least:.4g}",
        "most": lambda one: f"{one.most:.4g}",
        "NaN": lambda one: f"{one.nan:,}",
        "infinite": lambda one: f"{one.infinite:,}",
        "share beyond float16": lambda one: f"{one.beyond_half / max(one.pixels, 1):.2g}",
    }
    for name, statistic in statistics.items():
        table.add_row(name, *map(statistic, flux.values()))
    table.title = f"{read:,} of {store.n:,} rows read" + (f", {lost:,} of them damaged" if lost else "")
    return table


@dataclass
class Flux:
    """Statistics of any number of float32 values in 8 MB.

    Values are counted after rounding to 12 binary digits, so that quantiles are good to 0.02 %; least and
    most are exact. All are of the finite values.
    """

    counts: np.ndarray = field(default_factory=lambda: np.zeros(2**20, np.int64), repr=False)
    """How often each rounded value occurs, from the most negative one."""
    least: float = np.nan
    most: float = np.nan
    nan: int = 0
    infinite: int = 0
    beyond_half: int = 0
    """Finite values that float16 cannot hold."""

    def add(self, values: np.ndarray) -> None:
        finite = values[np.isfinite(values)]
        nan = int(np.isnan(values).sum())
        self.nan, self.infinite = self.nan + nan, self.infinite + values.size - finite.size - nan
        self.beyond_half += int((np.abs(finite) > HALF_MAX).sum())
        if finite.size:
            self.least = float(np.fmin(self.least, finite.min()))
            self.most = float(np.fmax(self.most, finite.max()))
            bits = finite.view(np.uint32)
            bits = bits + np.uint32(0x7FF) + (bits >> 12 & 1)  # round to nearest, ties to even
            order = np.where(bits >> 31, ~bits, bits | 0x80000000) >> 12  # as floats compare, so do these
            self.counts += np.bincount(order, minlength=len(self.counts))

    @property
    def pixels(self) -> int:
        return int(self.counts.sum()) + self.nan + self.infinite

    def distinct(self) -> tuple[np.ndarray, np.ndarray]:
        """Rounded values in ascending order, and how often each occurs."""
        found = np.flatnonzero(self.counts)
        order = found.astype(np.uint32) << 12
        bits = np.where(order >> 31, order & 0x7FFFFFFF, ~(order | 0xFFF))
        return bits.view(np.float32).astype(np.float64), self.counts[found]

    def quantile(self, share: float) -> float:
        """The least value that at least this share of all values does not exceed; NaN without values."""
        return _quantile(*self.distinct(), share)

    @property
    def sigma(self) -> float:
        """1.4826 times the median absolute deviation from the median: the sigma of a normal distribution."""
        values, counts = self.distinct()
        deviation = np.abs(values - self.quantile(0.5))
        order = np.argsort(deviation)
        return 1.4826 * _quantile(deviation[order], counts[order], 0.5)


def _quantile(values: np.ndarray, counts: np.ndarray, share: float) -> float:
    upto = counts.cumsum()
    return float(values[np.searchsorted(upto, share * upto[-1])]) if len(upto) else np.nan


# ---------------------------------------------------------------- verify


def verify(config: Verify) -> None:
    path = config.store
    if not path.is_dir():
        raise UsageError(f"{path} is no directory; a cutout store is one (Zarr)")
    if manifest_path(path).exists():
        faults = altered_files(path, lambda files: track(files, "files"))
        whole = "every file is what its manifest says"
    else:
        faults = undecodable_files(path, lambda chunks: track(chunks, "chunks"))
        whole = "every chunk that is there decodes"
    for file, fault in faults.items():
        print(f"{file}: {fault}")
    if faults:
        raise InputRefused(f"{path} is damaged, in {len(faults)} files: {REPAIR}")
    print(f"{path}: {whole}")


def altered_files(path: Path, progress: Callable[[list[str]], Iterable[str]] = iter) -> dict[str, str]:
    """Files of a store that are not what its manifest says -> what is wrong with each."""
    manifest = read_manifest(path) or {}
    faults = {}
    for file in progress(sorted(manifest)):
        expected, there = manifest[file], path / file
        if not there.is_file():
            faults[file] = "is missing"
        elif (size := there.stat().st_size) != expected["size"]:
            faults[file] = f"is {size:,} bytes long, was written with {expected['size']:,}"
        elif atomic.sha256(there) != expected["sha256"]:
            faults[file] = "has other content than was written"
    files = (str(file.relative_to(path)) for file in path.rglob("*") if not file.is_dir())
    return faults | {file: "is not of this store" for file in sorted(files) if file not in manifest}


def undecodable_files(path: Path, progress: Callable[[list], Iterable] = iter) -> dict[str, str]:
    """Files of a store without a manifest that hold a chunk that does not decode -> what is wrong with each.

    Prints what stays in doubt: chunks that are not on disk, which by the rules of Zarr read as the fill
    value; arrays without checksums.
    """
    stored_bytes, _ = inspect(path)
    group = open_group(path)
    if group.attrs.get("format") == FORMAT:
        raise InputRefused(f"{path} has no manifest ({manifest_path(path).name}): copy it too, or {REPAIR}")
    check_arrays(path, group, stored_bytes)
    arrays = [get_array(group, name) for name in RANKS if name in group]
    faults, absent = {}, Counter[str]()
    for array, chunk in progress([(each, chunk) for each in arrays for chunk in chunks_of(each)]):
        file = chunk_file(array, chunk)
        if not (path / file).exists():
            absent[array.basename] += 1
        elif fault := _decoding_fault(path, array, chunk):
            faults[file] = fault
    for array in arrays:
        name = array.basename
        if absent[name]:
            print(f"{name}: {absent[name]} chunks are not on disk: lost, or all {array.fill_value}")
        if "crc32c" not in _codecs(path / name):
            print(f"{name}: without checksums (crc32c), a changed byte may go unnoticed")
    return faults


def _decoding_fault(path: Path, array: zarr.Array, chunk: tuple[int, ...]) -> str:
    region = tuple(slice(k * size, (k + 1) * size) for k, size in zip(chunk, array.chunks, strict=True))
    try:
        with refusing("does not decode"):
            check_blosc(path, array, chunk)
            array[region]
    except InputRefused as error:
        return f"does not decode ({' '.join(str(error.__cause__).split())})"
    return ""


# ---------------------------------------------------------------- preview


def preview(config: Preview) -> None:
    from catalogs.preview import contact_sheet, pictures  # takes a second, which the others need not wait

    out = config.out or beside(config.store, ".preview.png")
    if out.is_dir() or not out.parent.is_dir():
        raise UsageError(f"{out} cannot be written: --out must name a file in a folder that is there")
    store = open_store(config.store, config.described)
    if not store.n:
        raise InputRefused(f"{store.path} has no objects to draw: take another store")
    rows = np.unique(np.linspace(0, store.n - 1, min(config.count, store.n)).astype(int)).tolist()
    images = pictures(store, track(rows, "reading cutouts", transient=True))
    contact_sheet(images, [label(store, row) for row in rows], out)
    print(f"wrote {out}: {len(rows)} of {store.n:,} objects, i r g as red green blue; magenta: no value")


def label(store: CutoutStore, row: int) -> str:
    object_id = int(store.column("object_id", row, row + 1)[0])
    if not store.has_spectra:
        return str(object_id)
    return f"{object_id}\nz = {store.column('redshift', row, row + 1)[0]:.4f}"
