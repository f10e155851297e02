"""`mmae evaluate`: tables, files and figures of photo-z and p(z) against spectroscopic redshifts.

`mmae evaluate tile.photoz.fits --truth spectra.fits` evaluates a catalogue; `mmae evaluate predictions.csv`
evaluates predictions in one table with the truth, like the paper's released ones.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("mmae.evaluate", "Evaluate")

import dataclasses
import sys
import textwrap
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import tyro
from rich.console import Console

from catalogs import atomic
from catalogs.errors import InputRefused, UsageError
from catalogs.output import check_output_folder
from catalogs.place import local_copy
from catalogs.place_flag import PlaceFlag
from catalogs.ranges import SEEDS, check_range
from catalogs.tables.redshifts import TruthTable
from mmae import __version__, cli
from mmae.bundles.columns import QUANTILES
from mmae.progress import bar
from mmae.scores import calibration, metrics, suspects
from mmae.scores.catalogue import card, classes, requirements, tomography
from mmae.scores.catalogue.card import Card
from mmae.scores.catalogue.magnitudes import I_MAGNITUDES
from mmae.scores.catalogue.requirements import PRESETS
from mmae.scores.pairs import INTERVALS, Pairs, read_pairs, take
from mmae.scores.redshift_figures import calibration_figure, figure

MAY_BE_ABSENT = {"calibration.png", "calibration.ecsv", "requirements.ecsv", "classes.ecsv"}
"""Files that some catalogues and surveys do not have."""
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

    They are given with bootstrap errors and 95 % intervals, for all objects, in bins of z_spec (how well are
    galaxies at z measured?), in bins of z_phot (how reliable is a photo-z of the catalogue?) and in quarters
    --by other columns. The evaluated photo-z is PHOTOZ_BEST if the catalogue has any, else PHOTOZ_POINT.
    Objects IN_TRAINING (1 or 2), and those within 1 arcsec of one, are left out.

    What --survey requires is judged by the 95 % interval: pass if all of it fulfils it, fail if none of it
    does, else open: too few galaxies to tell.
    - lsst: the Science Requirements Document (i < 25, 0.3 <= z_phot < 3: sigma_IQR < 0.02, |bias| < 0.003,
      outliers beyond max(0.06,3s) < 10 %); the minimum of DMTN-049 (i < 25, z_phot < 2: 0.05, 10 %); mean
      redshifts of five tomographic bins (DESC: to 0.002 (1 + z) after a year, 0.001 after ten)
    - euclid: sigma_NMAD < 0.05, |dz|>0.15 < 10 % (0.2 <= z_phot < 2.6); mean redshifts of ten bins, to 0.002
    - hsc: the mean redshifts of its four bins
    A bin has the mean z_spec, and the errors of the mean z_phot and of the mean of the stacked p(z), by which
    it is judged. The variance of structure between fields is in no error.

    Where the catalogue has p(z), a table gives their calibration, in the same ranges:
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

    Where the catalogue has P_STAR, P_GALAXY and P_QSO and the truth a column SPECTYPE (or class) with STAR,
    GALAXY and QSO, a last table gives the completeness and purity of each class, by magnitude.

    With --suspect N, the N spectroscopic redshifts that p(z) disbelieves most are listed instead, those of
    IN_TRAINING, too: redshifts of another galaxy or another line, and objects like nothing in the training
    set. To look through a training store, infer on it: `mmae infer --catalog train.zarr`.
    """

    catalogue: tyro.conf.Positional[PlaceFlag]
    """Photo-z catalogue with OBJECT_ID and PHOTOZ_POINT; or predictions with y_test (true) and y_pred."""

    truth: PlaceFlag | None = None
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

    by: tuple[str, ...] = ()
    """Columns of the truth, or else of the catalogue, such as MAG_I SNR, by whose quarters all is measured;
    without it the truth's magnitude in i (MAG_I, MAG_LSST_I, ...), or else in r."""

    survey: Literal["lsst", "euclid", "hsc"] = "lsst"
    """Whose requirements and tomographic bins."""

    out: Path | None = None
    """Folder for the tables (metrics.json has all; metrics, calibration, requirements, tomography,
    classes.ecsv) and
    figures; without it X.evaluation beside X.fits."""

    suspect: int = 0
    """List so many suspect spectroscopic redshifts, the worst first, in suspects.ecsv; measure nothing."""

    images: PlaceFlag | None = None
    """With --suspect: the cutout store of the catalogue, from which they are drawn, to suspects.png."""

    draws: int = 200
    """Bootstrap samples behind each error; 0 for no errors."""

    seed: int = 0
    """Seed of the bootstrap: the same seed gives the same errors."""


@dataclasses.dataclass(frozen=True)
class Here(Evaluate):
    """The same, of files in a file system."""

    catalogue: Path
    truth: Path | None = None


class WithPdf(NamedTuple):
    """The objects with a p(z), m of N."""

    rows: np.ndarray
    """(N,) bool"""
    quantiles: np.ndarray
    """(m, 20)"""
    scores: calibration.Scores


def main(config: Evaluate) -> None:
    """Evaluate one catalogue; UsageError or InputRefused, and nothing written, when that cannot be done."""
    beside = config.catalogue.parent if isinstance(config.catalogue, Path) else Path()
    out = config.out or beside / f"{config.catalogue.stem}.evaluation"
    _check(config, out)
    with local_copy(config.catalogue) as catalogue, local_copy(config.truth) as truth:
        evaluate(Here(**vars(config) | {"catalogue": catalogue, "truth": truth}), out)


def evaluate(config: Here, out: Path) -> None:
    """Evaluate a catalogue that lies here."""
    if config.suspect:
        list_suspects(config, out)
        return
    pairs = _pairs(config)
    pdf = _with_pdf(config, pairs)
    with bar("bootstrap", disable=not sys.stdout.isatty()) as shown:
        measured = _measure(config, pairs, pdf, shown.track)
    written = _write(config, pairs, pdf, measured, out)

    for line in pairs.origin.lines(config.truth or config.catalogue):
        print(_fill(line))
    print(f"judged by {pairs.z_phot_column}:")
    everything = measured.rows[0]
    print(f"{everything.n:>8} objects of {config.catalogue.name} with a photo-z and a spectroscopic redshift")
    print(f"{everything.n_without_z_phot:>8} with a spectroscopic redshift and no finite photo-z")
    print(f"{pairs.rows_without_z_spec:>8} catalogue rows without a spectroscopic redshift")
    print(f"{pairs.missing_in_catalogue:>8} objects of the truth table that are not in the catalogue")
    print(*pairs.leaks.lines(), sep="\n")
    if not measured.calibration:
        print(f"{config.catalogue.name} has no p(z) of these objects: no calibration to measure")
    console = Console(width=card.WIDTH)
    for part in card.parts(measured, PRESETS[config.survey]):
        console.print(part, markup=False, highlight=False)
    print(_fill(f"wrote {', '.join(written[:-1])} and {written[-1]} to {out}"))


def list_suspects(config: Here, out: Path) -> None:
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
    if config.images and not config.suspect:
        raise UsageError("--images is for --suspect N, which draws the suspect objects")
    check_output_folder(out)


def _pairs(config: Here, all_objects: bool = False) -> Pairs:
    truth = _truth(config)
    return read_pairs(config.catalogue, truth, config.match, config.where, config.by, all_objects)


def _truth(config: Here) -> TruthTable | None:
    names = (config.z_column, config.id_column, config.ra_column, config.dec_column)
    return TruthTable(config.truth, *names, where=config.where) if config.truth else None


def _with_pdf(config: Here, pairs: Pairs) -> WithPdf | None:
    """Score every p(z); None if no object has one."""
    if not pairs.columns.keys() >= {QUANTILES, *INTERVALS}:
        return None
    rows = np.isfinite(np.column_stack([pairs.columns[name] for name in (QUANTILES, *INTERVALS)])).all(1)
    if not rows.any():
        return None
    columns = take(pairs.columns, rows)
    ends = np.stack([columns[name] for name in INTERVALS])
    try:
        scores = calibration.scores(columns[QUANTILES], ends[:2], ends[2:], pairs.z_spec[rows])
    except ValueError as error:
        raise InputRefused(f"{config.catalogue}: {QUANTILES} {error}; make the catalogue again") from error
    return WithPdf(rows, columns[QUANTILES], scores)


def _measure(config: Here, pairs: Pairs, pdf: WithPdf | None, track: metrics.Track) -> Card:
    preset, rng = PRESETS[config.survey], np.random.default_rng(config.seed)
    shared = (metrics.EDGES, config.draws, rng)
    rows = metrics.table(pairs.z_phot, pairs.z_spec, *shared, pairs.by, track)
    binned = pairs.take(pdf.rows) if pdf else pairs
    scored = (pdf.scores, binned.z_phot, binned.z_spec, binned.by) if pdf else None
    calibrated = calibration.table(*scored, *shared, track) if scored else None
    magnitude = pairs.magnitude if pairs.magnitude and pairs.magnitude[0] in I_MAGNITUDES else None
    outcomes = requirements.measure(preset, pairs.z_phot, pairs.z_spec, magnitude, config.draws, rng, track)
    edges = requirements.edges(preset.bins, binned.z_phot)
    quantiles = pdf.quantiles if pdf else None
    bins = tomography.measure(binned.z_phot, binned.z_spec, quantiles, edges, preset.mean, config.draws, rng)
    classified = None
    if truth := _truth(config):
        classified = classes.of_catalogue(config.catalogue, truth, config.match)
    return Card(rows, calibrated, outcomes, bins, classified)


def _write(config: Here, pairs: Pairs, pdf: WithPdf | None, measured: Card, out: Path) -> list[str]:
    """Write all files into the folder; returns their names."""
    report = {
        "code_version": __version__,
        "catalogue": _source(config.catalogue),
        "truth": config.truth and _source(config.truth),
        "redshifts": pairs.origin._asdict(),
        "draws": config.draws,
        "seed": config.seed,
        "catalogue_rows_without_z_spec": pairs.rows_without_z_spec,
        "leaks": pairs.leaks._asdict(),
        "truth_objects_not_in_catalogue": pairs.missing_in_catalogue,
        "judged": pairs.z_phot_column,
        "survey": config.survey,
        **card.report(measured),
    }
    binned = pairs.take(pdf.rows) if pdf else pairs
    finite = np.isfinite(pairs.z_phot)
    edges = requirements.edges(PRESETS[config.survey].bins, binned.z_phot)
    figures = {
        "zphot_zspec.png": figure(pairs.z_phot[finite], pairs.z_spec[finite]),
        "tomography.png": card.tomography_figure(
            binned.z_phot, binned.z_spec, pdf.quantiles if pdf else None, edges
        ),
    }
    tables = card.tables(measured)
    if pdf and measured.calibration:
        ks = measured.calibration[0].value["PIT KS"]
        figures["calibration.png"] = calibration_figure(pdf.scores.pit, ks)

    out.mkdir(parents=True, exist_ok=True)
    for name in MAY_BE_ABSENT - tables.keys() - figures.keys():  # else an old one would pass for this one's
        (out / name).unlink(missing_ok=True)
    for name, plot in figures.items():
        with atomic.replacing(out / name) as temporary:
            plot.savefig(temporary, format="png", dpi=200)
    for name, table in tables.items():
        with atomic.replacing(out / name) as temporary:
            table.write(temporary, format="ascii.ecsv")
    atomic.write_json(out / "metrics.json", report)
    return ["metrics.json", *tables, *figures]


def _fill(line: str) -> str:
    """The line, folded between words where it is wider than the tables."""
    return textwrap.fill(
        line, card.WIDTH, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
    )


def _source(path: Path) -> dict[str, str]:
    return {"file": path.name, "sha256": atomic.sha256(path)}
