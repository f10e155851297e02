"""`mmae evaluate`: photo-z against spectroscopic redshifts, as a table, two files and a figure.

`mmae evaluate tile.photoz.fits --truth spectra.fits` judges a catalogue; `mmae evaluate predictions.csv`
judges predictions that stand beside the truth, as the paper's released ones do.
"""

import dataclasses
import math
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from astropy.io import fits
from astropy.table import Table
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from rich import box
from rich.console import Console
from rich.table import Table as TextTable

from catalogs import atomic, fits_strict
from catalogs.errors import InputRefused, UsageError
from mmae import __version__, cli, metrics

ID, Z_PHOT, Z_SPEC = "OBJECT_ID", "PHOTOZ_POINT", "Z_SPEC"
TRUE, PREDICTED = "y_test", "y_pred"
"""The columns of the paper's released predictions."""

COLUMNS = (ID, Z_PHOT, Z_SPEC, TRUE, PREDICTED)

TEXT_WIDTH = 200
"""Columns of text the table may take, whatever the terminal says: a cut or folded number is a wrong one."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure photo-z against spectroscopic redshifts.

    All metrics are made of dz = (z_phot - z_spec) / (1 + z_spec):
    - bias: the median dz; biweight: its robust mean
    - sigma_NMAD: 1.4826 median|dz - median dz|; sigma_IQR: (q75 - q25) / 1.349; the widths of the core
    - |dz|>0.15 and |dz|>max(0.06,3s), s being sigma_IQR: the fractions of outliers
    - HSC loss: the mean of 1 - 1/(1 + (dz/0.15)^2), from 0 (best) to 1
    - RMS: of dz, led by the worst outliers

    They are given with bootstrap errors, for all objects, in bins of z_spec (how well are galaxies at z
    measured?) and in bins of z_phot (how far can a photo-z of the catalogue be trusted?).
    """

    catalogue: tyro.conf.Positional[Path]
    """Photo-z catalogue with OBJECT_ID and PHOTOZ_POINT, or predictions with y_test (the truth) and y_pred;
    .fits, .csv or .ecsv."""

    truth: Path | None = None
    """Table with OBJECT_ID and Z_SPEC, rows in any order; it goes before a Z_SPEC of the catalogue."""

    out: Path | None = None
    """Folder for metrics.json, metrics.ecsv, zphot_zspec.png; without it X.evaluation beside X.fits."""

    draws: int = 200
    """Bootstrap samples behind each error; 0 for no errors."""

    seed: int = 0
    """Seed of the bootstrap: the same seed gives the same errors."""


class Pairs(NamedTuple):
    """Objects with a spectroscopic redshift, and how many were left without a partner."""

    z_phot: np.ndarray
    """(N,) float64, NaN or infinite where there is no photo-z."""
    z_spec: np.ndarray
    """(N,) float64, finite."""
    without_truth: int
    """Catalogue rows without a spectroscopic redshift."""
    without_row: int
    """Objects of the truth table that the catalogue does not have, as rejected ones."""


def main(config: Evaluate) -> None:
    """Evaluate one catalogue; UsageError or InputRefused, and nothing written, when that cannot be done."""
    out = config.out or config.catalogue.parent / f"{config.catalogue.stem}.evaluation"
    _check(config, out)
    pairs = _pairs(config)
    rng = np.random.default_rng(config.seed)
    rows = metrics.table(pairs.z_phot, pairs.z_spec, metrics.EDGES, config.draws, rng)
    _write(config, pairs, rows, out)

    print(f"{rows[0].n:>8} objects of {config.catalogue.name} with a photo-z and a spectroscopic redshift")
    print(f"{rows[0].n_without_z_phot:>8} with a spectroscopic redshift and no finite photo-z")
    print(f"{pairs.without_truth:>8} catalogue rows without a spectroscopic redshift")
    print(f"{pairs.without_row:>8} objects of the truth table that are not in the catalogue")
    Console(width=TEXT_WIDTH).print(_text_table(rows))
    print(f"wrote metrics.json, metrics.ecsv and zphot_zspec.png to {out}")


def _check(config: Evaluate, out: Path) -> None:
    for name in ("draws", "seed"):
        if (value := getattr(config, name)) < 0:
            raise UsageError(f"--{name} {value} is negative; pass 0 or more")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; pass a folder with --out")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not (there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise UsageError(f"cannot write to {there}; pass another folder with --out")


def _pairs(config: Evaluate) -> Pairs:
    path, catalogue = config.catalogue, _read(config.catalogue)
    if catalogue.keys() >= {TRUE, PREDICTED}:
        if config.truth:
            raise UsageError(f"{path} brings its own truth in column {TRUE}; leave --truth out")
        pairs = _known(catalogue[PREDICTED], catalogue[TRUE])
    elif not catalogue.keys() >= {ID, Z_PHOT}:
        raise InputRefused(f"{path} needs the columns {ID} and {Z_PHOT}, or {TRUE} and {PREDICTED}")
    elif config.truth:
        pairs = _match(catalogue, _read_truth(config.truth))
    elif Z_SPEC in catalogue:
        pairs = _known(catalogue[Z_PHOT], catalogue[Z_SPEC])
    else:
        raise UsageError(f"{path} has no column {Z_SPEC}; pass a table with {ID} and {Z_SPEC} as --truth")

    if not np.isfinite(pairs.z_phot).any():
        raise InputRefused(
            f"no object of {path} has both a photo-z and a spectroscopic redshift; "
            f"check that catalogue and truth are of one survey"
        )
    if pairs.z_spec.min() <= -1:
        raise InputRefused(
            f"a spectroscopic redshift is {pairs.z_spec.min():g}; write NaN where it is unknown"
        )
    return pairs


def _read_truth(path: Path) -> dict[str, np.ndarray]:
    truth = _read(path)
    if not truth.keys() >= {ID, Z_SPEC}:
        raise InputRefused(f"{path} needs the columns {ID} and {Z_SPEC} to serve as --truth")
    return truth


def _known(z_phot: np.ndarray, z_spec: np.ndarray) -> Pairs:
    known = np.isfinite(z_spec)
    return Pairs(z_phot[known], z_spec[known], int((~known).sum()), 0)


def _match(catalogue: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> Pairs:
    known = np.isfinite(truth[Z_SPEC])
    ids, z_spec = truth[ID][known], truth[Z_SPEC][known]
    # In the order of the ids, so that the bootstrap does not depend on the order of the files.
    both, rows, truths = np.intersect1d(catalogue[ID], ids, assume_unique=True, return_indices=True)
    return Pairs(
        catalogue[Z_PHOT][rows], z_spec[truths], len(catalogue[ID]) - len(both), len(ids) - len(both)
    )


def _read(path: Path) -> dict[str, np.ndarray]:
    """Those of COLUMNS that a table has: OBJECT_ID as int64 without duplicates, the others as float64."""
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a table" if path.is_dir() else f"there is no file {path}")
    if path.suffix not in (".fits", ".csv", ".ecsv"):
        raise UsageError(f"{path} is no table this command reads: .fits, .csv or .ecsv")
    columns = _read_fits(path) if path.suffix == ".fits" else _read_text(path)
    return {
        name: _ids(path, column) if name == ID else _floats(path, name, column)
        for name, column in columns.items()
    }


def _read_fits(path: Path) -> dict[str, np.ma.MaskedArray]:
    with fits_strict.opened(path) as hdus:
        table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)), None)
        if table is None:
            raise InputRefused(f"{path} is no catalogue: there is no table HDU in it")
        names = [name for name in COLUMNS if name in table.columns.names]
        return {name: np.ma.array(table.data[name]) for name in names}


def _read_text(path: Path) -> dict[str, np.ma.MaskedArray]:
    try:
        table = Table.read(path, format=f"ascii.{path.suffix[1:]}")
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise InputRefused(
            f"{path} is damaged or no such table ({reason}); make or fetch it again"
        ) from error
    return {name: np.ma.array(table[name]) for name in COLUMNS if name in table.colnames}


def _ids(path: Path, column: np.ma.MaskedArray) -> np.ndarray:
    if column.dtype.kind not in "iu" or column.ndim != 1 or np.ma.is_masked(column):
        raise InputRefused(f"{path}: {ID} must hold one integer of 64 bits in every row")
    ids = column.data.astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputRefused(f"{path}: {ID} {values[counts > 1][0]} has more than one row; keep one an object")
    return ids


def _floats(path: Path, name: str, column: np.ma.MaskedArray) -> np.ndarray:
    if column.dtype.kind not in "fiu" or column.ndim != 1:
        raise InputRefused(f"{path}: {name} must hold one number in every row, or NaN")
    return np.ma.filled(column.astype(np.float64), np.nan)


def _text_table(rows: list[metrics.Row]) -> TextTable:
    text = TextTable(box=box.SIMPLE)
    text.add_column("range", no_wrap=True)
    for name in ("n", *metrics.POINT_METRICS):
        text.add_column(name, justify="right", no_wrap=True)
    for number, row in enumerate(rows):
        cells = (_cell(name, row.value[name], row.error[name]) for name in metrics.POINT_METRICS)
        last_of_block = number % (len(metrics.EDGES) + 1) == 0  # all; bins of z_spec; bins of z_phot
        text.add_row(row.range, str(row.n), *cells, end_section=last_of_block)
    return text


def _cell(name: str, value: float, error: float) -> str:
    """`0.0163 ± 0.0002`, or `0.44 ± 0.06 %` for a fraction; no error where there is none, `-` for NaN."""
    if math.isnan(value):
        return "-"
    scale, digits, unit = (100, 2, " %") if name in metrics.FRACTIONS else (1, 4, "")
    plus_minus = "" if math.isnan(error) else f" ± {scale * error:.{digits}f}"
    return f"{scale * value:.{digits}f}{plus_minus}{unit}"


def _write(config: Evaluate, pairs: Pairs, rows: list[metrics.Row], out: Path) -> None:
    report = {
        "code_version": __version__,
        "catalogue": _source(config.catalogue),
        "truth": config.truth and _source(config.truth),
        "draws": config.draws,
        "seed": config.seed,
        "catalogue_rows_without_z_spec": pairs.without_truth,
        "truth_objects_not_in_catalogue": pairs.without_row,
        "rows": [_json_row(row) for row in rows],
    }
    measured = np.isfinite(pairs.z_phot)
    plot = figure(pairs.z_phot[measured], pairs.z_spec[measured])

    out.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(out / "zphot_zspec.png") as temporary:
        plot.savefig(temporary, format="png", dpi=200)
    with atomic.replacing(out / "metrics.ecsv") as temporary:
        _flat_table(rows).write(temporary, format="ascii.ecsv")
    atomic.write_json(out / "metrics.json", report)


def _source(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": atomic.sha256(path)}


def _json_row(row: metrics.Row) -> dict[str, object]:
    """A row for JSON, which has no NaN: null stands for it."""
    without_nan = {
        part: {name: None if math.isnan(number) else number for name, number in numbers.items()}
        for part, numbers in (("value", row.value), ("error", row.error))
    }
    return row._asdict() | without_nan


def _flat_table(rows: list[metrics.Row]) -> Table:
    table = Table({key: [getattr(row, key) for row in rows] for key in ("range", "n", "n_without_z_phot")})
    for name in metrics.POINT_METRICS:
        table[name] = [row.value[name] for row in rows]
        table[f"{name} error"] = [row.error[name] for row in rows]
    return table


def figure(z_phot: np.ndarray, z_spec: np.ndarray) -> Figure:
    """Photo-z against spectroscopic redshift (paper, figure 3): z_spec below 0.4 left, the whole range right.

    Parameters
    ----------
    z_phot, z_spec : (N,)
        Finite redshifts, N >= 1.

    Returns
    -------
    matplotlib.figure.Figure
        Two square panels: objects per bin in colour, z_phot = z_spec solid, |dz| = 0.15 dashed. Objects
        beyond the axes count in the numbers above a panel, and the panel says how many they are.
    """
    plot = Figure(figsize=(11, 5), layout="constrained")
    left, right = plot.subplots(1, 2)
    limit = metrics.EDGES[0]
    near = z_spec < limit
    _panel(left, z_phot[near], z_spec[near], limit, rf"$z_\mathrm{{spec}} < {limit:g}$")
    # One wild photo-z must not shrink everything else to a dot.
    top = 1.03 * max(limit, np.clip(z_phot.max(), z_spec.max(), 2 * z_spec.max()))
    _panel(right, z_phot, z_spec, top, "all redshifts")
    return plot


def _panel(axes: Axes, z_phot: np.ndarray, z_spec: np.ndarray, top: float, title: str) -> None:
    bottom = z_spec.min(initial=0)
    bins = int(np.clip(2 * math.sqrt(len(z_spec)), 40, 120))  # a single object stays visible
    edges = np.linspace(bottom, top, bins + 1)
    count, _, _ = np.histogram2d(z_spec, z_phot, bins=(edges, edges))
    shown = np.ma.masked_equal(count.T, 0)  # (z_phot, z_spec): rows run along the vertical axis
    mesh = axes.pcolormesh(edges, edges, shown, norm=LogNorm(1, max(10, count.max())))
    bar = axes.inset_axes((1.03, 0, 0.04, 1))
    ticks = LogLocator(subs=(1, 2, 5))
    axes.figure.colorbar(mesh, bar, label="objects per bin", ticks=ticks, format="%d").minorticks_off()

    line = np.array([bottom, top])
    axes.plot(line, line, color="black", lw=0.8)
    for sign in (-1, 1):
        axes.plot(line, line + sign * metrics.OUTLIER * (1 + line), color="black", lw=0.8, ls="--")
    axes.set(xlim=(bottom, top), ylim=(bottom, top), aspect="equal")
    axes.set_xlabel(r"$z_\mathrm{spec}$", fontsize="large")
    axes.set_ylabel(r"$z_\mathrm{phot}$", fontsize="large")

    value = metrics.point_metrics(z_phot, z_spec)
    numbers = (
        rf"$\sigma_\mathrm{{NMAD}} = {value['sigma_NMAD']:.4f}$,  $\mathrm{{bias}} = {value['bias']:.4f}$,  "
        rf"$|dz| > {metrics.OUTLIER}$: {100 * value['|dz|>0.15']:.2f} %"
    )
    heading = f"{title},  $n = {len(z_spec)}$\n{numbers if len(z_spec) else ''}"
    axes.set_title(heading, fontsize="medium", loc="left")
    if beyond := len(z_spec) - int(count.sum()):
        note = f"{beyond} beyond the axes"
        axes.text(0.97, 0.03, note, transform=axes.transAxes, ha="right", fontsize="small")


if __name__ == "__main__":
    sys.exit(cli.run(main, Evaluate, sys.argv[1:], "python -m mmae.evaluate"))
