"""GalaxiesML images + DESI spectra -> GalaxiesML-Spectra: `mmae crossmatch`."""

import contextlib
import math
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from tyro.conf import Positional

from catalogs import atomic, ingest
from catalogs.crossmatch.cutflow import Cut, RedshiftHistogram, Summary, cut_table, summarise, summary_table
from catalogs.crossmatch.galaxies import I_MAG, Z_HSC, Galaxies, open_galaxies
from catalogs.crossmatch.pairs import Pairs, cut, match
from catalogs.crossmatch.sky import MAX_RADIUS, Positions
from catalogs.crossmatch.writer import MAX_MISSING, write_pairs
from catalogs.errors import InputRefused, UsageError
from catalogs.output import check_output
from catalogs.store.format import manifest_path
from catalogs.surveys.redrock import Release, open_release
from catalogs.surveys.targets import Targets

REPORT, MISSING_COADDS = "crossmatch.json", "missing.txt"
"""Endings of the files beside the output: the report, and the list of missing coadds."""


@dataclass(frozen=True)
class Crossmatch:
    """Join GalaxiesML images with DESI spectra: GalaxiesML-Spectra (Himes et al. 2025, section 3).

    All pairs of a galaxy and a DESI target within the radius are found. The following are then removed and
    counted: all spectra of a target except its primary one; stars, unless --keep-stars; duplicates (a pair
    stays if each is the other's nearest); redshifts with a warning by redrock; redshifts that disagree with
    HSC's specz_redshift, where known; spectra with more than 80 % of their pixels missing. Pixels that are
    artefacts get the median flux, and ivar 0. OUT.crossmatch.json holds the cut flow, and a summary as in the
    paper's Table 1. Rows are in the order of the coadds' paths, then of TARGETID.

    --desi is a folder as DESI publishes it, with zcatalog/v1/zall-pix-iron.fits and, below healpix/, the
    coadds needed: if they are missing, their list is written. Or it is any folder with pairs of
    redrock-*.fits and coadd-*.fits.
    """

    galaxies: Positional[tuple[Path, ...]]
    """GalaxiesML HDF5 files with ra and dec, of 64 or 127 pixels: one, or the released three."""
    desi: Path
    """The DESI release. DR1 is at https://data.desi.lbl.gov/public/dr1/spectro/redux/iron"""
    out: Path
    """NAME.hdf5: GalaxiesML-Spectra, images in their original size. NAME.zarr: a training store; meanwhile
    the HDF5 file takes as much space beside it."""
    zall: Path | None = None
    """Summary catalogue of the release, if it is not in the folder: zall-pix-*, zpix-*, or, of spectra by
    tile, zall-tilecumulative-*, ztile-*-cumulative."""
    radius: float = 1.0
    """Largest separation, arcsec, at most 10."""
    max_dz: float = 0.05
    """Largest |z_DESI - z_HSC| / (1 + z_DESI). The paper's value is not known; its Table 1 has an object at
    z 4.119 for which HSC has 4.000 or less, so it is above 0.023."""

    keep_stars: bool = False
    """Keep the stars: a model trained on them, too, tells them from galaxies (P_STAR)."""

    def __post_init__(self) -> None:
        if not self.galaxies:
            raise UsageError("name the GalaxiesML files")
        if self.out.suffix not in (".hdf5", ".h5", ".zarr"):
            raise UsageError(f"{self.out} must end in .hdf5, .h5 or .zarr")
        if not 0 < self.radius <= MAX_RADIUS:
            raise UsageError(f"--radius must be above 0 and at most {MAX_RADIUS:g} arcsec, got {self.radius}")
        if not 0 < self.max_dz < math.inf:
            raise UsageError(f"--max-dz must be a positive number, got {self.max_dz}")


def main(config: Crossmatch) -> None:
    check_output(config.out)
    _refuse_taken(config.out)
    release = open_release(config.desi, config.zall)
    with open_galaxies(config.galaxies) as galaxies:
        redshifts = RedshiftHistogram()
        positions = Positions(galaxies.ra, galaxies.dec)
        pairs = match(positions, _targets(release, positions, redshifts), config.radius)
        pairs, cuts = cut(pairs, galaxies.object_id, galaxies.column(Z_HSC), config.max_dz, config.keep_stars)
        _refuse_empty(config, cuts)
        _refuse_missing_coadds(config, pairs)
        with _working_folder(config.out) as folder:
            _refuse_taken(config.out)  # another process may have written it while this one matched
            path = folder / "spectra.hdf5"
            written, artefacts = write_pairs(path, galaxies, pairs, config.desi)
            cuts.append(Cut("missing pixels", f"over {MAX_MISSING:.0%} of them", len(pairs), len(written)))
            _refuse_empty(config, cuts)
            _report(config, cuts, artefacts, [redshifts.summary("DESI"), *_summaries(galaxies, written)])
            if config.out.suffix == ".zarr":
                ingest.main(ingest.Ingest(path, config.out))
            else:
                atomic.sync(path)
                path.rename(config.out)
                atomic.sync(config.out.parent)
                print(f"wrote {config.out}: {len(written)} galaxies with spectra")
    print(f"wrote {_beside(config.out, REPORT)}: cut flow and summary")


def _refuse_taken(out: Path) -> None:
    for taken in (out, manifest_path(out)):
        if taken.exists():
            raise UsageError(f"{taken} exists already: remove it, or choose another name")


def _targets(release: Release, positions: Positions, redshifts: RedshiftHistogram) -> Iterator[Targets]:
    """The release's targets near a galaxy, block by block; the redshifts of all targets are counted."""
    for block in release.blocks(positions.near, track):
        redshifts.add(block.redshifts)
        yield block.targets


def _refuse_empty(config: Crossmatch, cuts: list[Cut]) -> None:
    if not cuts[0].before:
        raise InputRefused(
            f"no galaxy is within {config.radius:g} arcsec of a DESI target: do both cover the same sky?"
        )
    if not cuts[-1].after:
        removed = ", ".join(f"{cut.removed} by {cut.name}" for cut in cuts)
        raise InputRefused(f"no pair is left of {cuts[0].before}: removed are {removed}")


def _refuse_missing_coadds(config: Crossmatch, pairs: Pairs) -> None:
    needed = np.unique(pairs.target.coadd).tolist()
    missing = [coadd for coadd in needed if not (config.desi / coadd).is_file()]
    if missing:
        list_path = _beside(config.out, MISSING_COADDS)
        list_path.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(list_path) as temporary:
            temporary.write_text("\n".join(missing) + "\n")
        listed, fetched = shlex.quote(str(list_path)), shlex.quote(f"{config.desi}/%")
        raise InputRefused(
            f"{config.desi} lacks {len(missing)} of {len(needed)} coadds, {missing[0]} first: fetch what is "
            f"listed in {list_path} (DR1: xargs -a {listed} -I % curl -f --create-dirs -o {fetched} "
            "https://data.desi.lbl.gov/public/dr1/spectro/redux/iron/%)"
        )


def _summaries(galaxies: Galaxies, written: Pairs) -> list[Summary]:
    i_mag = galaxies.column(I_MAG)
    return [
        summarise("GalaxiesML", galaxies.column(Z_HSC), i_mag),
        summarise("GalaxiesML-Spectra", written.target.z, i_mag[written.galaxy]),
    ]


def _report(config: Crossmatch, cuts: list[Cut], artefacts: int, summaries: list[Summary]) -> None:
    """Print the cut flow and the summary, and write them beside the output."""
    console = Console()
    console.print(cut_table(f"pairs within {config.radius:g} arcsec", cuts))
    console.print(summary_table(summaries))
    console.print(f"artefacts: {artefacts:,} pixels replaced")
    report = {
        "galaxies": [path.name for path in config.galaxies],
        "radius_arcsec": config.radius,
        "max_dz": config.max_dz,
        "keep_stars": config.keep_stars,
        "cuts": [cut._asdict() | {"removed": cut.removed} for cut in cuts],
        "artefact_pixels": artefacts,
        "summary": [summary._asdict() for summary in summaries],
    }
    atomic.write_json(_beside(config.out, REPORT), report)


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.name}.{ending}")


@contextlib.contextmanager
def _working_folder(out: Path) -> Iterator[Path]:
    """A folder for unfinished files, locked by this process; leftovers of a killed process are deleted."""
    folder = out.with_name(f".{out.name}{atomic.TEMPORARY}")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with atomic.owned(folder):
            try:
                yield folder
            finally:
                shutil.rmtree(folder)
    except BlockingIOError:
        raise UsageError(f"{out} is being written by another process") from None
