"""HDF5 -> cutout store: `mmae ingest`, or with MPI ranks `mpirun python -m mpi4py -m jobs.ingest`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import track
from tyro.conf import Positional

from catalogs.store import cutouts
from catalogs.store.format import SHARD, manifest_path
from catalogs.surveys.galaxiesml import PIXEL_SCALE, ZERO_POINT, open_galaxiesml


@dataclass(frozen=True)
class Ingest:
    """Turn a GalaxiesML or GalaxiesML-Spectra HDF5 file into a cutout store (sharded Zarr v3).

    A file with spectra or with redshifts (GalaxiesML's specz_redshift) gives a store to train on, and every
    file one to infer on. Images larger than 64 pixels are cropped about their centre. The store appears when
    it is complete, with a manifest (sha256 of each shard) beside it. After a crash, run it again: finished
    shards are kept if the input is unchanged.

    In parallel, with the same bytes: mpirun -n 8 python -m mpi4py -m jobs.ingest INPUT OUTPUT
    """

    input: Positional[Path]
    """HDF5 file to read."""
    output: Positional[Path]
    """Store to write, usually NAME.zarr."""
    shard_rows: int = SHARD
    """Rows per shard, a multiple of 64: a shard is written by one rank, and is one unit of inference."""
    columns: tuple[str, ...] = ()
    """Columns of the file to keep, such as g_cmodel_mag: a model may be trained to take them, too."""
    float16: bool = False
    """Keep pixels in half of the bytes, rounded by a thousandth of the noise of the sky; refused where one is
    beyond 65504, or the sky too near to 0 for that."""


def main(config: Ingest, comm: Any = None) -> None:
    """Ingest with one process, or with every rank of an MPI communicator."""
    first = comm is None or comm.Get_rank() == 0

    def progress(shards: Sequence[int], what: str) -> Iterable[int]:
        return track(shards, what) if first and shards else shards

    with open_galaxiesml(config.input, config.columns) as source:
        cutouts.write(
            config.output,
            source.rows,
            n=source.n,
            survey=source.survey,
            pixel_scale=PIXEL_SCALE,
            zero_point=ZERO_POINT,
            wave=source.wave,
            known=source.labels,
            extra=config.columns,
            float16=config.float16,
            shard_rows=config.shard_rows,
            source=source.fingerprint,
            comm=comm,
            progress=progress,
        )
        if first:
            kind = "no spectra" if source.has_redshifts else "no spectra, no redshifts"
            kind = "a training store" if source.wave is not None else kind
            print(f"wrote {config.output}: {source.n} objects, {kind}")
            print(f"wrote {manifest_path(config.output)}: sha256 of every shard")
