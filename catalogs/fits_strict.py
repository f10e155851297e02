"""Strict reading of FITS files: astropy only warns of a bad checksum or a truncated file."""

import contextlib
import gzip
import io
import warnings
import zlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import BinaryIO

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from catalogs import fits_stream
from catalogs.errors import InputRefused, UsageError
from catalogs.regular_file import refuse_special

BLOCK = 2**20
"""Bytes summed at a time, a multiple of 4-byte words."""
GZIP = b"\x1f\x8b"
"""First bytes of a file compressed by gzip."""
DAMAGE = r"(Checksum|Datasum) verification failed|.*truncated|Error validating header"


MALFORMED = (OSError, ValueError, TypeError, LookupError, AttributeError, EOFError, zlib.error)
"""What astropy and gzip raise for bytes that are no FITS."""


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """Yield a file as it was before gzip; such a one is held in memory, where its rows can be found again."""
    with path.open("rb") as file:
        compressed = file.read(len(GZIP)) == GZIP
        file.seek(0)
        yield io.BytesIO(gzip.decompress(file.read())) if compressed else file


@contextlib.contextmanager
def opened(path: Path, used: Container[str] | None = None) -> Iterator[list[fits.hdu.base.ExtensionHDU]]:
    """Open a file and yield its HDUs; damage found now or while they are read raises InputRefused.

    used : names of the HDUs to yield; the others are neither read nor verified.
    """
    refuse_special(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", DAMAGE, AstropyWarning)
            with unpacked(path) as file, fits.open(file) as hdus, _as_stored(file, hdus) as stored:
                selected = [k for k, hdu in enumerate(hdus) if used is None or hdu.name in used]
                for k in selected:
                    if not _intact(file, stored[k]):
                        name = hdus[k].name or "an HDU"
                        raise InputRefused(f"{path} is damaged (checksum of {name}): fetch it again")
                yield [hdus[k] for k in selected]
    except (*MALFORMED, AstropyWarning, fits.VerifyError) as error:
        if isinstance(error, InputRefused | UsageError) or (isinstance(error, OSError) and error.errno):
            raise  # already told, or a disk error
        reason = str(error).partition("\n")[0]
        raise InputRefused(f"{path} is damaged or no FITS file ({reason}): fetch it again") from error


@contextlib.contextmanager
def _as_stored(file: BinaryIO, hdus: fits.HDUList) -> Iterator[fits.HDUList]:
    """Yield the HDUs as they are on disk, images compressed by fpack as tables: their sums are of those."""
    if not any(isinstance(hdu, fits.CompImageHDU) for hdu in hdus):
        yield hdus
        return
    file.seek(0)
    with fits.open(file, disable_image_compression=True) as stored:
        yield stored


def _intact(file: BinaryIO, hdu: fits.hdu.base.ExtensionHDU) -> bool:
    """Whether the bytes of an HDU match its CHECKSUM (they add up to -0), or else its DATASUM.

    (astropy's verify_checksum sums the header as astropy would write it, which may differ from the file.)
    """
    location = hdu.fileinfo()
    if str(hdu.header.get("CHECKSUM", "")).strip():
        start, expected = location["hdrLoc"], 0xFFFFFFFF
    elif datasum := str(hdu.header.get("DATASUM", "")).strip():
        start, expected = location["datLoc"], int(datasum)
    else:
        return True
    file.seek(start)
    remaining, total = location["datLoc"] + location["datSpan"] - start, 0
    while data := file.read(min(remaining, BLOCK)):
        total, remaining = fits_stream.add_words(data, total), remaining - len(data)
    return remaining == 0 and total == expected
