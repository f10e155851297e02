"""Ids of objects: integers of 64 bits, whatever a table writes them as."""

import re

import numpy as np

INTEGER = re.compile(r"-?[0-9]{1,19}")
LIMIT = 2**63


def as_ids(column: np.ma.MaskedArray) -> np.ma.MaskedArray:
    """Ids (N,) int64 of a column of integers, of texts of digits or of floats that are exact.

    Masked where there is none. Raises ValueError, which says what there is instead, where one is no such id.
    """
    mask, values = np.ma.getmaskarray(column), column.data
    if column.ndim != 1 or column.dtype.kind not in "fiuU":
        raise ValueError("ids that are no integers")
    if column.dtype.kind == "f":
        mask = mask | np.isnan(values)
        exact = 2 ** (np.finfo(values.dtype).nmant + 1)
        values = np.where(mask, 0, values)
        if not ((values == np.round(values)) & (np.abs(values) < exact)).all():
            raise ValueError(f"ids in floating point, which is exact only for integers below {exact}")
    elif column.dtype.kind == "U":
        values = np.array(_from_texts(np.where(mask, "0", values).tolist()), np.int64)
    elif column.dtype.kind == "u" and (values[~mask] >= LIMIT).any():
        raise ValueError("ids of 2**63 or more, which int64 does not hold")
    return np.ma.array(np.where(mask, 0, values).astype(np.int64), mask=mask)


def _from_texts(texts: list[str]) -> list[int]:
    bad = next((text for text in texts if not INTEGER.fullmatch(text)), None)
    if bad is not None:
        raise ValueError(f"the id {bad!r}, but ids are integers below 2**63")
    integers = [int(text) for text in texts]
    if integers and not -LIMIT <= min(integers) <= max(integers) < LIMIT:
        raise ValueError("ids of 2**63 or more, which int64 does not hold")
    return integers


def repeated(ids: np.ndarray) -> int | None:
    """The least of the ids (N,) that is there more than once; None: each is there once."""
    unique, counts = np.unique(ids, return_counts=True)
    return next(iter(unique[counts > 1].tolist()), None)
