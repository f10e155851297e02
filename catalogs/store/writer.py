"""Write a cutout store: its arrays, and the pooled spectra that training reads (see shard_writer.py)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalogs.bands import HSC
from catalogs.store.format import (
    AXES,
    CHUNK,
    COLUMNS,
    FORMAT,
    LABELS,
    OPTIONAL,
    REQUIRED,
    SHARD,
    SIZE,
    TRAINING,
    VERSION,
)
from catalogs.store.half_precision import narrowed
from catalogs.store.shard_writer import Columns, Layout, Progress, write_shards
from catalogs.store.spectra import STORED_POOL, normalise, pool

Rows = Callable[[int, int], dict[str, np.ndarray]]
SPECTRUM = "spectrum"
"""The column that is made here, of flux and ivar."""


def write(
    path: Path,
    rows: Rows,
    *,
    n: int,
    survey: str,
    bands: Sequence[str] = HSC,
    pixel_scale: float = 0.168,
    zero_point: float = 27.0,
    size: int = SIZE,
    wave: np.ndarray | None = None,
    known: Sequence[str] = (),
    extra: Sequence[str] = (),
    float16: bool = False,
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
    bands : names in the table of bands (catalogs/bands.py), in the order of the planes.
    pixel_scale, zero_point : arcsec a pixel, AB mag.
    wave : (P,) angstrom; makes a training store, whose rows have flux, ivar and redshift too.
    known : which of `noise`, `psf_fwhm`, `ebv`, `mask`, `redshift_weight`, `spectype` the rows have, too, and
        of `redshift` where there are no spectra; see format.py.
    extra : names of other numbers that the rows have, as `columns/NAME`.
    float16 : keep the pixels in float16; see half_precision.py.
    shard_rows : a multiple of 64. Memory in use is a few times a shard.
    source, comm, progress : as for `write_shards`.

    Raises
    ------
    UsageError : the path exists, or shard_rows is not a multiple of 64.
    ValueError : `rows` gives what the store cannot keep; the message names the column and the remedy.
    InputRefused : float16 cannot keep the pixels.
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
    columns = _columns(len(bands), size, wave, known)
    columns |= {f"{COLUMNS}/{name}": ((), "float64") for name in extra}
    kept = columns | ({"image": (columns["image"][0], "float16")} if float16 else {})

    def arrays(start: int, stop: int) -> dict[str, np.ndarray]:
        stored = rows(start, stop)
        _check_rows(stored, {name: columns[name] for name in columns if name != SPECTRUM}, start, stop)
        if float16:
            stored = stored | {"image": narrowed(np.asarray(stored["image"], np.float32), start, bands)}
        if wave is None:
            return stored
        return stored | {SPECTRUM: _model_spectra(stored["flux"], stored["ivar"])}

    layout = Layout(n, attributes, kept, constants, shard_rows)
    write_shards(path, layout, lambda spans: (arrays(*span) for span in spans), source, comm, progress)


def _columns(bands: int, size: int, wave: np.ndarray | None, known: Sequence[str]) -> Columns:
    """Columns of a store, with those of a training store if it has wavelengths."""
    if not set(known) <= {*OPTIONAL, *LABELS}:
        possible = ", ".join((*OPTIONAL, *LABELS))
        raise ValueError(f"known {', '.join(known)}: a store may hold {possible}")
    lengths = {"bands": bands, "size": size}
    types = dict.fromkeys(AXES, "float32") | {"object_id": "int64", "mask": "uint8", "spectype": "uint8"}
    types |= dict.fromkeys(("ra", "dec", "redshift"), "float64")
    names = dict.fromkeys((*REQUIRED, *known))
    if wave is not None:
        lengths |= {"P": len(wave), "L": len(wave) // STORED_POOL}
        names |= dict.fromkeys(TRAINING)
    return {name: (tuple(lengths[axis] for axis in AXES[name][1:]), types[name]) for name in names}


def _check_rows(stored: dict[str, np.ndarray], columns: Columns, start: int, stop: int) -> None:
    """Raise ValueError for rows start:stop that the columns cannot keep as they are."""
    where = f"rows {start} to {stop}"
    if stop > start and (missing := [name for name in columns if name not in stored]):
        raise ValueError(f"{where} lack {', '.join(missing)}: a store holds {', '.join(columns)}")
    if unknown := [name for name in stored if name not in columns]:
        raise ValueError(f"{where} have {', '.join(unknown)}, which a store does not hold: leave it out")
    for name, values in stored.items():
        shape, dtype = columns[name]
        values = np.asarray(values)
        if values.shape != (stop - start, *shape):
            remedy = f": pass size={values.shape[-1]}" if name == "image" and values.ndim == 4 else ""
            raise ValueError(
                f"{where}: {name} is of shape {values.shape}, not {(stop - start, *shape)}{remedy}"
            )
        kinds = {"int64": "iu", "uint8": "iub"}.get(dtype, "fiu")
        if values.dtype.kind not in kinds or ("f" not in kinds and (values.astype(dtype) != values).any()):
            raise ValueError(f"{where}: {name} is of type {values.dtype} and does not fit {dtype}")


def _model_spectra(flux: np.ndarray, ivar: np.ndarray) -> np.ndarray:
    """Pooled spectra, (m, P) -> (m, P // 6): at every epoch it would cost training 12 times the bytes."""
    blocks = [slice(start, start + CHUNK) for start in range(0, len(flux), CHUNK)]
    return np.concatenate([pool(normalise(flux[b], ivar[b]), STORED_POOL) for b in blocks])
