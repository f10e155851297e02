"""Write pairs of a galaxy and a DESI spectrum as GalaxiesML-Spectra (HDF5)."""

from pathlib import Path

import h5py
import numpy as np
from rich.progress import track

from catalogs import hdf5_stream
from catalogs.crossmatch.artefacts import replace_artefacts
from catalogs.crossmatch.galaxies import Galaxies
from catalogs.crossmatch.pairs import Pairs
from catalogs.store.format import CHUNK
from catalogs.surveys import desi
from catalogs.surveys.galaxiesml import DELTACHI2, FLUX, IVAR, REDSHIFT, SPECTYPE, TARGETID, WAVE

MAX_MISSING = 0.8
"""Share of missing pixels above which a spectrum is dropped (paper, section 3)."""


def write_pairs(path: Path, galaxies: Galaxies, pairs: Pairs, folder: Path) -> tuple[Pairs, int]:
    """Write the pairs, coadd by coadd, without spectra that have too many missing pixels.

    Returns
    -------
    written : the pairs that were written
    artefacts : number of pixels replaced
    """
    kept, artefacts = [], 0
    coadds, starts = np.unique(pairs.target.coadd, return_index=True)  # the order of the pairs
    with hdf5_stream.create(path) as (file, check):
        file.attrs["survey"] = galaxies.survey
        _create(file, galaxies.image_shape)
        parts = np.split(np.arange(len(pairs)), starts[1:])
        for coadd, rows in track(list(zip(coadds, parts, strict=True)), "spectra (coadds)"):
            spectra = desi.read_coadd(folder / coadd, pairs.target.target_id[rows])
            enough = np.flatnonzero((spectra.ivar == 0).mean(1) <= MAX_MISSING)
            for chunk in np.split(enough, range(CHUNK, len(enough), CHUNK)):
                image = galaxies.images(pairs.galaxy[rows[chunk]])
                artefacts += _append(file, image, spectra.flux[chunk], spectra.ivar[chunk], spectra.wave)
            kept.append(rows[enough])
            check()
        written = pairs.take(np.concatenate(kept))
        columns = {"object_id": galaxies.object_id, "ra": galaxies.ra, "dec": galaxies.dec} | galaxies.columns
        for name, values in columns.items():
            file[name] = values[written.galaxy]
        file[TARGETID] = written.target.target_id.astype("S20")
        file[REDSHIFT] = written.target.z
        file[SPECTYPE] = written.target.spectype.astype("S6")
        if np.isfinite(written.target.deltachi2).any():
            file[DELTACHI2] = written.target.deltachi2
    return written, artefacts


def _create(file: h5py.File, image_shape: tuple[int, ...]) -> None:
    """Create resizable datasets with a chunk per galaxy, as the number of spectra is not yet known."""
    for name in ("image", FLUX, IVAR, WAVE):
        shape = image_shape if name == "image" else (desi.PIXELS,)
        filters = {"compression": "gzip", "shuffle": True} if name == WAVE else {}  # every row is the same
        file.create_dataset(name, (0, *shape), "f4", maxshape=(None, *shape), chunks=(1, *shape), **filters)


def _append(file: h5py.File, image: np.ndarray, flux: np.ndarray, ivar: np.ndarray, wave: np.ndarray) -> int:
    """Append m galaxies, replacing the artefacts of their spectra; return the number of artefact pixels."""
    flux, ivar, artefact = replace_artefacts(flux, ivar)
    rows = {"image": image, FLUX: flux, IVAR: ivar, WAVE: np.broadcast_to(wave, flux.shape)}
    for name, values in rows.items():
        dataset = file[name]
        dataset.resize(len(dataset) + len(values), axis=0)
        dataset[len(dataset) - len(values) :] = values
    return int(artefact.sum())
