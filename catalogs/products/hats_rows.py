"""Rows of the catalogue as HATS has them: an Arrow table with units, UCDs and descriptions.

Names are those of the FITS catalogue, but where Rubin's photo-z catalogues have one: `mmae_z_median`. p(z) is
nested, as qp and LSDB read it: `mmae_ens_quant_20`, lists `locs` and `quants`. What is missing is null.
"""

import numpy as np
import pyarrow as pa

from catalogs.products import schema
from catalogs.products.coverage import ROW_ORDER
from catalogs.products.schema import CATALOGUE, QUANTILE_LEVELS

INDEX = f"_healpix_{ROW_ORDER}"
PDF = f"mmae_ens_quant_{len(QUANTILE_LEVELS)}"
"""Column of p(z); what reads Rubin's tells quantiles by the number at its end."""
NAMES = {
    "HEALPIX29": INDEX,
    "PHOTOZ_BEST": "mmae_z_best",
    "PHOTOZ_MEAN": "mmae_z_mean",
    "PHOTOZ_MEDIAN": "mmae_z_median",
    "PHOTOZ_MODE": "mmae_z_mode",
    "PHOTOZ_ERR68_MIN": "mmae_z_err68_low",
    "PHOTOZ_ERR68_MAX": "mmae_z_err68_high",
    "PHOTOZ_ERR95_MIN": "mmae_z_err95_low",
    "PHOTOZ_ERR95_MAX": "mmae_z_err95_high",
    "PDF_QUANT": PDF,
}
"""Names in HATS of columns that have others in FITS."""
LOCS, QUANTS = f"{PDF}.locs", f"{PDF}.quants"
FLAGS = "PHOTOZ_FLAGS"


def _columns() -> list[schema.Column]:
    """In order; the spatial index first, by which HATS sorts."""
    columns = schema.columns(CATALOGUE)
    return sorted(columns, key=lambda column: column.name != "HEALPIX29")


def name(column: str) -> str:
    """What a column of the FITS catalogue is called here."""
    return NAMES.get(column, column)


def units() -> dict[str, str]:
    return {name(c.name): c.unit for c in _columns() if c.unit}


def ucds() -> dict[str, str]:
    listed = {name(c.name): c.ucd for c in _columns()}
    return listed | {LOCS: listed[PDF], QUANTS: "stat.value"}


def descriptions(flags: dict[str, str]) -> dict[str, str]:
    """What each column is, and its name in FITS; flags: name and meaning by `PZFLAGk`."""
    listed = {}
    for column in _columns():
        renamed = f" {column.name} of the FITS catalogue." if column.name in NAMES else ""
        listed[name(column.name)] = column.comment.replace("NaN", "null") + renamed
    bits = [int(key.removeprefix("PZFLAG")) for key in flags]
    values = (
        f"{1 << k} {text.replace(f' bit {k}:', '')}" for k, text in zip(bits, flags.values(), strict=True)
    )
    listed[FLAGS] = f"Sum of flags, 0 is clean: {'; '.join(values)}."
    listed["BANDMASK"] = "Bands used; bit 0 is PZBAND0 of hats.properties."
    listed["PHOTOZ_MC"] = "One draw from p(z), by OBJECT_ID and PZSEED of hats.properties alone."
    listed[PDF] = "p(z) as a table: quants, levels, and locs, its quantiles. PDF_QUANT of the FITS catalogue."
    return listed | {LOCS: "Redshifts at which the CDF of p(z) is quants.", QUANTS: "Levels of the CDF."}


def arrow_schema(flags: dict[str, str]) -> pa.Schema:
    """The schema, each field with what is known of it; flags as in `descriptions`."""
    said, codes, measures = descriptions(flags), ucds(), units()

    def field(key: str, kind: pa.DataType, nullable: bool = True) -> pa.Field:
        known = {"description": said[key], "ucd": codes[key]} | (
            {"unit": measures[key]} if key in measures else {}
        )
        return pa.field(key.rpartition(".")[2], kind, nullable, metadata=known)

    fields = []
    for column in _columns():
        key = name(column.name)
        if key == PDF:
            parts = [field(LOCS, pa.list_(pa.float32())), field(QUANTS, pa.list_(pa.float64()))]
            fields.append(field(PDF, pa.struct(parts)))
        else:
            fields.append(field(key, pa.from_numpy_dtype(np.dtype(column.dtype).newbyteorder("="))))
    return pa.schema(fields)


def table(rows: np.ndarray, described: pa.Schema) -> pa.Table:
    """Rows (n,) of schema.dtype(CATALOGUE) with a position, as a table of `arrow_schema`."""
    arrays = []
    for column in _columns():
        values = np.ascontiguousarray(rows[column.name])
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        kind = described.field(name(column.name)).type
        if column.name == "RA":  # a survey may count on from 360, or from -180
            values = np.where((values < 0) | (values >= 360), values % 360, values)
        if column.name == "PDF_QUANT":
            arrays.append(_nested(values, kind))
        elif values.dtype.kind == "f":
            arrays.append(pa.array(values, kind, from_pandas=True))  # NaN is null
        else:
            arrays.append(pa.array(values, kind, mask=values == schema.NULL if column.nullable else None))
    return pa.Table.from_arrays(arrays, schema=described)


def _nested(quantiles: np.ndarray, kind: pa.StructType) -> pa.StructArray:
    """Quantiles (n, 20), NaN where there is no p(z), as lists beside lists of their levels."""
    known = np.isfinite(quantiles).all(1)
    width, n = quantiles.shape[1], int(known.sum())
    ends = np.concatenate([[0], known.cumsum()]).astype(np.int32) * width
    levels = np.tile(np.array(QUANTILE_LEVELS), n)
    lists = [
        pa.ListArray.from_arrays(ends, pa.array(flat), type=field.type)
        for flat, field in zip((quantiles[known].ravel(), levels), kind, strict=True)
    ]
    return pa.StructArray.from_arrays(lists, fields=list(kind), mask=pa.array(~known))
