"""Parquet files, and columns of Arrow as arrays. pyarrow takes half a second to import: import this late."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from astropy.table import meta
from pyarrow import ArrowException, parquet

from catalogs.tables.columns import Columns, plain

__all__ = ["ArrowException", "from_arrow", "opened"]

MASK = ".mask"
"""Ending of a column of astropy that says where the one of the name before it has no value, beside any."""
DESCRIPTION = b"table_meta_yaml"
"""Where astropy, and the LSST pipelines by it, keep the units of the columns, as ECSV does."""


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Columns]:
    """Open a Parquet file, of which columns are read one by one."""
    with parquet.ParquetFile(path) as file:
        rows, names = file.metadata.num_rows, file.schema_arrow.names
        masks = {field.name for field in file.schema_arrow if pa.types.is_boolean(field.type)}
        masks &= {name + MASK for name in names}

        def read(name: str) -> np.ma.MaskedArray:
            column = file.read([name]).column(name)
            if len(column) != rows:
                raise ValueError(f"{name} has {len(column)} rows of {rows}")
            values = from_arrow(column)
            if name + MASK in masks:
                values[read(name + MASK).filled(False)] = np.ma.masked
            return values

        units, columns = _units(file.schema_arrow), tuple(name for name in names if name not in masks)
        yield Columns(path, columns, rows, read, lambda name: units.get(name, ""))


def _units(schema: pa.Schema) -> dict[str, str]:
    """Units of columns, as far as the file says them in a way that is understood."""
    text = (schema.metadata or {}).get(DESCRIPTION, b"").decode(errors="replace")
    try:
        columns = meta.get_header_from_yaml(text.splitlines())["datatype"] if text else []
        return {column["name"]: str(column["unit"]) for column in columns if "unit" in column}
    except (ValueError, TypeError, LookupError, meta.YamlParseError):
        return {}


def from_arrow(column: pa.ChunkedArray) -> np.ma.MaskedArray:
    """Values of a column; a list in every row, of one length, becomes the second axis."""
    missing = column.is_null().to_numpy()
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        lists = column.to_pylist()
        width = max((len(values) for values in lists if values), default=0)
        return np.ma.array([values or [np.nan] * width for values in lists])
    if pa.types.is_decimal(kind):
        column = _from_decimals(column)
        kind = column.type
    if pa.types.is_null(kind):  # of what pandas knows no value at all
        return np.ma.masked_all(len(column), np.float64)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):  # else a null would make floats of them
        column = column.fill_null(0 if pa.types.is_integer(kind) else False)
    return plain(np.ma.array(column.to_numpy(), mask=missing))


def _from_decimals(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Decimals, as databases write them, as integers of 64 bits where these hold them, else as floats."""
    with contextlib.suppress(pa.ArrowInvalid):
        return column.cast(pa.int64())
    # through text, as the direct cast is off in the last bit
    return column.cast(pa.string()).cast(pa.float64())
