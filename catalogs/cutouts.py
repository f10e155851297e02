"""The cutout store: write one, open one, read images and columns. Its format is in cutout_format.py."""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from catalogs import atomic
from catalogs.cutout_format import (
    BANDS,
    CHUNK,
    FORMAT,
    NEVER,
    NOTHING_SAID,
    REPAIR,
    REQUIRED,
    SHARD,
    SIZE,
    TRAINING,
    VERSION,
    Described,
    check_arrays,
    check_metadata,
    get_array,
    inspect,
    manifest_path,
    open_group,
    read_bands,
    read_manifest,
    read_number,
    refusing,
    shard_key,
)
from catalogs.errors import InputRefused, UsageError

Rows = Callable[[int, int], dict[str, np.ndarray]]


# ---------------------------------------------------------------- writing


def write(
    path: Path,
    rows: Rows,
    *,
    n: int,
    survey: str,
    bands: Sequence[str] = BANDS,
    pixel_scale: float = 0.168,
    zero_point: float = 27.0,
    size: int = SIZE,
    wave: np.ndarray | None = None,
    shard_rows: int = SHARD,
    comm: Any = None,
    progress: Callable[[Iterable[int]], Iterable[int]] = iter,
) -> None:
    """Write a store shard by shard; it takes its name when all of it is on disk.

    Parameters
    ----------
    path : the store; must not exist.
    rows : `rows(start, stop)` gives the arrays of rows start:stop as a dict with the names above;
        called once a shard.
    n : number of objects N.
    pixel_scale, zero_point : arcsec a pixel, AB mag.
    wave : (P,) angstrom; makes a training store, whose rows carry flux, ivar and redshift too.
    shard_rows : a multiple of 64. Memory in use is a few times a shard.
    comm : an MPI communicator; each rank writes whole shards, and their bytes do not depend on how many
        ranks there are. None: this process writes them all.
    progress : wraps the shard numbers of this rank, to watch them go by.

    Raises
    ------
    UsageError : the path is taken, or shard_rows is not a multiple of 64.
    """
    rank, ranks = (comm.Get_rank(), comm.Get_size()) if comm else (0, 1)
    if shard_rows < CHUNK or shard_rows % CHUNK:
        raise UsageError(f"shard rows must be a multiple of {CHUNK}, got {shard_rows}")

    partial = path.with_name(path.name + atomic.TEMPORARY)
    with _sole_writer(path, partial) if rank == 0 else contextlib.nullcontext():
        if rank == 0:
            attributes = {
                "format": FORMAT,
                "version": VERSION,
                "survey": survey,
                "bands": list(bands),
                "pixel_scale": pixel_scale,
                "zero_point": zero_point,
                "frame": "icrs",
            }
            _create(partial, n, len(bands), size, wave, shard_rows, attributes)
        if comm:
            comm.Barrier()
        group = zarr.open_group(partial, mode="r+")
        written = []
        for shard in progress(range(rank, -(-n // shard_rows), ranks)):
            start, stop = shard * shard_rows, min(n, (shard + 1) * shard_rows)
            written += _write_shard(partial, group, shard, rows(start, stop), start, stop)
        gathered = comm.gather(written) if comm else [written]
        if rank == 0:
            _finish(partial, path, dict(pair for pairs in gathered for pair in pairs))
    if comm:
        comm.Barrier()


@contextlib.contextmanager
def _sole_writer(path: Path, partial: Path) -> Iterator[None]:
    """Take over the directory that a dead run left unfinished; refuse the one a living run works in.

    A run that fails, rather than dies, leaves nothing.
    """
    left_behind = partial.exists()
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{partial} cannot be created ({error.strerror}): choose another name") from error
    try:
        with atomic.owned(partial):
            try:
                _refuse_taken(path, left_behind)
                for orphan in path.parent.glob(f".{manifest_path(path).name}.*{atomic.TEMPORARY}"):
                    orphan.unlink()
                for child in partial.iterdir():
                    shutil.rmtree(child) if child.is_dir() else child.unlink()
                yield
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except BlockingIOError:
        raise UsageError(f"{partial} is being written by another process") from None


def _refuse_taken(path: Path, left_behind: bool) -> None:
    for taken in (path, manifest_path(path)):
        # a run that died between its last two renames left its manifest, with what it is of still partial
        if taken.exists() and (taken == path or not left_behind):
            raise UsageError(f"{taken} exists already: remove it, or choose another name")


def _create(
    path: Path, n: int, bands: int, size: int, wave: np.ndarray | None, shard_rows: int, attributes: dict
) -> None:
    group = zarr.create_group(path, attributes=attributes)
    columns: dict[str, tuple[tuple[int, ...], str]] = {
        "image": ((bands, size, size), "float32"),
        "object_id": ((), "int64"),
        "ra": ((), "float64"),
        "dec": ((), "float64"),
    }
    if wave is not None:
        columns |= {
            "flux": (wave.shape, "float32"),
            "ivar": (wave.shape, "float32"),
            "redshift": ((), "float64"),
        }
        group.create_array("wave", data=np.asarray(wave, np.float64), compressors=Crc32cCodec())
    for name, (shape, dtype) in columns.items():
        group.create_array(
            name,
            shape=(n, *shape),
            chunks=(CHUNK, *shape),
            shards=(shard_rows, *shape),
            dtype=dtype,
            fill_value=NEVER[dtype],
            compressors=Crc32cCodec(),
            config={"write_empty_chunks": True},
        )


def _write_shard(
    path: Path, group: zarr.Group, shard: int, rows: dict[str, np.ndarray], start: int, stop: int
) -> list[tuple[str, dict]]:
    """Write one shard of every array; give back (file, manifest entry) pairs."""
    written = []
    for name in (*REQUIRED, *(TRAINING if "wave" in group else ())):
        array = get_array(group, name)
        if rows[name].shape != (stop - start, *array.shape[1:]):
            raise ValueError(f"{name}: rows of shape {rows[name].shape} do not fit {array.shape}")
        array[start:stop] = rows[name]
        file = shard_key(array, shard)
        atomic.sync(path / file)
        written.append((file, atomic.entry(path / file)))
    return written


def _finish(partial: Path, path: Path, written: dict[str, dict]) -> None:
    """Write the manifest, then give the store its name; before that all of it is on disk."""
    for other in sorted(partial.rglob("*")):
        name = str(other.relative_to(partial))
        if name not in written:  # the shards are synced and listed already
            atomic.sync(other)
            if other.is_file():
                written[name] = atomic.entry(other)
    files = dict(sorted(written.items()))
    atomic.write_json(
        manifest_path(path), {"format": FORMAT + "-manifest", "version": VERSION, "files": files}
    )
    atomic.sync(partial)
    partial.rename(path)
    atomic.sync(path.parent)


# ---------------------------------------------------------------- reading


@dataclass
class CutoutStore:
    """An open, checked store; see `open_store`."""

    path: Path
    n: int
    bands: tuple[str, ...]
    pixel_scale: float
    zero_point: float
    survey: str
    shard_rows: int
    chunk_rows: int
    fingerprint: str
    """sha256 over what the store is made of: changes when any byte of it does."""
    size: int
    """Pixels on a side of the images it gives: 64, or fewer where it has fewer; see `pad`."""
    group: zarr.Group = field(repr=False)
    manifest: dict[str, dict] | None = field(repr=False)
    verified: dict[str, bool] = field(default_factory=dict, repr=False)
    foreign: dict[int, bool] = field(default_factory=dict, repr=False)

    @property
    def has_spectra(self) -> bool:
        return all(name in self.group for name in (*TRAINING, "wave"))

    @property
    def wave(self) -> np.ndarray:
        """(P,) angstrom; of a training store."""
        return self.column("wave", 0, self.array("wave").shape[0])

    def array(self, name: str) -> zarr.Array:
        return get_array(self.group, name)

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start:stop of any array but `image`, in native byte order.

        Raises InputRefused, naming the file, where it is not what the manifest says or does not decode.
        """
        array, stop = self.array(name), self.n if stop is None else stop
        for file in self._files(array, start, stop):
            if not self._intact(file):
                raise InputRefused(f"{self.path / file} is damaged: {REPAIR}")
        with refusing(f"{self.path}/{name} does not decode"):
            values = np.asarray(array[start:stop])
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def images(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images of rows start:stop in the bands of the model, and in its size or smaller.

        Returns
        -------
        image : (m, 5, s, s) float32, s = min(64, H), bands g r i z y, the flux unit of the zero point
        damaged : (m,) bool, True where the pixels on disk are not those that were written; image is 0 there
        """
        array = self.array("image")
        image = np.zeros((stop - start, len(BANDS), self.size, self.size), np.float32)
        damaged = np.zeros(stop - start, bool)
        for lo in range(start - start % self.shard_rows, stop, self.shard_rows):
            a, b = max(lo, start), min(lo + self.shard_rows, stop)
            here = slice(a - start, b - start)
            if all(self._intact(file) for file in self._files(array, a, b)):
                with contextlib.suppress(InputRefused):
                    image[here] = self._pixels(array, a, b)
                    continue
            image[here], damaged[here] = self._salvage(array, a, b)
        return image, damaged

    def _salvage(self, array: zarr.Array, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Chunks of a damaged shard that still pass their own crc32c are good; the others are lost."""
        image = np.zeros((stop - start, len(BANDS), self.size, self.size), np.float32)
        damaged = np.ones(stop - start, bool)
        if self.manifest is not None and self._is_foreign(array, start - start % self.shard_rows):
            return image, damaged
        for a in range(start - start % self.chunk_rows, stop, self.chunk_rows):
            lo, hi = max(a, start), min(a + self.chunk_rows, stop)
            with contextlib.suppress(InputRefused):
                image[lo - start : hi - start] = self._pixels(array, lo, hi)
                damaged[lo - start : hi - start] = False
        return image, damaged

    def _is_foreign(self, array: zarr.Array, start: int) -> bool:
        """Whether every chunk of a damaged shard decodes: then it is another one, or none.

        (What is not there, or is of no length, zarr reads as fill values.)
        """
        if start not in self.foreign:
            self.foreign[start] = True
            for a in range(start, min(self.n, start + self.shard_rows), self.chunk_rows):
                try:
                    self._pixels(array, a, min(self.n, a + self.chunk_rows))
                except InputRefused:
                    self.foreign[start] = False
                    break
        return self.foreign[start]

    def _pixels(self, array: zarr.Array, start: int, stop: int) -> np.ndarray:
        """Decode, take the bands by name, cut to 64 pixels about the centre."""
        size = array.shape[-1]
        cut = slice(size // 2 - SIZE // 2, size // 2 + SIZE // 2) if size >= SIZE else slice(None)
        with refusing(f"{self.path}/image does not decode"):
            pixels = np.asarray(array[start:stop, :, cut, cut])
        pixels = pixels[:, [self.bands.index(b) for b in BANDS]]
        with np.errstate(over="ignore"):  # beyond float32 becomes Inf, and Inf is rejected by name
            return pixels.astype(np.float32, copy=False)

    def _files(self, array: zarr.Array, start: int, stop: int) -> list[str]:
        """Shard files behind rows start:stop; none are known of a store without a manifest."""
        if self.manifest is None or stop <= start:
            return []
        rows = (array.shards or array.chunks)[0]
        return [shard_key(array, k) for k in range(start // rows, -(-stop // rows))]

    def _intact(self, file: str) -> bool:
        assert self.manifest is not None
        if file not in self.verified:
            expected = self.manifest.get(file)
            self.verified[file] = expected is not None and atomic.matches(self.path / file, expected)
        return self.verified[file]


def pad(image: np.ndarray) -> np.ndarray:
    """Set images (m, bands, s, s) of up to 64 pixels into a frame of zeros, the mean sky of a coadd."""
    size = image.shape[-1]
    before = SIZE // 2 - size // 2
    margin = (before, SIZE - size - before)
    return np.pad(image, ((0, 0), (0, 0), margin, margin)) if size < SIZE else image


def verify(path: Path, progress: Callable[[list[str]], Iterable[str]] = iter) -> list[str]:
    """Files of a store that are missing or are not the bytes that were written, by the manifest."""
    files = read_manifest(path)
    if files is None:
        raise InputRefused(f"{path} has no manifest ({manifest_path(path).name}) to verify it against")
    return [file for file in progress(list(files)) if not atomic.matches(path / file, files[file])]


def open_store(path: Path, described: Described = NOTHING_SAID) -> CutoutStore:
    """Open a store, ours or another's, and check that there is one way only to read it.

    Raises
    ------
    UsageError : there is no directory `path`.
    InputRefused : it is no cutout store, is damaged, or leaves a doubt; the sentence says what to do.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if not path.is_dir():
        raise UsageError(f"{path} is a file; a cutout store is a directory (Zarr)")
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
    bands = read_bands(path, attributes, described, shape[1])
    image = get_array(group, "image")
    shard_rows = (image.shards or image.chunks)[0]
    if manifest is None:  # chunks of any size: go over them in strides of a shard of ours
        shard_rows = SHARD
    return CutoutStore(
        path=path,
        n=shape[0],
        bands=bands,
        pixel_scale=read_number(path, attributes, "pixel_scale", described.pixel_scale, "arcsec a pixel"),
        zero_point=read_number(path, attributes, "zero_point", described.zero_point, "AB mag"),
        survey=str(attributes.get("survey", path.stem)),
        shard_rows=shard_rows,
        chunk_rows=image.chunks[0],
        fingerprint=atomic.digest(manifest if manifest is not None else listing),
        size=min(SIZE, shape[-1]),
        group=group,
        manifest=manifest,
    )
