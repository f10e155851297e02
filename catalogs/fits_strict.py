"""FITS files opened without forgiveness: astropy only warns of a bad checksum or a cut file."""

import contextlib
import warnings
from collections.abc import Container, Iterator
from pathlib import Path

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from catalogs.errors import InputRefused

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
                    if not (hdu.verify_checksum() and hdu.verify_datasum()):
                        what = hdu.name or "an HDU"
                        raise InputRefused(f"{path} is damaged (checksum of {what}): fetch it again")
                yield found
    except (OSError, ValueError, TypeError, KeyError, AstropyWarning, fits.VerifyError) as error:
        if isinstance(error, InputRefused) or (isinstance(error, OSError) and error.errno):
            raise  # said already, or the disk's fault and not the file's
        reason = str(error).partition("\n")[0]
        raise InputRefused(f"{path} is damaged or no FITS file ({reason}): fetch it again") from error
