"""FITS files opened without forgiveness: astropy only warns of a bad checksum or a cut file."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path

from astropy.io import fits
from astropy.utils.exceptions import AstropyWarning

from catalogs.errors import InputRefused

DAMAGE = r"(Checksum|Datasum) verification failed|.*truncated|Error validating header"


@contextlib.contextmanager
def opened(path: Path) -> Iterator[fits.HDUList]:
    """The HDUs of a file; what is wrong with it, found now or while they are read, raises InputRefused."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", DAMAGE, AstropyWarning)
            with path.open("rb") as file, fits.open(file, checksum=True) as hdus:
                yield hdus
    except (OSError, ValueError, TypeError, KeyError, AstropyWarning, fits.VerifyError) as error:
        if isinstance(error, InputRefused) or (isinstance(error, OSError) and error.errno):
            raise  # said already, or the disk's fault and not the file's
        reason = str(error).partition("\n")[0]
        raise InputRefused(f"{path} is damaged or no FITS file ({reason}): fetch it again") from error
