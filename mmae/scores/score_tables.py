"""Rows of scores as a table for a terminal, for astropy and for JSON."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from astropy.table import Table
from rich import box
from rich.table import Table as TextTable

from mmae.scores import calibration, metrics

FRACTIONS = metrics.FRACTIONS | calibration.FRACTIONS
"""The scores that are printed in percent."""
LABEL = 30
"""Most characters of a range: with three scores a table has 100, and no number is cut."""


def text_table(rows: Sequence[metrics.Row | calibration.Row], names: Sequence[str]) -> TextTable:
    """Table for a terminal: the named scores of every row, with their errors."""
    text = TextTable(box=box.SIMPLE)
    text.add_column("range", no_wrap=True)
    for name in ("n", *names):
        text.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        cells = (cell(name, row.value[name], row.error[name]) for name in names)
        last_of_block = number % (len(metrics.EDGES) + 1) == 0  # all; z_spec; z_phot; quarters
        text.add_row(shortened(row.range), str(row.n), *cells, end_section=last_of_block)
    return text


def shortened(label: str) -> str:
    """The label of a range with at most LABEL characters: a long name in it ends early, no edge does."""
    name = max(label.split(), key=len)
    beyond = len(label) - LABEL
    return label if beyond <= 0 else label.replace(name, f"{name[: -beyond - 1]}…")


def cell(name: str, value: float, error: float = math.nan) -> str:
    """Format `0.0163 ± 0.0002`, or `0.44 ± 0.06 %` for a fraction; a NaN error is left out, NaN is `-`."""
    if math.isnan(value):
        return "-"
    scale, digits, unit = (100, 2, " %") if name in FRACTIONS else (1, 4, "")
    plus_minus = "" if math.isnan(error) else f" ± {scale * error:.{digits}f}"
    return f"{scale * value:.{digits}f}{plus_minus}{unit}"


def interval(name: str, low: float, high: float) -> str:
    """Format `0.0160 to 0.0166`, as `cell` does; `-` for NaN."""
    return "-" if math.isnan(low) else f"{cell(name, low)} to {cell(name, high)}"


def json_row(row: NamedTuple) -> dict[str, Any]:
    """A row for JSON, with null for NaN."""
    return without_nan(row._asdict())


def without_nan(content: Any) -> Any:
    """The content, of dictionaries, with null for NaN, which JSON does not have."""
    if isinstance(content, dict):
        return {key: without_nan(value) for key, value in content.items()}
    return None if isinstance(content, float) and math.isnan(content) else content


def flat_table(rows: Sequence[metrics.Row | calibration.Row]) -> Table:
    """Table for astropy: a column for each score, followed by its error and the ends of its 95 % interval."""
    fields = [key for key in rows[0]._fields if key not in ("value", "error", "low", "high")]
    table = Table({key: [getattr(row, key) for row in rows] for key in fields})
    for name in rows[0].value:
        table[name] = [row.value[name] for row in rows]
        table[f"{name} error"] = [row.error[name] for row in rows]
        table[f"{name} low"] = [row.low[name] for row in rows]
        table[f"{name} high"] = [row.high[name] for row in rows]
    return table
