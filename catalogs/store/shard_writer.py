"""Write a Zarr group of rows, shard by shard, by one process or by many; go on where a run that died ended.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.store.format import CHUNK, NEVER, beside, get_array, manifest_path, shard_key
from catalogs.store.manifest import chunk_sums

Columns = dict[str, tuple[tuple[int, ...], str]]
"""Array -> shape of a row, type; with a type of cutout_format.NEVER."""
Blocks = Callable[[Sequence[tuple[int, int]]], Iterable[dict[str, np.ndarray]]]
"""Row ranges (start, stop) -> their arrays by name, range after range; called once."""
Progress = Callable[[Sequence[int], str], Iterable[int]]
Files = dict[str, dict]
"""File of the store -> size, sha256."""
STORE, BEGUN, MANIFEST = "store", "begun.json", "manifest.json"


@dataclass(frozen=True)
class Layout:
    """All of a store but its rows."""

    n: int
    """Rows."""
    attributes: dict[str, Any]
    """With `format` and `version`."""
    columns: Columns
    constants: dict[str, np.ndarray]
    """Arrays that have no rows."""
    shard_rows: int
    """Rows a shard, a multiple of 64."""

    def span(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the row after its last."""
        return shard * self.shard_rows, min(self.n, (shard + 1) * self.shard_rows)


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


def write_shards(
    path: Path,
    layout: Layout,
    blocks: Blocks,
    source: str | None,
    comm: Any = None,
    progress: Progress = lambda shards, what: shards,
) -> None:
    """Write a store shard by shard; it takes its name when all of it is on disk.

    Parameters
    ----------
    path : the store; must not exist.
    blocks : gives the arrays of the shards that are not there yet. Memory in use is a few times a shard.
    source : fingerprint of what `blocks` gives. With one, the next run for the same keeps the shards that a
        run has finished before it died; without, every run starts over.
    comm : an MPI communicator; each rank writes whole shards, and their bytes do not depend on how many
        ranks there are. None: this process writes them all.
    progress : wraps the numbers of the shards of this rank, to watch them go by; told what is done with them.

    Raises
    ------
    UsageError : the path is taken, or shard_rows is not a multiple of 64.
    """
    if layout.shard_rows < CHUNK or layout.shard_rows % CHUNK:
        raise UsageError(f"shard rows must be a multiple of {CHUNK}, got {layout.shard_rows}")
    shards = range(-(-layout.n // layout.shard_rows))
    comm = comm or OneProcess()
    rank, ranks = comm.Get_rank(), comm.Get_size()
    partial = beside(path, atomic.TEMPORARY)
    with _sole_writer(path, partial, keep=source is not None) if rank == 0 else contextlib.nullcontext():
        files = _begin(partial, source, layout) if rank == 0 else {}
        comm.Barrier()
        group = zarr.open_group(partial / STORE, mode="r+")
        mine = _finished(partial, shards[rank::ranks], progress)
        done = {shard for some in comm.allgather(list(mine)) for shard in some}
        if rank == 0 and done:
            print(f"resuming: {len(done)} of {len(shards)} shards are done", flush=True)
        left = [shard for shard in shards if shard not in done][rank::ranks]
        arrays = blocks([layout.span(shard) for shard in left])
        for shard, rows in zip(progress(left, "writing shards"), arrays, strict=True):
            mine[shard] = _write_shard(partial, group, layout, shard, rows)
        everyone = comm.gather(mine)
        if rank == 0:
            listed = [files, *(listed for some in everyone for listed in some.values())]
            _finish(partial, path, layout.attributes, listed)
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


def _begin(partial: Path, source: str | None, layout: Layout) -> Files:
    """Go on with what an earlier run has begun, or clear the directory and lay out a store without rows."""
    constants = {name: values.tolist() for name, values in layout.constants.items()}
    parameters = [layout.n, layout.attributes, layout.columns, constants, layout.shard_rows]
    fingerprint = atomic.digest([source, zarr.__version__, *parameters])
    if source is not None:
        begun = _whole(partial, BEGUN)
        if begun and begun.get("fingerprint") == fingerprint:
            return begun["files"]
        if (partial / BEGUN).exists():
            print(f"{partial} is of another input, of other settings, or damaged: starting over", flush=True)
    for child in partial.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    store = partial / STORE
    _create(store, layout)
    files = _listed(store, [str(file.relative_to(store)) for file in store.rglob("*") if file.is_file()])
    atomic.write_json(partial / BEGUN, {"fingerprint": fingerprint, "files": files})
    return files


def _create(store: Path, layout: Layout) -> None:
    """Lay out a store that holds no rows yet."""
    group = zarr.create_group(store, attributes=layout.attributes)
    for name, values in layout.constants.items():
        group.create_array(name, data=values, compressors=Crc32cCodec())
    for name, (shape, dtype) in layout.columns.items():
        group.create_array(
            name,
            shape=(layout.n, *shape),
            chunks=(CHUNK if shape else layout.shard_rows, *shape),  # a column is read whole, chunk by chunk
            shards=(layout.shard_rows, *shape),
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
    partial: Path, group: zarr.Group, layout: Layout, shard: int, rows: dict[str, np.ndarray]
) -> Files:
    """Write one shard of every array, then the record that makes it count."""
    start, stop = layout.span(shard)
    written: dict[str, zarr.Array] = {}
    for name in layout.columns:
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


def _finish(partial: Path, path: Path, attributes: dict[str, Any], listed: Iterable[Files]) -> None:
    """Write the manifest, then give the store its name; before that all of it is on disk."""
    files = {name: entry for some in listed for name, entry in some.items()}
    store = partial / STORE
    for other in sorted(store.rglob("*"), reverse=True):
        if other.is_dir():
            atomic.sync(other)
        elif str(other.relative_to(store)) not in files:  # a killed run was about to write it
            other.unlink()
    atomic.sync(store)
    manifest = {
        "format": f"{attributes['format']}-manifest",
        "version": attributes["version"],
        "files": dict(sorted(files.items())),
    }
    atomic.write_json(partial / MANIFEST, manifest)
    for part, name in ((partial / MANIFEST, manifest_path(path)), (store, path)):
        part.rename(name)
        atomic.sync(path.parent)
    shutil.rmtree(partial)
