"""Write a Zarr group of rows shard by shard, by one process or several; resume an interrupted run.

An incomplete store is kept beside its final name:

    tile.zarr.partial/       has one writer at a time; the next one resumes or clears it
      begun.json             fingerprint of what is being written; the files that hold no rows
      shard-000003.json      the files of shard 3, once they are on disk
      store/                 becomes tile.zarr

Files are recorded with size and sha256, and are written again where they do not match.
"""

import contextlib
import os
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
from catalogs.store.format import CHUNK, FILL_VALUES, beside, get_array, manifest_path, shard_key
from catalogs.store.manifest import chunk_sums

Columns = dict[str, tuple[tuple[int, ...], str]]
"""Array -> shape of a row, type; the type is a key of FILL_VALUES."""
Blocks = Callable[[Sequence[tuple[int, int]]], Iterable[dict[str, np.ndarray]]]
"""Row ranges (start, stop) -> the arrays of each range by name, in order; called once."""
Progress = Callable[[Sequence[int], str], Iterable[int]]
"""Shards, description -> the same shards, shown as progress."""
Files = dict[str, dict]
"""File of the store -> size, sha256."""
STORE, BEGUN, MANIFEST = "store", "begun.json", "manifest.json"


@dataclass(frozen=True)
class Layout:
    """Layout of a store, without its rows."""

    n: int
    """Number of rows."""
    attributes: dict[str, Any]
    """Attributes of the group, among them `format` and `version`."""
    columns: Columns
    constants: dict[str, np.ndarray]
    """Arrays that have no rows."""
    shard_rows: int
    """Rows per shard, a multiple of 64."""

    def span(self, shard: int) -> tuple[int, int]:
        """First row of a shard, and the row after its last."""
        return shard * self.shard_rows, min(self.n, (shard + 1) * self.shard_rows)


class SerialComm:
    """Communicator of a single process, with the methods of mpi4py that are used here."""

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
    """Write a store shard by shard; it appears under its name once all of it is on disk.

    Parameters
    ----------
    path : the store; must not exist.
    blocks : yields the arrays of the shards still to be written. Memory in use is a few times a shard.
    source : fingerprint of the output of `blocks`. With one, a run keeps the shards that an interrupted run
        of the same source has finished; without, every run starts over.
    comm : an MPI communicator; each rank writes whole shards, and their bytes do not depend on the number of
        ranks. None: this process writes them all.
    progress : wraps the shard numbers of this rank with a description, to show progress.

    Raises
    ------
    UsageError : the path exists, or shard_rows is not a multiple of 64.
    """
    if layout.shard_rows < CHUNK or layout.shard_rows % CHUNK:
        raise UsageError(f"shard rows must be a multiple of {CHUNK}, got {layout.shard_rows}")
    shards = range(-(-layout.n // layout.shard_rows))
    comm = comm or SerialComm()
    rank, ranks = comm.Get_rank(), comm.Get_size()
    partial = beside(path, atomic.TEMPORARY)
    with _sole_writer(path, partial, keep=source is not None) if rank == 0 else contextlib.nullcontext():
        files = _begin(partial, source, layout) if rank == 0 else {}
        comm.Barrier()
        group = zarr.open_group(partial / STORE, mode="r+")
        shard_files = _finished_shards(partial, shards[rank::ranks], progress)
        done = {shard for finished in comm.allgather(list(shard_files)) for shard in finished}
        if rank == 0 and done:
            print(f"resuming: {len(done)} of {len(shards)} shards are done", flush=True)
        remaining = [shard for shard in shards if shard not in done][rank::ranks]
        arrays = blocks([layout.span(shard) for shard in remaining])
        for shard, rows in zip(progress(remaining, "writing shards"), arrays, strict=True):
            shard_files[shard] = _write_shard(partial, group, layout, shard, rows)
        gathered = comm.gather(shard_files)
        if rank == 0:
            for rank_files in gathered:
                for written in rank_files.values():
                    files |= written
            _finish(partial, path, layout.attributes, files)
    comm.Barrier()


# ---------------------------------------------------------------- the directory


@contextlib.contextmanager
def _sole_writer(path: Path, partial: Path, keep: bool) -> Iterator[None]:
    """Take over the directory of an interrupted run; refuse one whose writer is still alive.

    keep : after a failure, keep the finished shards for the next run. Those of a refused input are deleted:
    once repaired, it is another input.
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
        # a run killed between its two renames left a manifest, and its store still unfinished; a link that
        # leads nowhere takes the name, too: no folder can be renamed to it
        if os.path.lexists(taken) and (taken == path or not unfinished):
            if not unfinished:  # new, or left by a run killed before its last clean-up
                shutil.rmtree(partial)
            raise UsageError(f"{taken} exists already: remove it, or choose another name")


def _begin(partial: Path, source: str | None, layout: Layout) -> Files:
    """Resume what an earlier run began, or start a store without rows in a cleared directory."""
    constants = {name: values.tolist() for name, values in layout.constants.items()}
    parameters = [layout.n, layout.attributes, layout.columns, constants, layout.shard_rows]
    fingerprint = atomic.digest([source, zarr.__version__, *parameters])
    if source is not None:
        begun = _read_record(partial, BEGUN)
        if begun and begun["fingerprint"] == fingerprint:
            return begun["files"]
        if (partial / BEGUN).exists():
            print(f"{partial} is of another input, of other settings, or damaged: starting over", flush=True)
    for child in partial.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    store = partial / STORE
    _create(store, layout)
    files = _sync(store, [str(file.relative_to(store)) for file in store.rglob("*") if file.is_file()])
    atomic.write_json(partial / BEGUN, atomic.sealed({"fingerprint": fingerprint, "files": files}))
    return files


def _create(store: Path, layout: Layout) -> None:
    """Create the arrays of a store that holds no rows yet."""
    group = zarr.create_group(store, attributes=layout.attributes)
    for name, values in layout.constants.items():
        group.create_array(name, data=values, compressors=Crc32cCodec(), config={"write_empty_chunks": True})
    for name, (shape, dtype) in layout.columns.items():
        group.create_array(
            name,
            shape=(layout.n, *shape),
            chunks=(CHUNK if shape else layout.shard_rows, *shape),  # scalars are read a shard at a time
            shards=(layout.shard_rows, *shape),
            dtype=dtype,
            fill_value=FILL_VALUES[dtype],
            compressors=Crc32cCodec(),
            config={"write_empty_chunks": True},
        )


# ---------------------------------------------------------------- shards


def _finished_shards(partial: Path, shards: Sequence[int], progress: Progress) -> dict[int, Files]:
    """Files of the shards that an earlier run has written and that are still intact."""
    recorded = [shard for shard in shards if (partial / _record_name(shard)).exists()]
    records = {
        shard: _read_record(partial, _record_name(shard)) for shard in progress(recorded, "checking shards")
    }
    return {shard: record["files"] for shard, record in records.items() if record}


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
        (partial / STORE / file).unlink(missing_ok=True)  # zarr would read a shard before it overwrites it
        with atomic.naming(partial / STORE / file):
            array[start:stop] = rows[name]
        written[file] = array
    files = _sync(partial / STORE, written)
    for file, array in written.items():
        files[file]["chunk_sums"] = chunk_sums(partial / STORE / file, array)
    atomic.write_json(partial / _record_name(shard), atomic.sealed({"files": files}))
    return files


def _record_name(shard: int) -> str:
    return f"shard-{shard:06d}.json"


def _sync(store: Path, names: Iterable[str]) -> Files:
    """Flush files to disk, so that they survive a power cut; return their sizes and sha256."""
    for name in names:
        atomic.sync(store / name)
    return {name: atomic.entry(store / name) for name in names}


def _read_record(partial: Path, name: str) -> dict | None:
    """Content of a record if all its files match it; else None."""
    record = atomic.read_sealed(partial / name)
    intact = record and all(atomic.matches(partial / STORE / file, e) for file, e in record["files"].items())
    return record if intact else None


# ---------------------------------------------------------------- the end


def _finish(partial: Path, path: Path, attributes: dict[str, Any], files: Files) -> None:
    """Write the manifest, then rename the store, once all of it is on disk."""
    store = partial / STORE
    for child in sorted(store.rglob("*"), reverse=True):
        if child.is_dir():
            atomic.sync(child)
        elif str(child.relative_to(store)) not in files:  # a killed run was writing it
            child.unlink()
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
