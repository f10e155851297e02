"""Coadds, cutouts and tables as surveys hand them out, written by astropy alone."""

import gzip
import shutil

import astropy.units as u
import numpy as np
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS

GRIZY = ("HSC-G", "HSC-R", "HSC-I", "HSC-Z", "HSC-Y")
FLUXMAG0 = 63095734448.0194
"""Flux of magnitude 0 in HSC's coadds: a zero point of 27."""
PLANES = ("BAD", "SAT", "INTRP", "CR", "EDGE", "DETECTED", "DETECTED_NEGATIVE", "SUSPECT", "NO_DATA")
"""Bits 0 to 8 of an HSC mask."""
COSMOS = (150.1, 2.2)


def sky(shape, centre=COSMOS, scale=0.168, reference=None):
    """A header with the WCS of an image (rows, columns) about a position, north up."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype = "RA---TAN", "DEC--TAN"
    wcs.wcs.crval = centre
    wcs.wcs.crpix = reference or ((shape[1] + 1) / 2, (shape[0] + 1) / 2)
    wcs.wcs.cd = np.diag([-scale, scale]) / 3600
    return wcs.to_header()


def noise(shape, seed=0, sigma=0.1):
    return np.random.default_rng(seed).normal(0, sigma, shape).astype(np.float32)


def write_hsc(path, image, header, mask=None, variance=None, fluxmag0=FLUXMAG0):
    """A coadd or cutout of the LSST pipelines as HSC hands it out: IMAGE, MASK, VARIANCE."""
    primary = fits.PrimaryHDU()
    primary.header["FLUXMAG0"] = fluxmag0
    hdus = [primary, fits.ImageHDU(image, header, name="IMAGE")]
    if mask is not None:
        hdus.append(fits.ImageHDU(mask.astype(np.int32), header, name="MASK"))
        for bit, name in enumerate(PLANES):
            card = f"MP_{name}" if len(name) < 6 else f"HIERARCH MP_{name}"
            hdus[-1].header[card] = bit
    if variance is not None:
        hdus.append(fits.ImageHDU(variance.astype(np.float32), header, name="VARIANCE"))
    fits.HDUList(hdus).writeto(path)


def write_image(path, image, header, **cards):
    """An image in the primary HDU of a file; one called .gz is compressed, one called .fz as by fpack."""
    packing = {card: cards.pop(card) for card in ("BSCALE", "BZERO", "BLANK") if card in cards}
    header = header.copy()
    header.update(cards)
    if path.suffix == ".fz":
        hdu = fits.CompImageHDU(image, header, compression_type="RICE_1")
        hdu.header.update(packing)
        hdu.writeto(path, checksum=True)
    elif path.suffix == ".gz":
        plain = path.with_suffix("")
        write_image(plain, image, header, **packing)
        with plain.open("rb") as source, gzip.open(path, "wb") as packed:
            shutil.copyfileobj(source, packed)
        plain.unlink()
    else:
        fits.PrimaryHDU(image, header).writeto(path)
        with fits.open(path, mode="update", do_not_scale_image_data=True) as hdus:
            hdus[0].header.update(packing)


def write_table(path, ids, ra, dec, overwrite=False, **columns):
    """A table of objects, of the format that its name ends in."""
    table = Table({"object_id": ids, "ra": ra, "dec": dec} | columns)
    if path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({name: np.asarray(table[name]) for name in table.colnames}), path)
    else:
        table.write(path, overwrite=overwrite)
    return table


def positions(header, x, y):
    """Positions of pixels, counted from 0: ra, dec in degrees."""
    there = WCS(header).pixel_to_world(np.asarray(x, float), np.asarray(y, float)).icrs
    return there.ra.deg, there.dec.deg


def cutout2d(image, header, ra, dec, size):
    """What astropy cuts about a position, NaN beyond the edge."""
    position = SkyCoord(ra * u.deg, dec * u.deg)
    return Cutout2D(image, position, size, wcs=WCS(header), mode="partial", fill_value=np.nan).data


def same_bits(a, b):
    """Whether two float32 arrays are the same to the bit, NaN whatever its bits."""
    a, b = (np.ascontiguousarray(x, np.float32) for x in (a, b))
    return bool(((a.view(np.uint32) == b.view(np.uint32)) | (np.isnan(a) & np.isnan(b))).all())
