"""Names of files by pattern: of coadds, `calexp-{band}-*.fits`; of cutouts, `{object_id}_{band}.fits`."""

import errno
import glob
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path

from catalogs.errors import InputRefused, UsageError

BAND = "{band}"
WILD = re.compile(r"(\*\*/|\*|\?)")
"""What a pattern of coadds has for any text: any folders, and any text or character of a name."""


ZEROS = re.compile(r"0(\d{1,2})d?|")
"""The one format that a column may have in a pattern of cutouts: {object_id:06d}, with zeros in front."""


class Field(str):
    """The text of a column, which takes the formats of ZEROS."""

    def __format__(self, spec: str) -> str:
        zeros = ZEROS.fullmatch(spec)
        return self.zfill(int(zeros[1])) if zeros and zeros[1] else str(self)


def coadds(pattern: str, band: str) -> dict[tuple[str, ...], Path]:
    """Files of a pattern for a band -> by what their names have in place of the wild cards.

    The files of several bands that have the same there are of one patch.
    """
    parts = WILD.split(pattern.replace(BAND, band))
    wild = {"**/": "((?:.*/)?)", "*": "([^/]*)", "?": "([^/])"}
    regex = re.compile("".join(wild.get(part, re.escape(part)) for part in parts))
    found = _files("".join(part if part in wild else glob.escape(part) for part in parts))
    matches = ((regex.fullmatch(name), name) for name in sorted(found))
    return {match.groups(): Path(name) for match, name in matches if match}


def fields(patterns: Sequence[str], bands: Sequence[str]) -> tuple[str, ...]:
    """Columns of the table that patterns of cutouts name, `file_{band}` once a band.

    Raises UsageError where a pattern is no such pattern.
    """
    named: dict[str, None] = {}
    for pattern in patterns:
        for band in bands or ("",):
            try:
                parsed = list(string.Formatter().parse(pattern.replace(BAND, band)))
            except ValueError as error:
                raise UsageError(f"{pattern!r} is no pattern of names ({error})") from error
            for _, name, spec, conversion in parsed:
                if conversion or not ZEROS.fullmatch(spec or ""):
                    raise UsageError(f"{pattern!r} has a format other than zeros in front, {{{name}:06d}}")
                named |= {} if name is None else {name: None}
    if "" in named:
        raise UsageError(f"{patterns[0]!r} has {{}} without the name of a column in it")
    return tuple(named)


def cutout(pattern: str, band: str, texts: Mapping[str, str]) -> Path | None:
    """The file of an object, of whose row `texts` are the columns; None where there is none.

    Raises InputRefused where a pattern with wild cards has more than one.
    """
    escape = glob.escape if WILD.search(pattern) else str
    name = pattern.replace(BAND, band).format_map({name: Field(escape(text)) for name, text in texts.items()})
    if not WILD.search(pattern):
        path = Path(name)
        try:
            return path if path.is_file() else None
        except OSError as error:
            if error.errno == errno.ENAMETOOLONG:  # no file has such a name
                return None
            raise
    found = _files(name)
    if len(found) > 1:
        raise InputRefused(f"{name} is the name of {len(found)} files: leave one of them there")
    return Path(found[0]) if found else None


def _files(pattern: str) -> list[str]:
    """Names of what is no folder, as they begin in the pattern: pathlib would drop a leading `./`."""
    return [name for name in glob.glob(pattern, recursive=True) if not Path(name).is_dir()]  # noqa: PTH207
