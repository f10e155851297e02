"""Write a DESI release and the GalaxiesML file that overlaps it: real file layouts, invented objects.

zcatalog/v1/zall-pix-test.fits
healpix/main/dark/272/27247/coadd-main-dark-27247.fits, redrock-main-dark-27247.fits
"""

from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

import h5py
import numpy as np
from astropy import units as u
from astropy.io import fits
from astropy_healpix import HEALPix

from catalogs.surveys import desi

ARMS = {"B": (3600.0, 2751), "R": (5760.0, 2326), "Z": (7520.0, 2881)}
"""First wavelength (A) and number of pixels of each arm."""
FOLDERS = HEALPix(nside=64, order="nested")
LINES = {3728.5: 2.0, 4862.7: 1.0, 4960.3: 1.5, 5008.2: 4.5, 6564.6: 4.0}
"""Rest wavelength (A, vacuum) -> height."""
NOISE = 0.2


@dataclass(frozen=True)
class Target:
    """One spectrum of one target; `missing` is the share of its pixels without ivar."""

    target_id: int
    ra: float
    dec: float
    z: float = 0.3
    zwarn: int = 0
    spectype: str = "GALAXY"
    objtype: str = "TGT"
    survey: str = "main"
    program: str = "dark"
    primary: bool = True
    tsnr2: float = 100.0
    deltachi2: float = 500.0
    missing: float = 0.0
    cosmic_rays: tuple[int, ...] = ()
    """Pixels of the B arm that are hit."""

    @property
    def cell(self) -> int:
        return int(FOLDERS.lonlat_to_healpix(self.ra * u.deg, self.dec * u.deg))

    @property
    def folder(self) -> str:
        return f"healpix/{self.survey}/{self.program}/{self.cell // 100}/{self.cell}"

    @property
    def name(self) -> str:
        return f"{self.survey}-{self.program}-{self.cell}.fits"


def write_release(root, targets):
    """Write all files of the release; the rows of the summary catalogue are in the order of the targets."""
    write_zall(root / "zcatalog" / "v1" / "zall-pix-test.fits", targets)
    file_key = attrgetter("folder", "name")
    for (folder, name), group in groupby(sorted(targets, key=file_key), file_key):
        in_file = list(group)
        (root / folder).mkdir(parents=True, exist_ok=True)
        write_coadd(root / folder / f"coadd-{name}", in_file)
        write_redrock(root / folder / f"redrock-{name}", in_file)
    return root


def table(name, columns, rows):
    """BINTABLE with columns {name: (format, attribute of the targets)}."""
    columns = [
        fits.Column(column, form, array=np.array([getattr(row, attribute) for row in rows]))
        for column, (form, attribute) in columns.items()
    ]
    return fits.BinTableHDU.from_columns(columns, name=name)


TARGETID = {"TARGETID": ("K", "target_id")}
REDSHIFT = {
    "Z": ("D", "z"),
    "ZWARN": ("K", "zwarn"),
    "SPECTYPE": ("6A", "spectype"),
    "DELTACHI2": ("D", "deltachi2"),
}
POSITION = {"TARGET_RA": ("D", "ra"), "TARGET_DEC": ("D", "dec"), "OBJTYPE": ("3A", "objtype")}
PLACE = {"SURVEY": ("7A", "survey"), "PROGRAM": ("6A", "program"), "HEALPIX": ("J", "cell")}
DEPTH, PRIMARY = {"TSNR2_LRG": ("E", "tsnr2")}, {"ZCAT_PRIMARY": ("L", "primary")}


def write_zall(path, targets, without=(), name="ZCATALOG", added=None, **keywords):
    """Write a summary catalogue, with columns left out or added (a number each), and header keywords."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns = TARGETID | PLACE | REDSHIFT | POSITION | DEPTH | PRIMARY
    columns = {column: kind for column, kind in columns.items() if column not in without}
    if "TARGET_RA" in without:
        columns |= {"RA": ("D", "ra"), "DEC": ("D", "dec")}
    hdu = table(name, columns, targets)
    constants = [
        fits.Column(column, "J", array=np.full(len(targets), value))
        for column, value in (added or {}).items()
    ]
    hdu = fits.BinTableHDU.from_columns([*hdu.columns, *constants], name=name)
    hdu.header.update(keywords)
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path, checksum=True, overwrite=True)


def write_redrock(path, targets):
    hdus = [
        table("REDSHIFTS", TARGETID | REDSHIFT, targets),
        table("FIBERMAP", TARGETID | POSITION, targets),
        table("TSNR2", TARGETID | DEPTH, targets),
    ]
    fits.HDUList([fits.PrimaryHDU(), *hdus]).writeto(path, checksum=True)


def write_coadd(path, targets):
    hdus = [fits.PrimaryHDU(), table("FIBERMAP", TARGETID | POSITION, targets)]
    spectra = [draw(target) for target in targets]
    for number, (arm, (first, pixels)) in enumerate(ARMS.items()):
        images = {
            "WAVELENGTH": first + desi.STEP * np.arange(pixels),
            "FLUX": np.array([flux[number] for flux, _ in spectra], np.float32),
            "IVAR": np.array([ivar[number] for _, ivar in spectra], np.float32),
            "MASK": np.zeros((len(targets), pixels), np.int32),
        }
        hdus += [fits.ImageHDU(data, name=f"{arm}_{kind}") for kind, data in images.items()]
    fits.HDUList(hdus).writeto(path, checksum=True)


def draw(target):
    """Flux and ivar of the three arms: a power law, lines of 120 km/s, noise."""
    rng = np.random.default_rng(target.target_id)
    grid_end = desi.FIRST + desi.STEP * desi.PIXELS
    fluxes, ivars = [], []
    for arm, (first, pixels) in ARMS.items():
        wave = first + desi.STEP * np.arange(pixels)
        flux = 2 * (wave / 6000) ** -0.5 + rng.normal(0, NOISE, pixels)
        for rest, height in LINES.items():
            centre = rest * (1 + np.nan_to_num(target.z))
            flux += height * np.exp(-0.5 * ((wave - centre) / (4e-4 * centre)) ** 2)
        if arm == "B":
            flux[list(target.cosmic_rays)] += 60 * NOISE
        fluxes.append(flux)
        ivars.append(np.where(wave < grid_end - target.missing * desi.STEP * desi.PIXELS, NOISE**-2, 0))
    return fluxes, ivars


def image_of(object_id, size):
    """Image (5, size, size) float32, identified by its values."""
    return np.full((5, size, size), object_id % 100_003, np.float32) + np.arange(5)[:, None, None]


def write_galaxies(path, object_id, ra, dec, specz, /, size=64, **changes):
    """Write a GalaxiesML file; `changes` replace datasets, or remove them (None)."""
    datasets = {
        "image": np.array([image_of(name, size) for name in object_id]),
        "object_id": np.asarray(object_id, np.int64),
        "ra": np.asarray(ra, np.float64),
        "dec": np.asarray(dec, np.float64),
        "specz_redshift": np.asarray(specz, np.float64),
        "i_cmodel_mag": 18 + 4 * (np.asarray(object_id) % 17) / 17,
    }
    with h5py.File(path, "w") as file:
        for name, values in (datasets | changes).items():
            if values is not None:
                file[name] = values
    return path
