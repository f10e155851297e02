"""Write a cutout store, shard by shard, by one process or by many; go on where a run that died ended.

Until it is complete a store stands beside its name:

    tile.zarr.partial/       has one writer at a time; the next one goes on with it, or clears it
      begun.json             fingerprint of what is being written; the files that hold no rows
      shard-000003.json      the files of shard 3, once they are on disk
      store/                 becomes tile.zarr

Files are listed with size and sha256, and are written again where they are not what their list says.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    REQUIRED,
    SHARD,
    SIZE,
    TRAINING,
    VERSION,
    beside,
    chunk_sums,
    get_array,
    manifest_path,
    shard_key,
)
from catalogs.errors import InputRefused, UsageError
from catalogs.spectra import STORED_POOL, normalise, pool

Rows = Callable[[int, int], dict[str, np.ndarray]]
Progress = Callable[[Sequence[int], str], Iterable[int]]
Files = dict[str, dict]
"""File of the store -> size, sha256."""
STORE, BEGUN, MANIFEST = "store", "begun.json", "manifest.json"


class OneProcess:
    """The communicator of a process on its own."""

    def Get_rank(self) -> int:
        return 0

    def Get_size(self) -> int:
        return 1

    def Barrier(self) -> None:
        pass

    def allgather(self, value: Any) -> list:
        return [value]

    gather = allgather


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
    source: str | None = None,
    comm: Any = None,
    progress: Progress = lambda shards, what: shards,
) -> None:
    """Write a store shard by shard; it takes its name when all of it is on disk.

    Parameters
    ----------
    path : the store; must not exist.
    rows : `rows(start, stop)` gives the arrays of rows start:stop as a dict with the names of the format;
        called once a shard.
    n : number of objects N.
    pixel_scale, zero_point : arcsec a pixel, AB mag.
    wave : (P,) angstrom; makes a training store, whose rows carry flux, ivar and redshift too.
    shard_rows : a multiple of 64. Memory in use is a few times a shard.
    source : fingerprint of what `rows` gives. With one, the next run for the same keeps the shards that a
        run has finished before it died; without, every run starts over.
    comm : an MPI communicator; each rank writes whole shards, and their bytes do not depend on how many
        ranks there are. None: this process writes them all.
    progress : wraps the numbers of the shards of this rank, to watch them go by; told what is done with them.

    Raises
    ------
    UsageError : the path is taken, or shard_rows is not a multiple of 64.
    """
    if shard_rows < CHUNK or shard_rows % CHUNK:
        raise UsageError(f"shard rows must be a multiple of {CHUNK}, got {shard_rows}")
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "survey": survey,
        "bands": list(bands),
        "pixel_scale": pixel_scale,
        "zero_point": zero_point,
        "frame": "icrs",
    }
    shards = range(-(-n // shard_rows))
    comm = comm or OneProcess()
    rank, ranks = comm.Get_rank(), comm.Get_size()
    partial = beside(path, atomic.TEMPORARY)
    with _sole_writer(path, partial, keep=source is not None) if rank == 0 else contextlib.nullcontext():
        parameters = (n, size, wave, shard_rows, attributes)
        files = _begin(partial, source, *parameters) if rank == 0 else {}
        comm.Barrier()
        group = zarr.open_group(partial / STORE, mode="r+")
        mine = _finished(partial, shards[rank::ranks], progress)
        done = {shard for some in comm.allgather(list(mine)) for shard in some}
        if rank == 0 and done:
            print(f"resuming: {len(done)} of {len(shards)} shards are done", flush=True)
        left = [shard for shard in shards if shard not in done]
        for shard in progress(left[rank::ranks], "writing shards"):
            start, stop = shard * shard_rows, min(n, (shard + 1) * shard_rows)
            mine[shard] = _write_shard(partial, group, shard_rows, rows(start, stop), start, stop)
        everyone = comm.gather(mine)
        if rank == 0:
            _finish(partial, path, [files, *(listed for some in everyone for listed in some.values())])
    comm.Barrier()


# ---------------------------------------------------------------- the directory


@contextlib.contextmanager
def _sole_writer(path: Path, partial: Path, keep: bool) -> Iterator[None]:
    """Take over the directory that a dead run left unfinished; refuse the one a living run works in.

    keep : what a failing run has finished is of use to the next one. What a refused input gave is of none:
    once it is mended it is another input.
    """
    try:
        partial.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UsageError(f"{partial} cannot be created ({error.strerror}): choose another name") from error
    try:
        with atomic.owned(partial):
            _refuse_taken(path, partial)
            try:
                yield
            except BaseException as error:
                if not keep or isinstance(error, InputRefused):
                    shutil.rmtree(partial, ignore_errors=True)
                raise
    except BlockingIOError:
        raise UsageError(f"{partial} is being written by another process") from None


def _refuse_taken(path: Path, partial: Path) -> None:
    unfinished = (partial / STORE).exists()
    for taken in (path, manifest_path(path)):
        # a run that died between manifest and store left the one, with what it is of still unfinished
        if taken.exists() and (taken == path or not unfinished):
            if not unfinished:  # new, or left by a run that died after it was done but for this
                shutil.rmtree(partial)
            raise UsageError(f"{taken} exists already: remove it, or choose another name")


def _begin(
    partial: Path,
    source: str | None,
    n: int,
    size: int,
    wave: np.ndarray | None,
    shard_rows: int,
    attributes: dict,
) -> Files:
    """Go on with what an earlier run has begun, or clear the directory and lay out a store without rows."""
    grid = None if wave is None else wave.tolist()
    fingerprint = atomic.digest([source, zarr.__version__, n, size, grid, shard_rows, attributes])
    if source is not None:
        begun = _whole(partial, BEGUN)
        if begun and begun.get("fingerprint") == fingerprint:
            return begun["files"]
        if (partial / BEGUN).exists():
            print(f"{partial} is of another input, of other settings, or damaged: starting over", flush=True)
    for child in partial.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    store = partial / STORE
    _create(store, n, size, wave, shard_rows, attributes)
    files = _listed(store, [str(file.relative_to(store)) for file in store.rglob("*") if file.is_file()])
    atomic.write_json(partial / BEGUN, {"fingerprint": fingerprint, "files": files})
    return files


def _create(
    store: Path, n: int, size: int, wave: np.ndarray | None, shard_rows: int, attributes: dict
) -> None:
    """Lay out a store that holds no rows yet."""
    group = zarr.create_group(store, attributes=attributes)
    columns: dict[str, tuple[tuple[int, ...], str]] = {
        "image": ((len(attributes["bands"]), size, size), "float32"),
        "object_id": ((), "int64"),
        "ra": ((), "float64"),
        "dec": ((), "float64"),
    }
    if wave is not None:
        columns |= {
            "flux": (wave.shape, "float32"),
            "ivar": (wave.shape, "float32"),
            "redshift": ((), "float64"),
            "spectrum": ((len(wave) // STORED_POOL,), "float32"),
        }
        group.create_array("wave", data=np.asarray(wave, np.float64), compressors=Crc32cCodec())
    for name, (shape, dtype) in columns.items():
        group.create_array(
            name,
            shape=(n, *shape),
            chunks=(CHUNK if shape else shard_rows, *shape),  # a column is read whole, chunk by chunk
            shards=(shard_rows, *shape),
            dtype=dtype,
            fill_value=NEVER[dtype],
            compressors=Crc32cCodec(),
            config={"write_empty_chunks": True},
        )


# ---------------------------------------------------------------- shards


def _finished(partial: Path, shards: Sequence[int], progress: Progress) -> dict[int, Files]:
    """Those of the shards that an earlier run has written, and that are still what it wrote."""
    there = [shard for shard in shards if (partial / _record(shard)).exists()]
    found = {shard: _whole(partial, _record(shard)) for shard in progress(there, "checking shards")}
    return {shard: record["files"] for shard, record in found.items() if record}


def _write_shard(
    partial: Path, group: zarr.Group, shard_rows: int, rows: dict[str, np.ndarray], start: int, stop: int
) -> Files:
    """Write one shard of every array, then the record that makes it count."""
    shard = start // shard_rows
    if "wave" in group:
        rows |= {"spectrum": _model_spectra(rows["flux"], rows["ivar"])}
    written: dict[str, zarr.Array] = {}
    for name in (*REQUIRED, *(TRAINING if "wave" in group else ())):
        array = get_array(group, name)
        if rows[name].shape != (stop - start, *array.shape[1:]):
            raise ValueError(f"{name}: rows of shape {rows[name].shape} do not fit {array.shape}")
        file = shard_key(array, shard)
        (partial / STORE / file).unlink(missing_ok=True)  # zarr would read what it fills up
        array[start:stop] = rows[name]
        written[file] = array
    files = _listed(partial / STORE, written)
    for file, array in written.items():
        files[file]["chunk_sums"] = chunk_sums(partial / STORE / file, array)
    atomic.write_json(partial / _record(shard), {"files": files})
    return files


def _model_spectra(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """(m, P) -> (m, P // 6), so that training need not do it at every epoch, on 12 times the bytes."""
    blocks = [slice(start, start + CHUNK) for start in range(0, len(flux), CHUNK)]
    return np.concatenate([pool(normalise(flux[b], ivar[b]), STORED_POOL) for b in blocks])


def _record(shard: int) -> str:
    return f"shard-{shard:06d}.json"


def _listed(store: Path, names: Iterable[str]) -> Files:
    """Make files survive a power cut; gives their sizes and sha256."""
    for name in names:
        atomic.sync(store / name)
    return {name: atomic.entry(store / name) for name in names}


def _whole(partial: Path, record: str) -> dict | None:
    """What a record says, if all files in it are there and are what it says; else None."""
    try:
        content = json.loads((partial / record).read_text())
        whole = all(atomic.matches(partial / STORE / name, e) for name, e in content["files"].items())
    except (OSError, ValueError, LookupError, TypeError, AttributeError):  # not there, or damaged
        return None
    return content if whole else None


# ---------------------------------------------------------------- the end


def _finish(partial: Path, path: Path, listed: Iterable[Files]) -> None:
    """Write the manifest, then give the store its name; before that all of it is on disk."""
    files = {name: entry for some in listed for name, entry in some.items()}
    store = partial / STORE
    for other in sorted(store.rglob("*"), reverse=True):
        if other.is_dir():
            atomic.sync(other)
        elif str(other.relative_to(store)) not in files:  # a killed run was about to write it
            other.unlink()
    atomic.sync(store)
    manifest = {"format": FORMAT + "-manifest", "version": VERSION, "files": dict(sorted(files.items()))}
    atomic.write_json(partial / MANIFEST, manifest)
    for part, name in ((partial / MANIFEST, manifest_path(path)), (store, path)):
        part.rename(name)
        atomic.sync(path.parent)
    shutil.rmtree(partial)
