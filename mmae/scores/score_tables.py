"""Rows of scores as a table for a terminal, for astropy and for JSON."""

import math
from collections.abc import Sequence

from astropy.table import Table
from rich import box
from rich.table import Table as TextTable

from mmae.scores import calibration, metrics

FRACTIONS = metrics.FRACTIONS | calibration.FRACTIONS
"""The scores that are printed in percent."""


def text_table(rows: Sequence[metrics.Row | calibration.Row], names: Sequence[str]) -> TextTable:
    """Table for a terminal: the named scores of every row, with their errors."""
    text = TextTable(box=box.SIMPLE)
    text.add_column("range", no_wrap=True)
    for name in ("n", *names):
        text.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        cells = (_cell(name, row.value[name], row.error[name]) for name in names)
        last_of_block = number % (len(metrics.EDGES) + 1) == 0  # all; z_spec; z_phot; quarters by magnitude
        text.add_row(row.range, str(row.n), *cells, end_section=last_of_block)
    return text


def _cell(name: str, value: float, error: float) -> str:
    """Format `0.0163 ± 0.0002`, or `0.44 ± 0.06 %` for a fraction; a NaN error is left out, NaN is `-`."""
    if math.isnan(value):
        return "-"
    scale, digits, unit = (100, 2, " %") if name in FRACTIONS else (1, 4, "")
    plus_minus = "" if math.isnan(error) else f" ± {scale * error:.{digits}f}"
    return f"{scale * value:.{digits}f}{plus_minus}{unit}"


def json_row(row: metrics.Row | calibration.Row) -> dict[str, object]:
    """A row for JSON, with null for NaN."""
    without_nan = {
        key: {name: None if math.isnan(number) else number for name, number in numbers.items()}
        for key, numbers in (("value", row.value), ("error", row.error))
    }
    return row._asdict() | without_nan


def flat_table(rows: Sequence[metrics.Row | calibration.Row]) -> Table:
    """Table for astropy: a column for each score, followed by a column of its errors."""
    fields = [key for key in rows[0]._fields if key not in ("value", "error")]
    table = Table({key: [getattr(row, key) for row in rows] for key in fields})
    for name in rows[0].value:
        table[name] = [row.value[name] for row in rows]
        table[f"{name} error"] = [row.error[name] for row in rows]
    return table
