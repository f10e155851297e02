"""Write a cutout store: its arrays, and the pooled spectra that training reads (see shard_writer.py)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.store.format import BANDS, CHUNK, FORMAT, SHARD, SIZE, VERSION
from catalogs.store.shard_writer import Columns, Layout, Progress, write_shards
from catalogs.store.spectra import STORED_POOL, normalise, pool

Rows = Callable[[int, int], dict[str, np.ndarray]]


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
    """Write a store shard by shard; it appears under its name once all of it is on disk.

    Parameters
    ----------
    path : the store; must not exist.
    rows : `rows(start, stop)` returns the arrays of rows start:stop as a dict with the names of the format;
        called once a shard.
    n : number of objects N.
    pixel_scale, zero_point : arcsec a pixel, AB mag.
    wave : (P,) angstrom; makes a training store, whose rows have flux, ivar and redshift too.
    shard_rows : a multiple of 64. Memory in use is a few times a shard.
    source, comm, progress : as for `write_shards`.

    Raises
    ------
    UsageError : the path exists, or shard_rows is not a multiple of 64.
    """
    attributes = {
        "format": FORMAT,
        "version": VERSION,
        "survey": survey,
        "bands": list(bands),
        "pixel_scale": pixel_scale,
        "zero_point": zero_point,
        "frame": "icrs",
    }
    constants = {} if wave is None else {"wave": np.asarray(wave, np.float64)}

    def arrays(start: int, stop: int) -> dict[str, np.ndarray]:
        stored = rows(start, stop)
        if wave is None:
            return stored
        return stored | {"spectrum": _model_spectra(stored["flux"], stored["ivar"])}

    layout = Layout(n, attributes, _columns(len(bands), size, wave), constants, shard_rows)
    write_shards(path, layout, lambda spans: (arrays(*span) for span in spans), source, comm, progress)


def _columns(bands: int, size: int, wave: np.ndarray | None) -> Columns:
    """Columns of a store, with those of a training store if it has wavelengths."""
    columns: Columns = {
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
            "spectrum": ((len(wave) // STORED_POOL,), "float32"),
        }
    return columns


def _model_spectra(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Pooled spectra, (m, P) -> (m, P // 6): at every epoch it would cost training 12 times the bytes."""
    blocks = [slice(start, start + CHUNK) for start in range(0, len(flux), CHUNK)]
    return np.concatenate([pool(normalise(flux[b], ivar[b]), STORED_POOL) for b in blocks])
