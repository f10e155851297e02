"""FITS files opened without forgiveness: astropy only warns of a bad checksum or a cut file."""

import contextlib
import warnings
from collections.abc import Container, Iterator
from pathlib import Path
from typing import BinaryIO

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from catalogs import fits_stream
from catalogs.errors import InputRefused

BLOCK = 2**20
"""Bytes summed up at a time, whole FITS blocks of 4-byte words."""
DAMAGE = r"(Checksum|Datasum) verification failed|.*truncated|Error validating header"


@contextlib.contextmanager
def opened(path: Path, used: Container[str] | None = None) -> Iterator[list[fits.hdu.base.ExtensionHDU]]:
    """The HDUs of a file; what is wrong with it, found now or while they are read, raises InputRefused.

    used : names of the HDUs that are of interest; the others are neither read, summed up nor given.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", DAMAGE, AstropyWarning)
            with path.open("rb") as file, fits.open(file) as hdus:
                found = [hdu for hdu in hdus if used is None or hdu.name in used]
                for hdu in found:
                    if not _intact(file, hdu):
                        what = hdu.name or "an HDU"
                        raise InputRefused(f"{path} is damaged (checksum of {what}): fetch it again")
                yield found
    except (OSError, ValueError, TypeError, KeyError, AstropyWarning, fits.VerifyError) as error:
        if isinstance(error, InputRefused) or (isinstance(error, OSError) and error.errno):
            raise  # said already, or the disk's fault and not the file's
        reason = str(error).partition("\n")[0]
        raise InputRefused(f"{path} is damaged or no FITS file ({reason}): fetch it again") from error


def _intact(file: BinaryIO, hdu: fits.hdu.base.ExtensionHDU) -> bool:
    """Whether the bytes of an HDU are those it got its CHECKSUM for (all add up to -0), or else its DATASUM.

    (astropy's verify_checksum sums up the header as astropy would write it, which need not be as it was.)
    """
    place = hdu.fileinfo()
    if str(hdu.header.get("CHECKSUM", "")).strip():
        start, expected = place["hdrLoc"], 0xFFFFFFFF
    elif datasum := str(hdu.header.get("DATASUM", "")).strip():
        start, expected = place["datLoc"], int(datasum)
    else:
        return True
    file.seek(start)
    left, total = place["datLoc"] + place["datSpan"] - start, 0
    while data := file.read(min(left, BLOCK)):
        total, left = fits_stream.add_words(data, total), left - len(data)
    return left == 0 and total == expected
