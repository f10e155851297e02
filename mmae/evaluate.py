"""`mmae evaluate`: photo-z, and their p(z), against spectroscopic redshifts, as tables, files and figures.

`mmae evaluate tile.photoz.fits --truth spectra.fits` judges a catalogue; `mmae evaluate predictions.csv`
judges predictions that stand beside the truth, as the paper's released ones do.
"""

import dataclasses
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro
from rich.console import Console

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from mmae import __version__, cli
from mmae.bundles.columns import QUANTILES
from mmae.scores import calibration, metrics
from mmae.scores.pairs import INTERVALS, MAGNITUDE, Pairs, read_pairs, take
from mmae.scores.redshift_figures import calibration_figure, figure
from mmae.scores.score_tables import flat_table, json_row, text_table

CALIBRATION_SHOWN = ("coverage 68", "coverage 95", "CRPS", "CDE loss", "PIT KS", "half width")
"""Of calibration.METRICS, those that are printed; the files hold all."""

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


class Calibration(NamedTuple):
    """How far the p(z) of a catalogue can be trusted."""

    pit: np.ndarray
    """(N,) of the objects with a p(z)."""
    rows: list[calibration.Row]


def main(config: Evaluate) -> None:
    """Evaluate one catalogue; UsageError or InputRefused, and nothing written, when that cannot be done."""
    out = config.out or config.catalogue.parent / f"{config.catalogue.stem}.evaluation"
    _check(config, out)
    pairs = read_pairs(config.catalogue, config.truth)
    rng = np.random.default_rng(config.seed)
    rows = metrics.table(pairs.z_phot, pairs.z_spec, metrics.EDGES, config.draws, rng)
    calibrated = _calibration(config, pairs, rng)
    written = _write(config, pairs, rows, calibrated, out)

    print(f"judged by {pairs.evaluated}:")
    print(f"{rows[0].n:>8} objects of {config.catalogue.name} with a photo-z and a spectroscopic redshift")
    print(f"{rows[0].n_without_z_phot:>8} with a spectroscopic redshift and no finite photo-z")
    print(f"{pairs.without_truth:>8} catalogue rows without a spectroscopic redshift")
    print(f"{pairs.made_with:>8} objects left out, as the model was made with them")
    print(f"{pairs.without_row:>8} objects of the truth table that are not in the catalogue")
    console = Console(width=TEXT_WIDTH)
    console.print(text_table(rows, tuple(metrics.POINT_METRICS)))
    if calibrated:
        print(f"the p(z) of {len(calibrated.pit)} of these objects:")
        console.print(text_table(calibrated.rows, CALIBRATION_SHOWN))
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


def _calibration(config: Evaluate, pairs: Pairs, rng: np.random.Generator) -> Calibration | None:
    """None if no object has a p(z)."""
    if not pairs.columns.keys() >= {QUANTILES, *INTERVALS}:
        return None
    has_pdf = np.isfinite(np.column_stack([pairs.columns[name] for name in (QUANTILES, *INTERVALS)])).all(1)
    if not has_pdf.any():
        return None
    columns, z_spec = take(pairs.columns, has_pdf), pairs.z_spec[has_pdf]
    ends = np.stack([columns[name] for name in INTERVALS])
    try:
        scores = calibration.scores(columns[QUANTILES], ends[:2], ends[2:], z_spec)
    except ValueError as error:
        raise InputRefused(f"{config.catalogue}: {QUANTILES} {error}; make the catalogue again") from error
    magnitude = None if pairs.magnitude is None else (MAGNITUDE, pairs.magnitude[has_pdf])
    z_phot = columns[pairs.evaluated]
    rows = calibration.table(scores, z_phot, z_spec, magnitude, metrics.EDGES, config.draws, rng)
    return Calibration(scores.pit, rows)


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
        "judged": pairs.evaluated,
        "rows": [json_row(row) for row in rows],
        "calibration": calibrated and [json_row(row) for row in calibrated.rows],
    }
    measured = np.isfinite(pairs.z_phot)
    figures = {"zphot_zspec.png": figure(pairs.z_phot[measured], pairs.z_spec[measured])}
    tables = {"metrics.ecsv": flat_table(rows)}
    if calibrated:
        figures["calibration.png"] = calibration_figure(calibrated.pit, calibrated.rows[0].value["PIT KS"])
        tables["calibration.ecsv"] = flat_table(calibrated.rows)

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


if __name__ == "__main__":
    sys.exit(cli.run(main, Evaluate, sys.argv[1:], "python -m mmae.evaluate"))
