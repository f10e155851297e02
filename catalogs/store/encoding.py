"""What the stored numbers of an array mean: packing and missing values, as the CF conventions have them.

value = stored * scale_factor + add_offset (CF 1.11, section 8.1); _FillValue, missing_value and what lies
outside valid_min, valid_max, valid_range is missing (section 2.5.1). In Zarr v2 the fill value of an array is
its _FillValue, too, as xarray writes it; 0, the default, and NaN mean nothing.
"""

import base64
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr

from catalogs.errors import InputRefused
from catalogs.place import Place

PACKING = ("scale_factor", "add_offset")
MISSING = ("_FillValue", "missing_value")
RANGE = ("valid_min", "valid_max")


@dataclass(frozen=True)
class Encoding:
    """How to turn the stored numbers of an array into values."""

    scale: float = 1.0
    offset: float = 0.0
    missing: tuple[int | float, ...] = ()
    """Stored numbers that stand for no value; float64 does not hold all integers of 64 bits."""
    valid: tuple[int | float, int | float] = (-math.inf, math.inf)
    """Stored numbers outside this range stand for no value."""

    @property
    def is_packed(self) -> bool:
        return (self.scale, self.offset) != (1.0, 0.0)

    def decode(self, stored: np.ndarray) -> np.ndarray:
        """Values of stored numbers, NaN where they are missing; `stored` itself where nothing is encoded.

        Integers that are not packed stay what they are unless one is missing: float64 ends at 2^53, and ids
        do not.
        """
        if self == PLAIN:
            return stored
        low, high = self.valid
        missing = (stored < low) | (stored > high)
        for number in self.missing:
            if stored.dtype.kind == "f":  # compared in the precision in which it was stored
                missing |= stored == np.asarray(number).astype(stored.dtype)
            elif math.isfinite(number) and number == int(number):  # exactly, also beyond the type
                missing |= stored == int(number)
        if stored.dtype.kind in "iub" and not self.is_packed and not missing.any():
            return stored
        kind = stored.dtype if stored.dtype.kind == "f" else np.dtype(np.float64)
        values = stored.astype(kind) if not self.is_packed else stored * kind.type(self.scale) + self.offset
        return np.where(missing, kind.type(np.nan), values).astype(kind)


PLAIN = Encoding()


def read_encoding(path: Place, array: zarr.Array) -> Encoding:
    """The encoding that the attributes of an array of the store at `path` tell.

    Raises InputRefused where one of them is no number, or is not understood here.
    """
    name, attributes = array.basename, dict(array.attrs)
    if "_Unsigned" in attributes:
        raise InputRefused(f"{path}/{name} has the attribute _Unsigned: write it as an unsigned type")
    numbers = {key: _numbers(path, name, key, attributes[key]) for key in attributes if key in KNOWN}
    scale, offset = (
        numbers.get(key, (default,))[0] for key, default in zip(PACKING, (1.0, 0.0), strict=True)
    )
    missing = [number for key in MISSING for number in numbers.get(key, ())]
    if array.metadata.zarr_format == 2 and array.fill_value is not None and array.dtype.kind in "fiu":
        missing.append(array.fill_value.item())
    low, high = numbers.get("valid_range", (-math.inf, math.inf))
    low, high = numbers.get("valid_min", (low,))[0], numbers.get("valid_max", (high,))[0]
    if scale == 0 or not math.isfinite(scale) or not math.isfinite(offset):
        raise InputRefused(f"{path}/{name} is packed with scale_factor {scale}, add_offset {offset}")
    meant = (number for number in missing if not math.isnan(number) and number != 0)
    return Encoding(scale, offset, tuple(dict.fromkeys(meant)), (low, high))


KNOWN = {*PACKING, *MISSING, *RANGE, "valid_range"}


def _numbers(path: Place, name: str, key: str, value: Any) -> tuple[int | float, ...]:
    """An attribute as numbers: one, or two for a range, or any number of missing values."""
    items = value if isinstance(value, list) else [value]
    try:
        numbers = tuple(map(_number, items))
    except (TypeError, ValueError, struct.error):
        numbers = ()
    expected = {"missing_value": len(numbers), "valid_range": 2}.get(key, 1)
    if not numbers or len(numbers) != expected:
        raise InputRefused(f"{path}/{name} has the attribute {key} = {value!r}, which is not understood")
    return numbers


def _number(item: Any) -> int | float:
    if isinstance(item, bool):
        raise TypeError(item)
    if isinstance(item, int | float):
        return item
    try:
        return float(item)  # "NaN"
    except ValueError:  # xarray writes the _FillValue of a Zarr v3 array of floats so
        return float(struct.unpack("<d", base64.b64decode(item, validate=True))[0])
