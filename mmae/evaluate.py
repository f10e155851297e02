"""`mmae evaluate`: tables, files and figures of photo-z and p(z) against spectroscopic redshifts.

`mmae evaluate tile.photoz.fits --truth spectra.fits` evaluates a catalogue; `mmae evaluate predictions.csv`
evaluates predictions in one table with the truth, like the paper's released ones.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.evaluate", "Evaluate")

import dataclasses
import os
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tyro
from rich.console import Console

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.ranges import SEEDS, check_range
from catalogs.truth.redshifts import TruthTable
from mmae import __version__, cli
from mmae.bundles.columns import QUANTILES
from mmae.scores import calibration, metrics, suspects
from mmae.scores.matching import BY_POSITION
from mmae.scores.pairs import INTERVALS, Pairs, read_pairs, take
from mmae.scores.redshift_figures import calibration_figure, figure
from mmae.scores.score_tables import flat_table, json_row, text_table

CALIBRATION_SHOWN = ("coverage 68", "coverage 95", "CRPS", "CDE loss", "PIT KS", "half width")
"""Those of calibration.METRICS that are printed; the files contain all."""

TEXT_WIDTH = 200
"""Width of the printed tables in characters, whatever the terminal's: it must not cut or fold a number."""


MAX_DRAWS, MAX_SUSPECTS = 100_000, 10**7


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Measure photo-z against spectroscopic redshifts.

    All metrics are computed from dz = (z_phot - z_spec) / (1 + z_spec):
    - bias: the median dz; biweight: its robust mean
    - sigma_NMAD: 1.4826 median|dz - median dz|; sigma_IQR: (q75 - q25) / 1.349; the widths of the core
    - |dz|>0.15 and |dz|>max(0.06,3s), s being sigma_IQR: the fractions of outliers
    - HSC loss: the mean of 1 - 1/(1 + (dz/0.15)^2), from 0 (best) to 1
    - RMS: of dz, dominated by the worst outliers

    They are given with bootstrap errors, for all objects, in bins of z_spec (how well are galaxies at z
    measured?) and in bins of z_phot (how reliable is a photo-z of the catalogue?). The evaluated photo-z is
    PHOTOZ_BEST if the catalogue has any, else PHOTOZ_POINT. Objects IN_TRAINING (1 or 2) are left out.

    Where the catalogue has p(z), a second table gives their calibration, in the same bins, and in quarters by
    magnitude if the truth has one in i (MAG_I, MAG_LSST_I, ...), or else in r:
    - coverage 68, coverage 95: the fractions of z_spec in the 68 % and the 95 % interval
    - CRPS: the mean integral of (F - step at z_spec)^2 dz, F being the CDF; in z, 0 is best
    - CDE loss: the mean of integral p^2 dz - 2 p(z_spec); the lower the better
    - PIT KS: the PIT is F(z_spec), uniform from 0 to 1 if all p(z) are right; its largest distance from that
    - half width: the mean of half the 68 % interval, over 1 + z_spec; compare sigma_NMAD
    - only in the files: PIT CvM, n times that distance squared; PIT AD, the same with weight on the ends;
      PIT outliers, the fraction within 1e-4 of 0 or 1

    F is a polyline through the 20 stored quantiles, and beyond them a guess. For a Gaussian p(z) that is
    exactly right, that alone gives PIT KS 0.013 and PIT outliers 2.6 %. In bins of z_spec, coverage and PIT
    can be wrong even if all p(z) are right: selecting on z_spec selects errors of one sign.

    With --suspect N, the N spectroscopic redshifts that p(z) disbelieves most are listed instead, those of
    IN_TRAINING, too: redshifts of another galaxy or another line, and objects like nothing in the training
    set. To look through a training store, infer on it: `mmae infer --catalog train.zarr`.
    """

    catalogue: tyro.conf.Positional[Path]
    """Photo-z catalogue with OBJECT_ID and PHOTOZ_POINT; or predictions with y_test (true) and y_pred."""

    truth: Path | None = None
    """Table of spectroscopic redshifts, rows in any order: .fits, .csv, .ecsv, .parquet or VOTable (.vot,
    .xml). NaN, nulls, -99, -1, 9.99, 99 and the like are no redshift. Overrides a Z_SPEC of the catalogue."""

    z_column: str | None = None
    """Column of the truth with the redshift; without it the plainest of Z_SPEC, zspec, specz_redshift, ...,
    z_true, redshift, z, in any case; two that are as plain are refused."""

    id_column: str | None = None
    """Column of the truth with the ids of the catalogue; without it OBJECT_ID, objectId, id, TARGETID, ...,
    the first that has any of them."""

    ra_column: str | None = None
    """Column of the truth with the right ascension; without it ra, RAJ2000, TARGET_RA, ra_corrected, ..."""

    dec_column: str | None = None
    """Column of the truth with the declination."""

    match: Literal["auto", "id", "position"] = "auto"
    """How objects are found in the truth. auto: by id, and where the truth has no ids of the catalogue, or
    they are of objects elsewhere on the sky, by position: the nearest within 1 arcsec."""

    where: str | None = None
    """Cut of the truth's rows, in quotes, such as "ZWARN == 0 and SPECTYPE in ('GALAXY', 'QSO')" or
    "specz_flag_homogeneous and 0.01 < specz_redshift < 4"; of the catalogue's, if it is its own truth."""

    out: Path | None = None
    """Folder for metrics.json, metrics.ecsv, zphot_zspec.png, calibration.ecsv, calibration.png; without it
    X.evaluation beside X.fits."""

    suspect: int = 0
    """List so many suspect spectroscopic redshifts, the worst first, in suspects.ecsv; measure nothing."""

    images: Path | None = None
    """With --suspect: the cutout store of the catalogue, from which they are drawn, to suspects.png."""

    draws: int = 200
    """Bootstrap samples behind each error; 0 for no errors."""

    seed: int = 0
    """Seed of the bootstrap: the same seed gives the same errors."""


class Calibration(NamedTuple):
    """Calibration of the p(z) of a catalogue."""

    pit: np.ndarray
    """(N,) of the objects with a p(z)."""
    rows: list[calibration.Row]


def main(config: Evaluate) -> None:
    """Evaluate one catalogue; UsageError or InputRefused, and nothing written, when that cannot be done."""
    out = config.out or config.catalogue.parent / f"{config.catalogue.stem}.evaluation"
    _check(config, out)
    if config.suspect:
        list_suspects(config, out)
        return
    pairs = _pairs(config)
    rng = np.random.default_rng(config.seed)
    rows = metrics.table(pairs.z_phot, pairs.z_spec, metrics.EDGES, config.draws, rng)
    pdf_calibration = _calibration(config, pairs, rng)
    written = _write(config, pairs, rows, pdf_calibration, out)

    print(*pairs.origin.lines(config.truth or config.catalogue), sep="\n")
    print(f"judged by {pairs.z_phot_column}:")
    print(f"{rows[0].n:>8} objects of {config.catalogue.name} with a photo-z and a spectroscopic redshift")
    print(f"{rows[0].n_without_z_phot:>8} with a spectroscopic redshift and no finite photo-z")
    print(f"{pairs.rows_without_z_spec:>8} catalogue rows without a spectroscopic redshift")
    print(f"{pairs.in_training:>8} objects left out, as the model was made with them")
    print(f"{pairs.missing_in_catalogue:>8} objects of the truth table that are not in the catalogue")
    console = Console(width=TEXT_WIDTH)
    console.print(text_table(rows, tuple(metrics.POINT_METRICS)))
    if pdf_calibration:
        print(f"the p(z) of {len(pdf_calibration.pit)} of these objects:")
        console.print(text_table(pdf_calibration.rows, CALIBRATION_SHOWN))
    else:
        print(f"{config.catalogue.name} has no p(z) of these objects: no calibration to measure")
    print(f"wrote {', '.join(written[:-1])} and {written[-1]} to {out}")


def list_suspects(config: Evaluate, out: Path) -> None:
    pairs = _pairs(config, all_objects=True)
    table = suspects.suspects(pairs, config.suspect)
    written = suspects.write(table, out, config.images)
    beyond = int((table[suspects.DISTANCE] > 1).sum())
    print(f"{len(table)} redshifts that p(z) disbelieves most, of {len(pairs.z_spec)}:")
    print(f"{beyond:>8} of them are beyond the outermost quantiles of p(z)")
    print(f"wrote {' and '.join(written)} to {out}")


def _check(config: Evaluate, out: Path) -> None:
    check_range("--draws", config.draws, 0, MAX_DRAWS)
    check_range("--seed", config.seed, *SEEDS)
    check_range("--suspect", config.suspect, 0, MAX_SUSPECTS)
    of_truth = ("z_column", "id_column", "ra_column", "dec_column")
    if config.truth is None and (given := [name for name in of_truth if getattr(config, name)]):
        raise UsageError(f"--{given[0].replace('_', '-')} is for --truth TABLE, whose column it names")
    if config.match == BY_POSITION and config.id_column:
        raise UsageError("--id-column is for a match by id: leave out it or --match position")
    if config.images and not config.suspect:
        raise UsageError("--images is for --suspect N, which draws the suspect objects")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file; pass a folder with --out")
    existing = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise UsageError(f"cannot write to {existing}; pass another folder with --out")


def _pairs(config: Evaluate, all_objects: bool = False) -> Pairs:
    names = (config.z_column, config.id_column, config.ra_column, config.dec_column)
    truth = TruthTable(config.truth, *names, where=config.where) if config.truth else None
    return read_pairs(config.catalogue, truth, config.match, config.where, all_objects)


def _calibration(config: Evaluate, pairs: Pairs, rng: np.random.Generator) -> Calibration | None:
    """Measure the calibration; None if no object has a p(z)."""
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
    magnitude = pairs.magnitude and (pairs.magnitude[0], pairs.magnitude[1][has_pdf])
    z_phot = columns[pairs.z_phot_column]
    rows = calibration.table(scores, z_phot, z_spec, magnitude, metrics.EDGES, config.draws, rng)
    return Calibration(scores.pit, rows)


def _write(
    config: Evaluate, pairs: Pairs, rows: list[metrics.Row], pdf_calibration: Calibration | None, out: Path
) -> list[str]:
    """Write all files into the folder; returns their names."""
    report = {
        "code_version": __version__,
        "catalogue": _source(config.catalogue),
        "truth": config.truth and _source(config.truth),
        "redshifts": pairs.origin._asdict(),
        "draws": config.draws,
        "seed": config.seed,
        "catalogue_rows_without_z_spec": pairs.rows_without_z_spec,
        "objects_made_with": pairs.in_training,
        "truth_objects_not_in_catalogue": pairs.missing_in_catalogue,
        "judged": pairs.z_phot_column,
        "rows": [json_row(row) for row in rows],
        "calibration": pdf_calibration and [json_row(row) for row in pdf_calibration.rows],
    }
    measured = np.isfinite(pairs.z_phot)
    figures = {"zphot_zspec.png": figure(pairs.z_phot[measured], pairs.z_spec[measured])}
    tables = {"metrics.ecsv": flat_table(rows)}
    if pdf_calibration:
        figures["calibration.png"] = calibration_figure(
            pdf_calibration.pit, pdf_calibration.rows[0].value["PIT KS"]
        )
        tables["calibration.ecsv"] = flat_table(pdf_calibration.rows)

    out.mkdir(parents=True, exist_ok=True)
    if not pdf_calibration:  # those of an earlier catalogue would pass for this one's
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
