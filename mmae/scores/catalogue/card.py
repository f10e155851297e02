"""The report card of a catalogue: what is measured of it, on a terminal of 100 columns and as figures."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from astropy.table import Table
from matplotlib.figure import Figure
from rich import box
from rich.table import Table as TextTable

from mmae.scores import calibration, metrics
from mmae.scores.catalogue.requirements import Outcome, Preset
from mmae.scores.catalogue.tomography import Bin, stacked
from mmae.scores.score_tables import cell, flat_table, interval, json_row, text_table, without_nan

WIDTH = 100
"""Columns of a terminal that the printed tables fit."""
SHOWN, CALIBRATION_SHOWN = ("bias", "sigma_NMAD", "|dz|>0.15"), ("coverage 68", "coverage 95", "CRPS")
"""Metrics that are printed of every range; of all objects all are, and the files contain all of all."""


class Card(NamedTuple):
    """All that is measured of a catalogue."""

    rows: list[metrics.Row]
    calibration: list[calibration.Row] | None
    outcomes: list[Outcome]
    bins: list[Bin]
    classes: Table | None = None
    """Of `classes.table`."""


def parts(card: Card, preset: Preset) -> Iterator[str | TextTable]:
    """The card, part by part."""
    tables = [card.rows] + ([card.calibration] if card.calibration else [])
    yield of_all([rows[0] for rows in tables])
    yield from requirements(card.outcomes)
    yield text_table(card.rows, SHOWN)
    if card.calibration:
        yield f"p(z) of {card.calibration[0].n} of these objects:"
        yield text_table(card.calibration, CALIBRATION_SHOWN)
    yield from tomography(card.bins, preset.mean)
    if card.classes is not None:
        yield from classes(card.classes)


def classes(scores: Table) -> Iterator[str | TextTable]:
    """Completeness and purity of stars, galaxies and quasars."""
    yield "classes, by magnitude; expected: the sum of the probabilities"
    table = _table("magnitude", "class", "n", "expected", "completeness", "purity")
    for row in scores:
        shares = (cell("", row["completeness"]), cell("", row["purity"]))
        table.add_row(row["magnitude"], row["class"], str(row["n"]), f"{row['expected']:.1f}", *shares)
    yield table


def tables(card: Card) -> dict[str, Table]:
    """The card for astropy, by name of file."""
    found = {"metrics.ecsv": flat_table(card.rows)}
    if card.calibration:
        found["calibration.ecsv"] = flat_table(card.calibration)
    if card.outcomes:
        found["requirements.ecsv"] = flat(card.outcomes)
    if card.classes is not None:
        found["classes.ecsv"] = card.classes
    return found | {"tomography.ecsv": flat(card.bins)}


def of_all(rows: Sequence[metrics.Row | calibration.Row]) -> TextTable:
    """Every metric of all objects, with its 95 % interval; rows: the first of each table."""
    table = _table("all objects", "value", "95 % interval")
    for row in rows:
        for name in row.value:
            numbers = row.value[name], row.error[name]
            table.add_row(name, cell(name, *numbers), interval(name, row.low[name], row.high[name]))
        table.add_section()
    return table


def requirements(outcomes: Sequence[Outcome]) -> Iterator[str | TextTable]:
    """For every document the sample, and what is required of it."""
    for (document, sample, n), group in itertools.groupby(outcomes, lambda o: (o.document, o.sample, o.n)):
        yield f"{document}, {sample}: {n} objects"
        table = _table("required", "", "value", "95 % interval", "verdict")
        for outcome in group:
            name = outcome.metric
            limit = f"{'|bias| <' if name == 'bias' else '<'} {cell(name, outcome.limit)}"
            numbers = cell(name, outcome.value, outcome.error), interval(name, outcome.low, outcome.high)
            table.add_row(name, limit, *numbers, outcome.verdict)
        yield table


def tomography(bins: Sequence[Bin], limits: dict[str, float]) -> Iterator[str | TextTable]:
    """The mean redshift of every bin, true, and the errors of the two estimates of it."""
    required = ", ".join(f"{limit:g} for {document}" for document, limit in limits.items())
    yield "tomographic bins, and the error of their mean redshift, over 1 + z, by z_phot and by stacked p(z);"
    yield f"what is required of its size: {required or 'nothing'}"
    documents = [document.replace(" ", "\n") for document in limits]
    table = _table("bin", "n", "mean z", "by z_phot", "by p(z)", *documents)
    for row in bins:
        means = (
            cell("", row.z_spec),
            cell("", row.by_point, row.by_point_error),
            cell("", row.by_pdf, row.by_pdf_error),
        )
        table.add_row(row.range, str(row.n), *means, *row.verdicts.values())
    yield table


def flat(rows: Sequence[Outcome] | Sequence[Bin]) -> Table:
    """Table for astropy: a column for each field, and for each document of a verdict."""
    flattened = [{**row._asdict(), **row._asdict().get("verdicts", {})} for row in rows]
    return Table({key: [row[key] for row in flattened] for key in flattened[0] if key != "verdicts"})


def report(card: Card) -> dict[str, object]:
    """The card for JSON."""
    return {
        "rows": [json_row(row) for row in card.rows],
        "calibration": card.calibration and [json_row(row) for row in card.calibration],
        "requirements": [json_row(outcome) for outcome in card.outcomes],
        "tomography": [json_row(row) for row in card.bins],
        "classes": card.classes
        and [
            without_nan(dict(zip(card.classes.colnames, row.as_void().tolist(), strict=True)))
            for row in card.classes
        ],
    }


def tomography_figure(
    z_phot: np.ndarray, z_spec: np.ndarray, quantiles: np.ndarray | None, edges: Sequence[float]
) -> Figure:
    """Redshifts of each tomographic bin, true, filled, and by stacked p(z), lines.

    z_phot, z_spec (N,), quantiles (N, 20) or None: finite, but z_phot may be NaN; edges of the bins.
    """
    plot = Figure(figsize=(9, 4), layout="constrained")
    axes = plot.subplots()
    top = 1.2 * max(np.quantile(z_spec, 0.995), 0.1)
    grid = np.linspace(0, top, 101)
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = (low <= z_phot) & (z_phot < high)
        if not inside.any():
            continue
        color, share = f"C{number % 10}", inside.sum() / len(z_spec)
        true = np.histogram(z_spec[inside], grid)[0] / inside.sum() / np.diff(grid)
        axes.stairs(share * true, grid, fill=True, color=color, alpha=0.35)
        if quantiles is not None:
            axes.stairs(share * stacked(quantiles[inside], grid), grid, color=color, lw=1.5)
    axes.set(xlim=(0, top), ylim=(0, None))
    axes.set_xlabel("redshift", fontsize="large")
    axes.set_ylabel("objects per unit of redshift, of all", fontsize="large")
    lines = ", stacked p(z) (lines)" if quantiles is not None else ""
    axes.set_title(f"bins of z_phot: true redshifts (filled){lines}", fontsize="medium", loc="left")
    return plot


def _table(first: str, *others: str) -> TextTable:
    table = TextTable(box=box.SIMPLE)
    table.add_column(first, no_wrap=True)
    for name in others:
        table.add_column(name, justify="right", no_wrap=True)
    return table
