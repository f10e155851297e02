"""The cutout store: galaxy images, ids and positions (and spectra, to train on) as a sharded Zarr v3 group.

    tile.zarr/                 attributes: format, version, survey, bands, pixel_scale, zero_point, frame
      image      (N, bands, H, W) float32; inner chunks of 64 rows with crc32c, in shards
      object_id  (N,) int64          ra, dec  (N,) float64, degrees, ICRS
      flux, ivar (N, P) float32      wave (P,) angstrom      redshift (N,)       (training stores only)
    tile.zarr.manifest.json    file -> size, sha256

Zarr reads a lost or zeroed chunk as fill values without a word, so what the manifest says is what counts.
Stores made by others come without one; they are read where their meaning is beyond doubt.
"""

import contextlib
import json
import lzma
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError

FORMAT, VERSION = "mmae-cutouts", 1
BANDS = ("g", "r", "i", "z", "y")
SIZE = 64
"""Pixels on a side of the cutouts the model takes."""
CHUNK = 64
"""Rows an inner chunk: one batch of the model, 5 MB of float32 pixels."""
SHARD = 4096
"""Rows a shard, the unit of writing and of verification: 336 MB of float32 pixels."""

REQUIRED = ("image", "object_id", "ra", "dec")
TRAINING = ("flux", "ivar", "redshift")
RANKS = {"image": 4, "object_id": 1, "ra": 1, "dec": 1, "flux": 2, "ivar": 2, "redshift": 1, "wave": 1}
CODECS = {
    *("bytes", "transpose", "sharding_indexed", "crc32c"),
    *("gzip", "zstd", "blosc", "zlib", "lz4", "bz2", "lzma", "shuffle", "delta"),
}
"""Codecs that only ever turn bytes into numbers; a store may not bring others (Pickle runs code)."""
NEVER = {dtype: float(np.finfo(dtype).min) for dtype in ("float32", "float64")} | {"int64": -(2**63)}
"""Fill values that no data has: zarr leaves out a shard that is all fill, and reads a lost one as fill."""
MAX_CHUNK_BYTES = 2**31
MAX_COMPRESSION = 1000
"""Logical over stored bytes: noisy pixels compress by 1.1, a shape bomb by millions."""

Rows = Callable[[int, int], dict[str, np.ndarray]]


def manifest_path(store: Path) -> Path:
    return store.with_name(store.name + ".manifest.json")


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
    partial = path.with_name(path.name + atomic.TEMPORARY)
    for taken in (path, manifest_path(path)):
        # a run that died between its last two renames left its manifest, with what it is of still partial
        if taken.exists() and (taken == path or not partial.exists()):
            raise UsageError(f"{taken} exists already: remove it, or choose another name")
    if shard_rows < CHUNK or shard_rows % CHUNK:
        raise UsageError(f"shard rows must be a multiple of {CHUNK}, got {shard_rows}")

    with _sole_writer(partial) if rank == 0 else contextlib.nullcontext():
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
            _finish(partial, path, sorted(name for names in gathered for name in names))
    if comm:
        comm.Barrier()


@contextlib.contextmanager
def _sole_writer(partial: Path) -> Iterator[None]:
    """Take over the directory that a dead run left unfinished; refuse the one a living run works in.

    A run that fails, rather than dies, leaves nothing.
    """
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{partial} cannot be created ({error.strerror}): choose another name") from error
    try:
        with atomic.owned(partial):
            for child in partial.iterdir():
                shutil.rmtree(child) if child.is_dir() else child.unlink()
            try:
                yield
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
    except BlockingIOError:
        raise UsageError(f"{partial} is being written by another process") from None


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
        array = _array(group, name)
        if rows[name].shape != (stop - start, *array.shape[1:]):
            raise ValueError(f"{name}: rows of shape {rows[name].shape} do not fit {array.shape}")
        array[start:stop] = rows[name]
        file = shard_key(array, shard)
        with (path / file).open("rb") as handle:
            os.fsync(handle.fileno())
        written.append((file, atomic.entry(path / file)))
    return written


def _finish(partial: Path, path: Path, written: list[tuple[str, dict]]) -> None:
    others = [str(p.relative_to(partial)) for p in sorted(partial.rglob("*")) if p.is_file()]
    missing = {file: atomic.entry(partial / file) for file in set(others) - {file for file, _ in written}}
    files = dict(sorted((*written, *missing.items())))
    atomic.write_json(
        manifest_path(path), {"format": FORMAT + "-manifest", "version": VERSION, "files": files}
    )
    partial.rename(path)
    atomic.sync_directory(path.parent)


def _array(group: zarr.Group, name: str) -> zarr.Array:
    array = group[name]
    assert isinstance(array, zarr.Array), name
    return array


def shard_key(array: zarr.Array, shard: int) -> str:
    """File of the shard with rows shard * shard_rows onward, relative to the store."""
    return f"{array.basename}/c/" + "/".join(map(str, (shard, *(0,) * (array.ndim - 1))))


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Described:
    """What the user says of a store that does not say it itself."""

    bands: tuple[str, ...] = ()
    pixel_scale: float | None = None
    zero_point: float | None = None

    def __post_init__(self) -> None:
        for flag, value in (("--pixel-scale", self.pixel_scale), ("--zero-point", self.zero_point)):
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{flag} must be a positive number, got {value}")


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
    padded: bool
    """Images smaller than 64 pixels are set into a frame of zeros, the mean sky of a coadd."""
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
        return _array(self.group, name)

    def column(self, name: str, start: int = 0, stop: int | None = None) -> np.ndarray:
        """Rows start:stop of any array but `image`, in native byte order.

        Raises InputRefused, naming the file, where it is not what the manifest says or does not decode.
        """
        array, stop = self.array(name), self.n if stop is None else stop
        for file in self._files(array, start, stop):
            if not self._intact(file):
                raise InputRefused(f"{self.path / file} is damaged: {REPAIR}")
        with _refusing(f"{self.path}/{name} does not decode"):
            values = np.asarray(array[start:stop])
        return values.astype(values.dtype.newbyteorder("="), copy=False)

    def images(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        """Images of rows start:stop in the bands and size of the model.

        Returns
        -------
        image : (m, 5, 64, 64) float32, bands g r i z y, the flux unit of the zero point
        damaged : (m,) bool, True where the pixels on disk are not those that were written; image is 0 there
        """
        array = self.array("image")
        image = np.zeros((stop - start, len(BANDS), SIZE, SIZE), np.float32)
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
        image = np.zeros((stop - start, len(BANDS), SIZE, SIZE), np.float32)
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
        """Decode, take the bands by name, cut or pad to 64 pixels about the centre."""
        size = array.shape[-1]
        cut = slice(size // 2 - SIZE // 2, size // 2 + SIZE // 2) if size >= SIZE else slice(None)
        with _refusing(f"{self.path}/image does not decode"):
            pixels = np.asarray(array[start:stop, :, cut, cut])
        pixels = pixels[:, [self.bands.index(b) for b in BANDS]]
        with np.errstate(over="ignore"):  # beyond float32 becomes Inf, and Inf is rejected by name
            pixels = pixels.astype(np.float32, copy=False)
        if size < SIZE:
            before = SIZE // 2 - size // 2
            margin = (before, SIZE - size - before)
            pixels = np.pad(pixels, ((0, 0), (0, 0), margin, margin))
        return pixels

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


REPAIR = "write the store again, or copy it again from where it is whole"
MALFORMED = (
    *(ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(OSError, EOFError, zlib.error, lzma.LZMAError),
)


@contextlib.contextmanager
def _refusing(what: str, remedy: str = REPAIR) -> Iterator[None]:
    """Turn what zarr and its codecs raise over bytes that make no sense into InputRefused.

    A failure of the disk is no fault of the bytes: it has an errno, and passes.
    """
    try:
        yield
    except MALFORMED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise InputRefused(f"{what} ({error}): {remedy}") from error


def verify(path: Path, progress: Callable[[list[str]], Iterable[str]] = iter) -> list[str]:
    """Files of a store that are missing or are not the bytes that were written, by the manifest."""
    files = _read_manifest(path)
    if files is None:
        raise InputRefused(f"{path} has no manifest ({manifest_path(path).name}) to verify it against")
    return [file for file in progress(list(files)) if not atomic.matches(path / file, files[file])]


def open_store(path: Path, described: Described = Described()) -> CutoutStore:
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
    stored_bytes, listing = _inspect(path)
    group = _open_group(path)
    attributes = dict(group.attrs)
    manifest = _read_manifest(path)
    if manifest is None and attributes.get("format") == FORMAT:
        raise InputRefused(
            f"{path} has no manifest beside it ({manifest_path(path).name}): copy that file too, or {REPAIR}"
        )
    if attributes.get("format") == FORMAT and attributes.get("version") != VERSION:
        raise InputRefused(
            f"{path} is version {attributes.get('version')} of the store, this program reads {VERSION}"
        )
    if manifest is not None:
        _check_metadata(path, manifest)
    shape = _check_arrays(path, group, stored_bytes)
    bands = _bands(path, attributes, described, shape[1])
    image = _array(group, "image")
    shard_rows = (image.shards or image.chunks)[0]
    if manifest is None:  # chunks of any size: go over them in strides of a shard of ours
        shard_rows = SHARD
    return CutoutStore(
        path=path,
        n=shape[0],
        bands=bands,
        pixel_scale=_number(path, attributes, "pixel_scale", described.pixel_scale, "arcsec a pixel"),
        zero_point=_number(path, attributes, "zero_point", described.zero_point, "AB mag"),
        survey=str(attributes.get("survey", path.stem)),
        shard_rows=shard_rows,
        chunk_rows=image.chunks[0],
        fingerprint=atomic.digest(manifest if manifest is not None else listing),
        padded=shape[-1] < SIZE,
        group=group,
        manifest=manifest,
    )


def _inspect(path: Path) -> tuple[int, list]:
    """Refuse what must not even be opened; give stored bytes and a listing (file, size, time of change)."""
    listing: list[tuple[str, int, int]] = []
    root = path.resolve()
    for directory, folders, files in os.walk(path):
        for name in (*folders, *files):
            file = Path(directory, name)
            if file.is_symlink() and not _leads_into(root, file):
                raise InputRefused(
                    f"{file} is a link that leads out of the store, or nowhere: put the data itself there"
                )
            if file.is_file():
                status = file.stat()
                listing.append((str(file.relative_to(path)), status.st_size, status.st_mtime_ns))
                if name in ("zarr.json", ".zarray"):
                    _check_codecs(file)
    return sum(size for _, size, _ in listing), sorted(listing)


def _leads_into(root: Path, link: Path) -> bool:
    try:
        return link.resolve(strict=True).is_relative_to(root)
    except (OSError, RuntimeError):  # to nothing, or round in a circle
        return False


def _check_codecs(file: Path) -> None:
    with _refusing(f"{file} is not JSON"):
        metadata = json.loads(file.read_text())
    for name in _codec_names(metadata):
        if name.removeprefix("numcodecs.") not in CODECS:
            raise InputRefused(
                f"{file} names the codec {name!r}, which is not read here: rewrite the array without it"
            )


def _codec_names(node: Any) -> Iterator[str]:
    """Names of all codecs in array metadata of Zarr v3 (codecs, index_codecs) or v2 (compressor, filters)."""
    if isinstance(node, list):
        for item in node:
            yield from _codec_names(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("codecs", "index_codecs", "compressor", "filters"):
                for codec in value if isinstance(value, list) else [value]:
                    if isinstance(codec, dict):
                        yield from (str(codec[name]) for name in ("name", "id") if name in codec)
                    elif codec is not None:
                        yield str(codec)
            if key != "attributes":  # they are the user's, and mean nothing to zarr
                yield from _codec_names(value)


def _open_group(path: Path) -> zarr.Group:
    with _refusing(f"{path} is not a Zarr group", "name the group that holds `image`"):
        # consolidated metadata are a second copy, whose codecs nobody has looked at
        return zarr.open_group(path, mode="r", use_consolidated=False)


def _read_manifest(path: Path) -> dict[str, dict] | None:
    file = manifest_path(path)
    if not file.exists():
        return None
    with _refusing(f"{file} is not a manifest"):
        files = json.loads(file.read_text())["files"]
        return {name: {"size": entry["size"], "sha256": entry["sha256"]} for name, entry in files.items()}


def _check_metadata(path: Path, manifest: dict[str, dict]) -> None:
    """The small JSON files decide what all other bytes mean: check them before anything is decoded."""
    for file, expected in manifest.items():
        if file.endswith("zarr.json") and not atomic.matches(path / file, expected):
            raise InputRefused(f"{path / file} is not what the manifest says: {REPAIR}")


def _check_arrays(path: Path, group: zarr.Group, stored_bytes: int) -> tuple[int, ...]:
    """Names, types, ranks, lengths and sizes; gives the shape of `image`."""
    with _refusing(f"{path} holds an array that cannot be read"):
        found = {name: group[name] for name in RANKS if name in group}
    arrays = {name: array for name, array in found.items() if isinstance(array, zarr.Array)}
    for name in (*REQUIRED, *found):
        if name not in arrays:
            raise InputRefused(f"{path} has no array `{name}`: a cutout store holds {', '.join(REQUIRED)}")
    for name, array in arrays.items():
        if array.ndim != RANKS[name]:
            raise InputRefused(f"{path}/{name} has shape {array.shape}: it must have {RANKS[name]} axes")
        if name == "object_id" and array.dtype.kind not in "iu":
            raise InputRefused(f"{path}/object_id is of type {array.dtype}: ids must be integers")
        if name != "object_id" and array.dtype.kind != "f":
            raise InputRefused(f"{path}/{name} is of type {array.dtype}: it must be floating point")
        _check_size(path, name, array, stored_bytes)
    image = arrays["image"]
    if image.shape[2] != image.shape[3]:
        raise InputRefused(f"{path}/image has shape {image.shape}: it must be (N, bands, size, size)")
    for name, array in arrays.items():
        if name != "wave" and array.shape[0] != image.shape[0]:
            raise InputRefused(
                f"{path}: image has {image.shape[0]} rows, {name} {array.shape[0]}: they must agree"
            )
    if len({array.shape[-1] for name, array in arrays.items() if name in ("flux", "ivar", "wave")}) > 1:
        raise InputRefused(f"{path}: flux, ivar and wave differ in their numbers of pixels: they must agree")
    return image.shape


def _check_size(path: Path, name: str, array: zarr.Array, stored_bytes: int) -> None:
    """Refuse what takes more memory than its bytes on disk warrant."""
    if array.nbytes > MAX_COMPRESSION * max(stored_bytes, 2**20):
        raise InputRefused(
            f"{path}/{name} claims {array.nbytes:.3g} bytes, the store holds {stored_bytes:.3g}"
        )
    inner = math.prod(array.chunks)
    if not inner:
        raise InputRefused(f"{path}/{name} has chunks of shape {array.chunks}: {REPAIR}")
    index_bytes = 16 * math.prod(array.shards or ()) // inner
    if max(inner * array.dtype.itemsize, index_bytes) > MAX_CHUNK_BYTES:
        raise InputRefused(
            f"{path}/{name} has chunks of over 2 GiB: rewrite it with about {CHUNK} rows a chunk"
        )


def _bands(path: Path, attributes: dict, described: Described, count: int) -> tuple[str, ...]:
    stored = attributes.get("bands")
    if not isinstance(stored, list | None) or not all(isinstance(band, str) for band in stored or ()):
        raise InputRefused(f"{path} has bands {stored!r}: they must be a list of names")
    if stored is not None and described.bands and tuple(stored) != described.bands:
        raise InputRefused(
            f"{path} has the bands {' '.join(stored)}, --bands says {' '.join(described.bands)}"
        )
    bands = tuple(stored or described.bands)
    if not bands:
        raise InputRefused(f"{path} does not name its {count} bands: pass --bands, in the order of the array")
    if len(bands) != count or len(set(bands)) != count:
        raise InputRefused(
            f"{path} names the bands {' '.join(bands)} for {count} planes: each once, in order"
        )
    if missing := [band for band in BANDS if band not in bands]:
        raise InputRefused(f"{path} lacks the band {', '.join(missing)}: the model needs {' '.join(BANDS)}")
    return bands


def _number(path: Path, attributes: dict, name: str, said: float | None, unit: str) -> float:
    value = attributes.get(name, said)
    flag = "--" + name.replace("_", "-")
    if value is None:
        raise InputRefused(f"{path} does not say its {name} ({unit}): pass {flag}")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputRefused(f"{path}: {name} {value!r} is not a positive number ({unit})")
    if said is not None and value != said:
        raise InputRefused(f"{path} has {name} {value}, {flag} says {said}: leave the flag out")
    return float(value)
