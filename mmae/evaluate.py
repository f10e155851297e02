"""`mmae evaluate`: photo-z, and their p(z), against spectroscopic redshifts, as tables, files and figures.

`mmae evaluate tile.photoz.fits --truth spectra.fits` judges a catalogue; `mmae evaluate predictions.csv`
judges predictions that stand beside the truth, as the paper's released ones do.
"""

import dataclasses
import math
import os
import sys
from collections.abc import Sequence
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
from catalogs.schema import QUANTILE_LEVELS
from mmae import __version__, calibration, cli, metrics
from mmae.columns import POINT, QUANTILES

ID, BEST, Z_SPEC, MAGNITUDE = "OBJECT_ID", "PHOTOZ_BEST", "Z_SPEC", "MAG_I"
TRAINED = "IN_TRAINING"
INTERVALS = ("PHOTOZ_ERR68_MIN", "PHOTOZ_ERR68_MAX", "PHOTOZ_ERR95_MIN", "PHOTOZ_ERR95_MAX")
TRUE, PREDICTED = "y_test", "y_pred"
"""The columns of the paper's released predictions."""

CATALOGUE_COLUMNS = (ID, POINT, BEST, QUANTILES, *INTERVALS, Z_SPEC, TRAINED, TRUE, PREDICTED)
TRUTH_COLUMNS = (ID, Z_SPEC, MAGNITUDE)

CALIBRATION_SHOWN = ("coverage 68", "coverage 95", "CRPS", "CDE loss", "PIT KS", "half width")
"""Of calibration.METRICS, those that are printed; the files hold all."""
FRACTIONS = metrics.FRACTIONS | calibration.FRACTIONS
"""People read those in percent."""

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
    measured?) and in bins of z_phot (how far can a photo-z of the catalogue be trusted?). The photo-z judged
    is PHOTOZ_BEST if the catalogue has any, else PHOTOZ_POINT. Objects IN_TRAINING (1 or 2) are left out.

    Where the catalogue has p(z), a second table says how far they can be trusted, in the same bins, and in
    quarters by magnitude if the truth has MAG_I:
    - coverage 68, coverage 95: how many z_spec lie in the 68 % and the 95 % interval
    - CRPS: the mean integral of (F - step at z_spec)^2 dz, F being the CDF; in z, 0 is best
    - CDE loss: the mean of integral p^2 dz - 2 p(z_spec); the lower the better
    - PIT KS: the PIT is F(z_spec), even from 0 to 1 if all p(z) are right; its largest distance from even
    - half width: the mean of half the 68 % interval, over 1 + z_spec; compare sigma_NMAD
    - in the files alone: PIT CvM, n times that distance squared; PIT AD, the same with weight on the ends;
      PIT outliers, the fraction within 1e-4 of 0 or 1

    F is a line through the 20 quantiles kept, and beyond them a guess. Of a Gaussian p(z) that is exactly
    right, that alone makes PIT KS 0.013 and PIT outliers 2.6 %. In bins of z_spec, coverage and PIT need not
    come out right even if all p(z) are: who picks z_spec picks errors of one sign.
    """

    catalogue: tyro.conf.Positional[Path]
    """Photo-z catalogue with OBJECT_ID and PHOTOZ_POINT; or predictions with y_test (the truth) and y_pred;
    .fits, .csv or .ecsv."""

    truth: Path | None = None
    """Table with OBJECT_ID, Z_SPEC and perhaps MAG_I, rows in any order; it goes before a Z_SPEC of the
    catalogue."""

    out: Path | None = None
    """Folder for metrics.json, metrics.ecsv, zphot_zspec.png, calibration.ecsv, calibration.png; without it
    X.evaluation beside X.fits."""

    draws: int = 200
    """Bootstrap samples behind each error; 0 for no errors."""

    seed: int = 0
    """Seed of the bootstrap: the same seed gives the same errors."""


class Pairs(NamedTuple):
    """Objects with a spectroscopic redshift, and how many were left out or without a partner."""

    judged: str
    """The column of the catalogue that is z_phot."""
    said: dict[str, np.ndarray]
    """Columns of the catalogue, (N,) or (N, 20) float64."""
    z_spec: np.ndarray
    """(N,) float64, finite."""
    magnitude: np.ndarray | None
    """(N,) float64, if the truth table has it."""
    without_truth: int
    """Catalogue rows without a spectroscopic redshift."""
    without_row: int
    """Objects of the truth table that the catalogue does not have, as rejected ones."""
    made_with: int = 0
    """Objects left out as the model was trained on them, or chosen or calibrated by them."""

    @property
    def z_phot(self) -> np.ndarray:
        """(N,) float64, NaN or infinite where there is no photo-z."""
        return self.said[self.judged]


class Calibration(NamedTuple):
    """How far the p(z) of a catalogue can be trusted."""

    pit: np.ndarray
    """(N,) of the objects with a p(z)."""
    rows: list[calibration.Row]


def main(config: Evaluate) -> None:
    """Evaluate one catalogue; UsageError or InputRefused, and nothing written, when that cannot be done."""
    out = config.out or config.catalogue.parent / f"{config.catalogue.stem}.evaluation"
    _check(config, out)
    pairs = _pairs(config)
    rng = np.random.default_rng(config.seed)
    rows = metrics.table(pairs.z_phot, pairs.z_spec, metrics.EDGES, config.draws, rng)
    calibrated = _calibration(config, pairs, rng)
    written = _write(config, pairs, rows, calibrated, out)

    print(f"judged by {pairs.judged}:")
    print(f"{rows[0].n:>8} objects of {config.catalogue.name} with a photo-z and a spectroscopic redshift")
    print(f"{rows[0].n_without_z_phot:>8} with a spectroscopic redshift and no finite photo-z")
    print(f"{pairs.without_truth:>8} catalogue rows without a spectroscopic redshift")
    print(f"{pairs.made_with:>8} objects left out, as the model was made with them")
    print(f"{pairs.without_row:>8} objects of the truth table that are not in the catalogue")
    console = Console(width=TEXT_WIDTH)
    console.print(_text_table(rows, tuple(metrics.POINT_METRICS)))
    if calibrated:
        print(f"the p(z) of {len(calibrated.pit)} of these objects:")
        console.print(_text_table(calibrated.rows, CALIBRATION_SHOWN))
    else:
        print(f"{config.catalogue.name} has no p(z) of these objects: no calibration to measure")
    print(f"wrote {', '.join(written[:-1])} and {written[-1]} to {out}")


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
    path, catalogue = config.catalogue, _read(config.catalogue, CATALOGUE_COLUMNS)
    if catalogue.keys() >= {TRUE, PREDICTED}:
        if config.truth:
            raise UsageError(f"{path} brings its own truth in column {TRUE}; leave --truth out")
        pairs = _known(PREDICTED, catalogue, TRUE)
    elif not catalogue.keys() >= {ID, POINT}:
        raise InputRefused(f"{path} needs the columns {ID} and {POINT}, or {TRUE} and {PREDICTED}")
    elif config.truth:
        pairs = _match(_judged(catalogue), catalogue, _read_truth(config.truth))
    elif _any_finite(catalogue, Z_SPEC):
        pairs = _known(_judged(catalogue), catalogue, Z_SPEC)
    else:
        raise UsageError(
            f"{path} has no redshift in a column {Z_SPEC}; pass a table with {ID} and {Z_SPEC} as --truth"
        )

    pairs = _without_trained(pairs)
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


def _without_trained(pairs: Pairs) -> Pairs:
    """The model cannot be judged by redshifts that it was trained on, chosen or calibrated by."""
    if TRAINED not in pairs.said:
        return pairs
    new = ~(pairs.said[TRAINED] > 0)
    magnitude = None if pairs.magnitude is None else pairs.magnitude[new]
    return pairs._replace(
        said=_take(pairs.said, new),
        z_spec=pairs.z_spec[new],
        magnitude=magnitude,
        made_with=int((~new).sum()),
    )


def _read_truth(path: Path) -> dict[str, np.ndarray]:
    truth = _read(path, TRUTH_COLUMNS)
    if not truth.keys() >= {ID, Z_SPEC}:
        raise InputRefused(f"{path} needs the columns {ID} and {Z_SPEC} to serve as --truth")
    return truth


def _judged(catalogue: dict[str, np.ndarray]) -> str:
    """One column for the whole catalogue: a model without p(z) leaves PHOTOZ_BEST empty."""
    return BEST if _any_finite(catalogue, BEST) else POINT


def _any_finite(catalogue: dict[str, np.ndarray], name: str) -> bool:
    return name in catalogue and bool(np.isfinite(catalogue[name]).any())


def _known(judged: str, catalogue: dict[str, np.ndarray], truth: str) -> Pairs:
    known = np.isfinite(catalogue[truth])
    return Pairs(
        judged, _take(catalogue, known), catalogue[truth][known], None, int((~known).sum()), without_row=0
    )


def _match(judged: str, catalogue: dict[str, np.ndarray], truth: dict[str, np.ndarray]) -> Pairs:
    truth = _take(truth, np.isfinite(truth[Z_SPEC]))
    ids = truth[ID]
    # In the order of the ids, so that the bootstrap does not depend on the order of the files.
    both, rows, truths = np.intersect1d(catalogue[ID], ids, assume_unique=True, return_indices=True)
    truth = _take(truth, truths)
    without = len(catalogue[ID]) - len(both), len(ids) - len(both)
    return Pairs(judged, _take(catalogue, rows), truth[Z_SPEC], truth.get(MAGNITUDE), *without)


def _take(table: dict[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    return {name: column[rows] for name, column in table.items()}


def _calibration(config: Evaluate, pairs: Pairs, rng: np.random.Generator) -> Calibration | None:
    """None if no object has a p(z)."""
    if not pairs.said.keys() >= {QUANTILES, *INTERVALS}:
        return None
    told = np.isfinite(np.column_stack([pairs.said[name] for name in (QUANTILES, *INTERVALS)])).all(1)
    if not told.any():
        return None
    said, z_spec = _take(pairs.said, told), pairs.z_spec[told]
    ends = np.stack([said[name] for name in INTERVALS])
    try:
        scores = calibration.scores(said[QUANTILES], ends[:2], ends[2:], z_spec)
    except ValueError as error:
        raise InputRefused(f"{config.catalogue}: {QUANTILES} {error}; make the catalogue again") from error
    magnitude = None if pairs.magnitude is None else (MAGNITUDE, pairs.magnitude[told])
    z_phot = said[pairs.judged]
    rows = calibration.table(scores, z_phot, z_spec, magnitude, metrics.EDGES, config.draws, rng)
    return Calibration(scores.pit, rows)


def _read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Those columns that a table has: OBJECT_ID as int64 without duplicates, the others as float64."""
    if not path.is_file():
        raise UsageError(f"{path} is a folder, not a table" if path.is_dir() else f"there is no file {path}")
    if path.suffix not in (".fits", ".csv", ".ecsv"):
        raise UsageError(f"{path} is no table this command reads: .fits, .csv or .ecsv")
    columns = _read_fits(path, names) if path.suffix == ".fits" else _read_text(path, names)
    return {
        name: _ids(path, column) if name == ID else _floats(path, name, column)
        for name, column in columns.items()
    }


def _read_fits(path: Path, names: Sequence[str]) -> dict[str, np.ma.MaskedArray]:
    with fits_strict.opened(path) as hdus:
        table = next((hdu for hdu in hdus if isinstance(hdu, fits.BinTableHDU | fits.TableHDU)), None)
        if table is None:
            raise InputRefused(f"{path} is no catalogue: there is no table HDU in it")
        there = [name for name in names if name in table.columns.names]
        return {name: np.ma.array(table.data[name]) for name in there}


def _read_text(path: Path, names: Sequence[str]) -> dict[str, np.ma.MaskedArray]:
    try:
        table = Table.read(path, format=f"ascii.{path.suffix[1:]}")
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise InputRefused(
            f"{path} is damaged or no such table ({reason}); make or fetch it again"
        ) from error
    return {name: np.ma.array(table[name]) for name in names if name in table.colnames}


def _ids(path: Path, column: np.ma.MaskedArray) -> np.ndarray:
    if column.dtype.kind not in "iu" or column.ndim != 1 or np.ma.is_masked(column):
        raise InputRefused(f"{path}: {ID} must hold one integer of 64 bits in every row")
    ids = column.data.astype(np.int64)
    values, counts = np.unique(ids, return_counts=True)
    if (counts > 1).any():
        raise InputRefused(f"{path}: {ID} {values[counts > 1][0]} has more than one row; keep one an object")
    return ids


def _floats(path: Path, name: str, column: np.ma.MaskedArray) -> np.ndarray:
    shape = (len(QUANTILE_LEVELS),) if name == QUANTILES else ()
    if column.dtype.kind not in "fiu" or column.shape[1:] != shape:
        what = f"{shape[0]} numbers" if shape else "one number"
        raise InputRefused(f"{path}: {name} must hold {what} in every row, or NaN")
    return np.ma.filled(column.astype(np.float64), np.nan)


def _text_table(rows: Sequence[metrics.Row | calibration.Row], names: Sequence[str]) -> TextTable:
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
    """`0.0163 ± 0.0002`, or `0.44 ± 0.06 %` for a fraction; no error where there is none, `-` for NaN."""
    if math.isnan(value):
        return "-"
    scale, digits, unit = (100, 2, " %") if name in FRACTIONS else (1, 4, "")
    plus_minus = "" if math.isnan(error) else f" ± {scale * error:.{digits}f}"
    return f"{scale * value:.{digits}f}{plus_minus}{unit}"


def _write(
    config: Evaluate, pairs: Pairs, rows: list[metrics.Row], calibrated: Calibration | None, out: Path
) -> list[str]:
    """Write all files into the folder; gives their names."""
    report = {
        "code_version": __version__,
        "catalogue": _source(config.catalogue),
        "truth": config.truth and _source(config.truth),
        "draws": config.draws,
        "seed": config.seed,
        "catalogue_rows_without_z_spec": pairs.without_truth,
        "objects_made_with": pairs.made_with,
        "truth_objects_not_in_catalogue": pairs.without_row,
        "judged": pairs.judged,
        "rows": [_json_row(row) for row in rows],
        "calibration": calibrated and [_json_row(row) for row in calibrated.rows],
    }
    measured = np.isfinite(pairs.z_phot)
    figures = {"zphot_zspec.png": figure(pairs.z_phot[measured], pairs.z_spec[measured])}
    tables = {"metrics.ecsv": _flat_table(rows)}
    if calibrated:
        figures["calibration.png"] = calibration_figure(calibrated.pit, calibrated.rows[0].value["PIT KS"])
        tables["calibration.ecsv"] = _flat_table(calibrated.rows)

    out.mkdir(parents=True, exist_ok=True)
    if not calibrated:  # those of an earlier catalogue would pass for this one's
        for name in ("calibration.png", "calibration.ecsv"):
            (out / name).unlink(missing_ok=True)
    for name, plot in figures.items():
        with atomic.replacing(out / name) as temporary:
            plot.savefig(temporary, format="png", dpi=200)
    for name, table in tables.items():
        with atomic.replacing(out / name) as temporary:
            table.write(temporary, format="ascii.ecsv")
    atomic.write_json(out / "metrics.json", report)
    return ["metrics.json", *tables, *figures]


def _source(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": atomic.sha256(path)}


def _json_row(row: metrics.Row | calibration.Row) -> dict[str, object]:
    """A row for JSON, which has no NaN: null stands for it."""
    without_nan = {
        part: {name: None if math.isnan(number) else number for name, number in numbers.items()}
        for part, numbers in (("value", row.value), ("error", row.error))
    }
    return row._asdict() | without_nan


def _flat_table(rows: Sequence[metrics.Row | calibration.Row]) -> Table:
    """Each number of the rows in a column of its own, its error beside it."""
    single = [key for key in rows[0]._fields if key not in ("value", "error")]
    table = Table({key: [getattr(row, key) for row in rows] for key in single})
    for name in rows[0].value:
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
    panel(left, z_phot[near], z_spec[near], limit, rf"$z_\mathrm{{spec}} < {limit:g}$")
    # One wild photo-z must not shrink everything else to a dot.
    top = 1.03 * max(limit, np.clip(z_phot.max(), z_spec.max(), 2 * z_spec.max()))
    panel(right, z_phot, z_spec, top, "all redshifts")
    return plot


def panel(axes: Axes, z_phot: np.ndarray, z_spec: np.ndarray, top: float, title: str) -> None:
    """Objects per bin in colour, from the lowest z_spec up to `top`, and their numbers above."""
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
        plain = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        axes.text(0.97, 0.03, note, transform=axes.transAxes, ha="right", fontsize="small", bbox=plain)


def calibration_figure(pit: np.ndarray, ks: float) -> Figure:
    """PIT histogram left; fraction of PITs below a level against that level right.

    Parameters
    ----------
    pit : (N,)
        From 0 to 1, N >= 1.
    ks : float
        Their Kolmogorov-Smirnov statistic.

    Returns
    -------
    matplotlib.figure.Figure
        Two square panels. If every p(z) is right, both follow the line, and 95 % of the bins (left), or of
        the levels (right), lie in the grey band: twice the binomial scatter of N objects.
    """
    plot = Figure(figsize=(10, 5), layout="constrained")
    left, right = plot.subplots(1, 2)
    n, bins = len(pit), len(QUANTILE_LEVELS)
    count, edges = np.histogram(pit, bins, (0, 1))
    left.stairs(count * bins / n, edges, color="tab:blue")
    scatter = 2 * math.sqrt((bins - 1) / n)
    left.fill_between([0, 1], max(0, 1 - scatter), 1 + scatter, color="black", alpha=0.15, lw=0)
    left.axhline(1, color="black", lw=0.8)
    left.set(xlim=(0, 1), ylim=(0, None), box_aspect=1)
    left.set_xlabel(r"PIT, $F(z_\mathrm{spec})$", fontsize="large")
    left.set_ylabel("objects, over those expected", fontsize="large")
    left.set_title(f"$n = {n}$,  KS = {ks:.4f}", fontsize="medium", loc="left")

    level = np.linspace(0, 1, 201)
    below = np.searchsorted(np.sort(pit), level, side="right") / n
    band = 2 * np.sqrt(level * (1 - level) / n)
    right.fill_between(level, level - band, level + band, color="black", alpha=0.15, lw=0)
    right.plot(level, level, color="black", lw=0.8)
    right.plot(level, below, color="tab:blue")
    right.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
    right.set_xlabel("level", fontsize="large")
    right.set_ylabel("fraction of objects with PIT below it", fontsize="large")
    return plot


if __name__ == "__main__":
    sys.exit(cli.run(main, Evaluate, sys.argv[1:], "python -m mmae.evaluate"))
