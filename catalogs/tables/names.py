"""Names of columns that tables of objects have, and which of them is meant."""

from collections.abc import Sequence
from typing import NamedTuple

from catalogs.errors import InputRefused, UsageError

REDSHIFT = (
    ("z_spec", "zspec", "spec_z", "specz", "z_sp", "zsp", "specz_redshift", "redshift_spec", "spec_redshift"),
    ("z_true", "ztrue", "true_z", "redshift_true", "true_redshift"),
    ("redshift",),
    ("z",),
)
"""Names of redshifts, in any case, by how plainly they say so. `z` comes last: beside a plainer name it is
often the z-band magnitude."""
ID = (
    *("object_id", "objectid", "match_objectid", "coadd_object_id", "id", "objid", "obj_id"),
    *("source_id", "sourceid", "galaxy_id", "targetid", "target_id"),
)
"""Names of ids, in any case, in the order in which they are tried. Those of Rubin's DP0.2: match_objectId is
the object's, id the galaxy's in the simulation."""
POSITION = (
    *(("ra", "dec"), ("ra", "decl"), ("target_ra", "target_dec"), ("ra_corrected", "dec_corrected")),
    *(("_raj2000", "_dej2000"), ("raj2000", "dej2000"), ("ra_icrs", "de_icrs"), ("plug_ra", "plug_dec")),
    *(("specz_ra", "specz_dec"), ("coord_ra", "coord_dec"), ("alpha_j2000", "delta_j2000")),
    *(
        ("raj2000", "decj2000"),
        ("ra_deg", "dec_deg"),
        ("radeg", "decdeg"),
        ("right_ascension", "declination"),
    ),
)
"""Names of positions, in any case, in the order in which they are looked for."""
POSITION_FLAGS = ("--ra-column", "--dec-column")
SPECTYPE = ("spectype", "class", "spec_class")
"""Names of columns with STAR, GALAXY or QSO, in DESI, SDSS and others, in any case."""
QUALITY = {
    "zwarn": "{} == 0",
    "zwarning": "{} == 0",
    "specz_flag_homogeneous": "{}",
    "confidence_level": "{} >= 95",
    "zcat_primary": "{}",
    "cc": "{} >= 3",
    "z_qual": "{} >= 3",
    "zquality": "{} >= 3",
    "zflg": "{} >= 3",
}
"""Columns that say how sure a redshift is, in DESI, SDSS, HSC, COSMOS, HELP, DEEP2 and VIPERS; a cut."""


class Guess(NamedTuple):
    """A column, and those that were not taken."""

    name: str
    others: tuple[str, ...]
    certain: bool
    """Whether a flag named it."""


def find(names: Sequence[str], wanted: str) -> str | None:
    """The column `wanted`, else the first that differs in case alone; None: there is none."""
    if wanted in names:
        return wanted
    return next((name for name in names if name.lower() == wanted.lower()), None)


def named(path: object, names: Sequence[str], wanted: str, flag: str) -> str:
    """The column `wanted` of the table, in any case. Raises UsageError where there is none."""
    found = find(names, wanted)
    if found is None:
        raise UsageError(f"{path} has no column {wanted} ({flag}); it has {listed(names)}")
    return found


def redshift(
    path: object, names: Sequence[str], wanted: str | None, flag: str = "--z-column"
) -> Guess | None:
    """The column of the redshift: `wanted`, which `flag` names, or the one of the plainest name.

    None where there is none. Raises InputRefused where two are as plain.
    """
    if wanted:
        return Guess(named(path, names, wanted, flag), (), True)
    found = [[name for name in names if name.lower() in group] for group in REDSHIFT]
    candidates = [name for group in found for name in group]
    best = next((group for group in found if group), [])
    if len(best) > 1:
        raise InputRefused(f"{path} has redshifts in {' and '.join(best)}: pass one of them as {flag}")
    return Guess(best[0], tuple(name for name in candidates if name != best[0]), False) if best else None


def ids(path: object, names: Sequence[str], wanted: str | None, flag: str = "--id-column") -> list[str]:
    """Columns that may be the id, the likeliest first: only `wanted`, which `flag` names, if it is given."""
    if wanted:
        return [named(path, names, wanted, flag)]
    return sorted((name for name in names if name.lower() in ID), key=lambda name: ID.index(name.lower()))


def positions(
    path: object, names: Sequence[str], ra: str | None, dec: str | None, flags: tuple[str, str]
) -> list[tuple[str, str]]:
    """Pairs of columns that may be the position, the likeliest first: only that which is wanted, if it is."""
    if bool(ra) != bool(dec):
        raise UsageError(f"{flags[0]} and {flags[1]} go together: pass both, or neither")
    if ra and dec:
        return [(named(path, names, ra, flags[0]), named(path, names, dec, flags[1]))]
    lower = {name.lower(): name for name in reversed(names)}
    return [(lower[x], lower[y]) for x, y in POSITION if x in lower and y in lower]


def quality_cut(names: Sequence[str]) -> str:
    """A cut by the first column that says how sure a redshift is, for --where; empty: there is none."""
    return next((QUALITY[name.lower()].format(name) for name in names if name.lower() in QUALITY), "")


def listed(names: Sequence[str], most: int = 12) -> str:
    """The first names of a table, as many as a sentence holds."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
