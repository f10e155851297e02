"""GalaxiesML images + DESI spectra -> GalaxiesML-Spectra: `mmae crossmatch`."""

import contextlib
import math
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from rich.console import Console
from rich.progress import track
from tyro.conf import Positional

from catalogs import atomic, hdf5_stream, ingest
from catalogs.crossmatch.artefacts import replace_artefacts
from catalogs.crossmatch.cutflow import Census, Cut, Summary, cut_table, summarise, summary_table
from catalogs.crossmatch.galaxies import I_MAG, Z_HSC, Galaxies, open_galaxies
from catalogs.crossmatch.pairs import Pairs, cut, match
from catalogs.crossmatch.sky import MAX_RADIUS, Positions
from catalogs.errors import InputRefused, UsageError
from catalogs.store.format import CHUNK, manifest_path
from catalogs.surveys import desi
from catalogs.surveys.galaxiesml import FLUX, IVAR, REDSHIFT, TARGETID, WAVE
from catalogs.surveys.redrock import Release, Targets, open_release

MISSING = 0.8
"""A spectrum with more than this share of its pixels missing is dropped (paper, section 3)."""

REPORT, WANTED = "crossmatch.json", "missing.txt"
"""Endings of the files beside the output: what was done, and which coadds are not there."""


@dataclass(frozen=True)
class Crossmatch:
    """Join GalaxiesML images with DESI spectra: GalaxiesML-Spectra (Himes et al. 2025, section 3).

    All pairs of a galaxy and a DESI target within the radius are found. Then are removed, each counted: the
    spectra of a target but for its primary one; stars; duplicates (a pair stays if each is the other's
    nearest); redshifts that redrock warns of; redshifts unlike HSC's specz_redshift, where there is one;
    spectra with more than 80 % of their pixels missing. Pixels that are artefacts get the median flux, and
    ivar 0. OUT.crossmatch.json holds the cut flow, and a summary as in the paper's Table 1. Rows are in the
    order of the coadds' paths, then of TARGETID.

    --desi is a folder as DESI publishes it, with zcatalog/v1/zall-pix-iron.fits and, below healpix/, the
    coadds that are needed: without them, their list is written. Or it is any folder with pairs of
    redrock-*.fits and coadd-*.fits.
    """

    galaxies: Positional[tuple[Path, ...]]
    """GalaxiesML HDF5 files with ra and dec, of 64 or 127 pixels: one, or the released three."""
    desi: Path
    """The DESI release. DR1 is at https://data.desi.lbl.gov/public/dr1/spectro/redux/iron"""
    out: Path
    """NAME.hdf5: GalaxiesML-Spectra, images as large as they were. NAME.zarr: a training store; the HDF5 file
    stands beside it meanwhile, and takes as much space."""
    zall: Path | None = None
    """Summary catalogue of the release, where it is not in the folder."""
    radius: float = 1.0
    """arcsec, at most 10."""
    max_dz: float = 0.05
    """|z_DESI - z_HSC| / (1 + z_DESI), at most. The paper's value is not known; its Table 1 has an object at
    z 4.119 for which HSC has 4.000 or less, so it is above 0.023."""

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
    for taken in (config.out, manifest_path(config.out)):
        if taken.exists():
            raise UsageError(f"{taken} exists already: remove it, or choose another name")
    release = open_release(config.desi, config.zall)
    with open_galaxies(config.galaxies) as galaxies:
        census = Census()
        positions = Positions(galaxies.ra, galaxies.dec)
        pairs = match(positions, _targets(release, positions, census), config.radius)
        pairs, cuts = cut(pairs, galaxies.object_id, galaxies.column(Z_HSC), config.max_dz)
        _refuse_none(config, cuts)
        _refuse_missing(config, pairs)
        with _workplace(config.out) as folder:
            path = folder / "spectra.hdf5"
            written, artefacts = _write(path, galaxies, pairs, config.desi)
            cuts.append(Cut("missing pixels", f"over {MISSING:.0%} of them", len(pairs), len(written)))
            _refuse_none(config, cuts)
            _report(config, cuts, artefacts, [census.summary("DESI"), *_summaries(galaxies, written)])
            if config.out.suffix == ".zarr":
                ingest.main(ingest.Ingest(path, config.out))
            else:
                atomic.sync(path)
                path.rename(config.out)
                atomic.sync(config.out.parent)
                print(f"wrote {config.out}: {len(written)} galaxies with spectra")
    print(f"wrote {_beside(config.out, REPORT)}: cut flow and summary")


def _targets(release: Release, positions: Positions, census: Census) -> Iterator[Targets]:
    """The release's targets near a galaxy, block by block; all go through the census."""
    for block in release.blocks(positions.near, track):
        census.add(block.redshifts)
        yield block.targets


def _refuse_none(config: Crossmatch, cuts: list[Cut]) -> None:
    if not cuts[0].before:
        raise InputRefused(
            f"no galaxy is within {config.radius:g} arcsec of a DESI target: do both cover the same sky?"
        )
    if not cuts[-1].after:
        removed = ", ".join(f"{line.removed} by {line.name}" for line in cuts)
        raise InputRefused(f"no pair is left of {cuts[0].before}: removed are {removed}")


def _refuse_missing(config: Crossmatch, pairs: Pairs) -> None:
    needed = np.unique(pairs.target.coadd).tolist()
    missing = [coadd for coadd in needed if not (config.desi / coadd).is_file()]
    if missing:
        listed = _beside(config.out, WANTED)
        listed.parent.mkdir(parents=True, exist_ok=True)
        with atomic.replacing(listed) as temporary:
            temporary.write_text("\n".join(missing) + "\n")
        raise InputRefused(
            f"{config.desi} lacks {len(missing)} of {len(needed)} coadds, {missing[0]} first: fetch what is "
            f"listed in {listed} (DR1: xargs -a {listed} -I % curl -f --create-dirs -o {config.desi}/% "
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
        "cuts": [cut._asdict() | {"removed": cut.removed} for cut in cuts],
        "artefact_pixels": artefacts,
        "summary": [summary._asdict() for summary in summaries],
    }
    atomic.write_json(_beside(config.out, REPORT), report)


def _beside(out: Path, ending: str) -> Path:
    return out.with_name(f"{out.name}.{ending}")


# ---------------------------------------------------------------- writing


@contextlib.contextmanager
def _workplace(out: Path) -> Iterator[Path]:
    """A folder for what is not finished, of this process alone; what a dead one left there goes."""
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


def _write(path: Path, galaxies: Galaxies, pairs: Pairs, folder: Path) -> tuple[Pairs, int]:
    """Write the pairs as GalaxiesML-Spectra, coadd by coadd, without spectra of which too much is missing.

    Returns
    -------
    written : the pairs that were written
    artefacts : number of pixels replaced
    """
    kept, artefacts = [], 0
    coadds, starts = np.unique(pairs.target.coadd, return_index=True)  # the pairs are in this order
    with hdf5_stream.create(path) as (file, check):
        file.attrs["survey"] = galaxies.survey
        _create(file, galaxies.image_shape)
        parts = np.split(np.arange(len(pairs)), starts[1:])
        for coadd, rows in track(list(zip(coadds, parts, strict=True)), "spectra (coadds)"):
            spectra = desi.read_coadd(folder / coadd, pairs.target.target_id[rows])
            enough = np.flatnonzero((spectra.ivar == 0).mean(1) <= MISSING)
            for some in np.split(enough, range(CHUNK, len(enough), CHUNK)):
                image = galaxies.images(pairs.galaxy[rows[some]])
                artefacts += _append(file, image, spectra.flux[some], spectra.ivar[some], spectra.wave)
            kept.append(rows[enough])
            check()
        written = pairs.take(np.concatenate(kept))
        columns = {"object_id": galaxies.object_id, "ra": galaxies.ra, "dec": galaxies.dec} | galaxies.columns
        for name, values in columns.items():
            file[name] = values[written.galaxy]
        file[TARGETID] = written.target.target_id.astype("S20")
        file[REDSHIFT] = written.target.z
    return written, artefacts


def _create(file: h5py.File, image_shape: tuple[int, ...]) -> None:
    """Datasets that grow, a chunk a galaxy: how many spectra will be written is not known before."""
    for name in ("image", FLUX, IVAR, WAVE):
        shape = image_shape if name == "image" else (desi.PIXELS,)
        packed = {"compression": "gzip", "shuffle": True} if name == WAVE else {}  # the same in every row
        file.create_dataset(name, (0, *shape), "f4", maxshape=(None, *shape), chunks=(1, *shape), **packed)


def _append(file: h5py.File, image: np.ndarray, flux: np.ndarray, ivar: np.ndarray, wave: np.ndarray) -> int:
    """Append m galaxies, their spectra without artefacts; gives the number of these."""
    flux, ivar, artefact = replace_artefacts(flux, ivar)
    rows = {"image": image, FLUX: flux, IVAR: ivar, WAVE: np.broadcast_to(wave, flux.shape)}
    for name, values in rows.items():
        dataset = file[name]
        dataset.resize(len(dataset) + len(values), axis=0)
        dataset[len(dataset) - len(values) :] = values
    return int(artefact.sum())
