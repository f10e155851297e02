"""Open a cutout store, and read its images and columns. Its format is in format.py."""

import contextlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import zarr

from catalogs import atomic
from catalogs.bands import match
from catalogs.errors import InputRefused
from catalogs.object_path import ObjectPath
from catalogs.place import Place, snapshot, together
from catalogs.redshift_values import check_redshifts, is_redshift
from catalogs.store import half_precision
from catalogs.store.checks import (
    REPAIR,
    check_arrays,
    check_folder,
    check_further,
    inspect,
    open_group,
    refusing,
)
from catalogs.store.chunks import check_chunk, chunks_of, stored_chunks
from catalogs.store.encoding import Encoding, read_encoding
from catalogs.store.format import (
    COLUMNS,
    FORMAT,
    NO_METADATA,
    SHARD,
    SIZE,
    STAR,
    TRAINING,
    VERSION,
    ImageMetadata,
    check_frame,
    get_array,
    manifest_path,
    read_bands,
    read_number,
    rows_per_file,
    shard_key,
)
from catalogs.store.manifest import check_metadata, matches, read_manifest
from catalogs.store.own_layout import OwnLayout
from catalogs.store.resampling import GREATEST, LEAST
from catalogs.store.writer import write

__all__ = ["CutoutStore", "open_store", "pad", "write"]

BLOCK = 512
"""Rows of stores of others to read at a time: 42 MB of float32 pixels."""
SCALE_TOLERANCE = 1e-3
"""Relative difference of pixel scales that are the same."""


@dataclass
class CutoutStore:
    """An open, checked store; see `open_store`."""

    path: Place
    n: int
    bands: tuple[str, ...]
    """Names of the planes in the table of bands (surveys/bands.py)."""
    own_bands: tuple[str, ...]
    """The same by what the store itself says, where the user has named them otherwise."""
    pixel_scale: float
    zero_point: float
    survey: str
    shard_rows: int
    chunk_rows: int
    stamp: str
    """sha256 over names, sizes and times of the files: it changes whenever a file is written."""
    size: int
    """Pixels on a side of the images stored."""
    group: zarr.Group = field(repr=False)
    manifest: dict[str, dict] | None = field(repr=False)
    arrays: dict[str, zarr.Array] = field(default_factory=dict, repr=False)
    encodings: dict[str, Encoding] = field(default_factory=dict, repr=False)
    layouts: dict[str, OwnLayout | None] = field(default_factory=dict, repr=False)
    present: dict[str, bool] = field(default_factory=dict, repr=False)
    verified: dict[str, bool] = field(default_factory=dict, repr=False)
    replaced: dict[int, bool] = field(default_factory=dict, repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the content, the same for every copy of the store.

        A store of ours has it in its manifest. Of a store of another program every file is read once, at the
        speed of the disk or of sha256, about 1 GB/s.
        """
        return atomic.digest(self.manifest if self.manifest is not None else self._contents())

    def _contents(self) -> dict[str, str]:
        path = snapshot(self.path)
        files = [file for file, _, _ in inspect(path)[1]]
        return dict(zip(files, together(lambda file: atomic.sha256(path / file), files, path), strict=True))

    def is_unchanged(self, fingerprint: str) -> bool:
        """Whether the files have the content of a fingerprint that was taken when the store was opened.

        They are read only where their sizes or times are others than then.
        """
        path = snapshot(self.path)
        _, listing = inspect(path)
        if atomic.digest(listing) == self.stamp:
            return True
        if self.manifest is None:
            return atomic.digest(self._contents()) == fingerprint
        intact = all(atomic.matches(path / file, entry) for file, entry in self.manifest.items())
        return intact and read_manifest(path) == self.manifest

    @property
    def block_rows(self) -> int:
        """Rows to read and screen at a time.

        Of our layout a chunk: its 5 MB of pixels are still in the cache of the processor when they are
        screened. Elsewhere BLOCK: chunks may be of any size, and those on S3 are fetched side by side.
        """
        return self.chunk_rows if self._own_layout(self.array("image")) else BLOCK

    def flux_scale(self, zero_point: float) -> float:
        """Factor that brings its fluxes to another zero point (AB magnitude of flux 1); 1.0 for its own."""
        return float(10 ** (0.4 * (zero_point - self.zero_point)))

    def pixel_ratio(self, pixel_scale: float) -> float:
        """Ratio of another pixel scale (arcsec) to its own, see resampling.py; 1.0 where they are the same.

        Raises InputRefused for one beyond what is resampled.
        """
        ratio = pixel_scale / self.pixel_scale
        if abs(ratio - 1) <= SCALE_TOLERANCE:
            return 1.0
        if not LEAST <= ratio <= GREATEST:
            raise InputRefused(
                f"{self.path} has pixel_scale {self.pixel_scale} arcsec a pixel, the model was trained at "
                f"{pixel_scale}: cutouts are resampled up to a factor of 2, rescale them or train on such"
            )
        return ratio

    @property
    def has_spectra(self) -> bool:
        return all(self.has(name) for name in (*TRAINING, "wave"))

    @property
    def has_redshifts(self) -> bool:
        """Whether the store has an array of redshifts, one an object."""
        redshift = self.array("redshift") if self.has("redshift") else None
        return redshift is not None and redshift.shape == (self.n,) and redshift.dtype.kind == "f"

    @property
    def wave(self) -> np.ndarray:
        """Wavelengths of a training store, (P,) angstrom."""
        return self.column("wave", 0, self.array("wave").shape[0])

    @property
    def extra(self) -> list[str]:
        """Paths of the further columns, `columns/NAME`."""
        group = self.group.get(COLUMNS)
        names = sorted(group.array_keys()) if isinstance(group, zarr.Group) else []
        return [f"{COLUMNS}/{name}" for name in names]

    def array(self, name: str) -> zarr.Array:
        if name not in self.arrays:  # cached: opening an array takes as long as reading a chunk of it
            self.arrays[name] = get_array(self.group, name)
        return self.arrays[name]

    def has(self, name: str) -> bool:
        """Whether the store has an array of the format."""
        if name not in self.present:  # cached: zarr looks for its metadata in several places
            self.present[name] = name in self.group
        return self.present[name]

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start:stop of any array but `image`, in native byte order.

        Raises InputRefused, naming the file, if it does not match the manifest or does not decode, and where
        an object has no id.
        """
        array, stop = self.array(name), self.n if stop is None else stop
        for file in self._files(array, start, stop):
            if not self._intact(array, file):
                raise InputRefused(f"{self.path / file} is damaged: {REPAIR}")
        with refusing(f"{self.path}/{name} does not decode"):
            values = self._stored(array, start, stop)
        values = self.encoding(name).decode(values.astype(values.dtype.newbyteorder("="), copy=False))
        if name == "object_id" and values.dtype.kind == "f":
            row = start + int(np.isnan(values).argmax())
            raise InputRefused(f"{self.path}/{name} has no id in row {row}, but a _FillValue: give it one")
        return values

    def redshifts(self, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Redshifts of rows start:stop, float64; NaN: not known, or of a star.

        Raises InputRefused where one is above any redshift.
        """
        if not self.has_redshifts:
            return np.full((self.n if stop is None else stop) - start, np.nan)
        redshift = self.column("redshift", start, stop).astype(np.float64)
        known = is_redshift(redshift)
        if self.has("spectype"):
            known &= self.column("spectype", start, stop) != STAR
        check_redshifts(f"{self.path}: a redshift", redshift[known])
        return np.where(known, redshift, np.nan)

    def further(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray | None:
        """Rows start:stop of a further column, as float64; None where there is none of this name.

        Raises InputRefused where it is not a number an object, or as `column`.
        """
        path = f"{COLUMNS}/{name}"
        if path not in self.arrays:  # checked once, as it is opened once
            if not self.has(path):
                return None
            check_further(self.path, path, self.group[path], self.n)
        return self.column(path, start, stop).astype(np.float64)

    def encoding(self, name: str) -> Encoding:
        """What the stored numbers of an array mean."""
        if name not in self.encodings:
            self.encodings[name] = read_encoding(self.path, self.array(name))
        return self.encodings[name]

    def images(
        self, start: int, stop: int, bands: Sequence[str] = (), size: int = SIZE
    ) -> tuple[np.ndarray, np.ndarray]:
        """Images of rows start:stop in these bands, or in all of the store, cut to `size` where larger.

        The middle of the cut is pixel H // 2 of the H stored on a side, which becomes pixel size // 2.

        Returns
        -------
        image : (m, bands, s, s) float32, s = min(size, H), the flux unit of the zero point; NaN in a band
            that the store lacks, and where `mask` is not 0
        damaged : (m,) bool, True where the pixels on disk are not those written; image is 0 there
        """
        image, damaged = self._whole_images(start, stop, size)
        if self.has("mask"):
            crop = self._crop(size)
            bad = self.column("mask", start, stop)[:, crop, crop] != 0
            image = np.where(bad[:, None], np.float32(np.nan), image)
        planes = match(bands or self.bands, self.bands)
        if planes == list(range(len(self.bands))):
            return image, damaged
        chosen = np.full((len(image), len(planes), *image.shape[2:]), np.nan, np.float32)
        for band, plane in enumerate(planes):
            if plane is not None:
                chosen[:, band] = image[:, plane]
        return chosen, damaged

    def _whole_images(self, start: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Images, as from `images`, in all bands of the store."""
        strides = range(start - start % self.shard_rows, max(stop, start + 1), self.shard_rows)
        pieces = [self._images(max(lo, start), min(lo + self.shard_rows, stop), size) for lo in strides]
        if len(pieces) == 1:  # the usual case, without another copy
            return pieces[0]
        image, damaged = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return image, damaged

    def _images(self, start: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Images, as from `images`, of rows within one shard."""
        array = self.array("image")
        if all(self._intact(array, file) for file in self._files(array, start, stop)):
            with contextlib.suppress(InputRefused):
                return self._pixels(array, start, stop, size), np.zeros(stop - start, bool)
        return self._salvage(array, start, stop, size)

    def _salvage(self, array: zarr.Array, start: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Read a damaged shard by chunks: those that pass their own crc32c are good, the others lost."""
        side = min(size, self.size)
        image = np.zeros((stop - start, len(self.bands), side, side), np.float32)
        damaged = np.ones(stop - start, bool)
        if self.manifest is not None and self._is_replaced(array, start - start % self.shard_rows):
            return image, damaged
        for a in range(start - start % self.chunk_rows, stop, self.chunk_rows):
            lo, hi = max(a, start), min(a + self.chunk_rows, stop)
            with contextlib.suppress(InputRefused):
                image[lo - start : hi - start] = self._pixels(array, lo, hi, size)
                damaged[lo - start : hi - start] = False
        return image, damaged

    def _is_replaced(self, array: zarr.Array, start: int) -> bool:
        """Whether a damaged shard is another shard or missing: then every chunk of it decodes.

        (Zarr reads a missing or empty file as fill values.)
        """
        if start not in self.replaced:  # set only when known: two units may be read at a time
            stop = min(self.n, start + self.shard_rows)
            spans = ((a, min(stop, a + self.chunk_rows)) for a in range(start, stop, self.chunk_rows))
            self.replaced[start] = all(self._decodes(array, *span) for span in spans)
        return self.replaced[start]

    def _decodes(self, array: zarr.Array, start: int, stop: int) -> bool:
        try:
            self._pixels(array, start, stop, SIZE)
        except InputRefused:
            return False
        return True

    def _pixels(self, array: zarr.Array, start: int, stop: int, size: int) -> np.ndarray:
        """Decode, and cut to `size` pixels about the centre."""
        crop = self._crop(size)
        with refusing(f"{self.path}/image does not decode"):
            pixels = self.encoding("image").decode(self._stored(array, start, stop, slice(None), crop, crop))
        if pixels.dtype == np.float16:
            return half_precision.widened(pixels)
        with np.errstate(over="ignore"):  # beyond float32 becomes Inf, which has a reject reason
            return pixels.astype(np.float32, copy=False)

    def _stored(self, array: zarr.Array, start: int, stop: int, *crop: slice) -> np.ndarray:
        """Stored numbers of rows start:stop; of each row, what is in `crop`.

        Raises one of MALFORMED, see checks.py, where they do not decode.
        """
        with atomic.naming(self.path / array.path):
            if (layout := self._own_layout(array)) and (rows := layout.read(start, stop)) is not None:
                return np.ascontiguousarray(rows[:, *crop])
            with self._fetched(array, start, stop):
                self._check_chunks(array, start, stop)
                return np.asarray(array[start:stop, *crop])

    def _own_layout(self, array: zarr.Array) -> OwnLayout | None:
        if array.path not in self.layouts:
            self.layouts[array.path] = OwnLayout.of(self.path, array)
        return self.layouts[array.path]

    def _crop(self, size: int) -> slice:
        """The middle `size` pixels along a side."""
        first = max(0, self.size // 2 - size // 2)
        return slice(first, first + size)

    def _fetched(self, array: zarr.Array, start: int, stop: int) -> AbstractContextManager[None]:
        """Hold the chunks of rows start:stop where they are on S3: zarr would fetch one after the other."""
        if not isinstance(self.path, ObjectPath) or stop <= start:
            return contextlib.nullcontext()
        return self.path.holding(stored_chunks(self.path, array, chunks_of(array, start, stop)))

    def _check_chunks(self, array: zarr.Array, start: int, stop: int) -> None:
        """Raise ValueError where a chunk is missing, or not of its size."""
        for chunk in chunks_of(array, start, stop) if stop > start else ():
            check_chunk(self.path, array, chunk)

    def _files(self, array: zarr.Array, start: int, stop: int) -> list[str]:
        """Shard files that hold rows start:stop; empty for a store without a manifest."""
        if self.manifest is None or stop <= start:
            return []
        rows = rows_per_file(array)
        return [shard_key(array, k) for k in range(start // rows, -(-stop // rows))]

    def _intact(self, array: zarr.Array, file: str) -> bool:
        """Whether a file matches the manifest, apart from errors that decoding it will find."""
        assert self.manifest is not None
        if file not in self.verified:
            expected = self.manifest.get(file)
            self.verified[file] = expected is not None and matches(self.path / file, expected, array)
        return self.verified[file]


def pad(image: np.ndarray) -> np.ndarray:
    """Pad images (m, bands, s, s) to 64 pixels with zeros, the mean sky of a coadd."""
    size = image.shape[-1]
    before = SIZE // 2 - size // 2
    margin = (before, SIZE - size - before)
    return np.pad(image, ((0, 0), (0, 0), margin, margin)) if size < SIZE else image


def open_store(path: Place, metadata: ImageMetadata = NO_METADATA) -> CutoutStore:
    """Open a store, ours or of another program, and check that its meaning is unambiguous.

    Raises
    ------
    UsageError : there is no directory `path`.
    InputRefused : it is no cutout store, is damaged, or is ambiguous; the message names the remedy.
    """
    check_folder(path)
    path = snapshot(path)
    stored_bytes, listing = inspect(path)
    group = open_group(path)
    attributes = dict(group.attrs)
    manifest = read_manifest(path)
    if manifest is None and attributes.get("format") == FORMAT:
        raise InputRefused(
            f"{path} has no manifest beside it ({manifest_path(path).name}): copy that file too, or write "
            "the store again"
        )
    if attributes.get("format") == FORMAT and attributes.get("version") != VERSION:
        raise InputRefused(
            f"{path} is version {attributes.get('version')} of the store, this program reads {VERSION}"
        )
    if manifest is not None:
        check_metadata(path, manifest)
    shape = check_arrays(path, group, stored_bytes)
    check_frame(path, attributes)
    bands = read_bands(path, attributes, metadata, shape[1])
    image = get_array(group, "image")
    shard_rows = rows_per_file(image)
    if manifest is None:  # its chunks may have any size: read it in strides of our shards
        shard_rows = SHARD
    return CutoutStore(
        path=path,
        n=shape[0],
        bands=bands,
        own_bands=read_bands(path, attributes, NO_METADATA, shape[1]) if attributes.get("bands") else bands,
        pixel_scale=read_number(path, attributes, "pixel_scale", metadata.pixel_scale, "arcsec a pixel"),
        zero_point=read_number(path, attributes, "zero_point", metadata.zero_point, "AB mag"),
        survey=str(attributes.get("survey", path.stem)),
        shard_rows=shard_rows,
        chunk_rows=image.chunks[0],
        stamp=atomic.digest(listing),
        size=shape[-1],
        group=group,
        manifest=manifest,
    )
