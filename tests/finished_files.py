"""Finished catalogues of a few objects, as `mmae infer` leaves them."""

import itertools

import numpy as np

from catalogs import fits_stream
from catalogs.products import photoz, schema
from catalogs.products.photoz import Provenance
from catalogs.products.schema import CATALOGUE, QUANTILE_LEVELS

PROVENANCE = Provenance("a" * 64, "GalaxiesML-Spectra", "0.1.0", "b" * 64, (0.01, 4.0), bands=("g", "r"))
FIRST_ID = 2**53 + 1
"""The first integer that float64 does not have."""


def rows(ra, dec, seed):
    """Catalogue rows at (N,) positions, in degrees, of which the fourth has no p(z), and most lack Z_SPEC."""
    rng, n = np.random.default_rng(seed), len(ra)
    quantiles = np.sort(rng.gamma(3, 0.3, (n, len(QUANTILE_LEVELS))), 1).astype(np.float32)
    columns = {
        column.name: rng.uniform(0, 3, n).astype(np.float32)
        for column in schema.columns(CATALOGUE)
        if column.name.startswith(("PHOTOZ_", "OOD")) and column.fits_format == "E"
    }
    columns |= {"PDF_QUANT": quantiles, "Z_SPEC": np.where(rng.random(n) < 0.2, 1, np.nan)}
    columns["IN_TRAINING"] = rng.integers(-1, 3, n)
    for name in ("PHOTOZ_MODE2", "PDF_QUANT"):
        columns[name][3:4] = np.nan
    ids = FIRST_ID + 10_000 * seed + rng.permutation(n)
    observed = rng.random((n, 2)) < 0.9
    return photoz.rows(ids, ra, dec, columns, rng.integers(0, 2, n) << 6, np.full(n, ""), observed)[0]


def write(path, catalogue, provenance=PROVENANCE, pdf=None, drift=None):
    """Write rows as a finished catalogue, with the whole p(z) where provenance has bins; returns its path.

    drift : of its mean colours, which a tile without rows has not
    """
    n, primary = len(catalogue), photoz.primary_header(provenance)
    if drift is not None:
        primary[photoz.COLOUR_DRIFT], primary[photoz.COLOUR_CHANCE] = drift, 0.1
    whole = [] if pdf is None else [pdf.astype(">f4")]
    more = photoz.pdf_tables(provenance, n, whole)
    tables = itertools.chain(photoz.tables(CATALOGUE, n, [catalogue]), more)
    fits_stream.write_tables(path, primary, tables)
    return path


def around(ra, dec, n, seed, size=0.2):
    """Positions of n objects within some degrees of one, on the sphere, also at a pole or at RA 0."""
    rng = np.random.default_rng(seed)
    away, angle = np.radians(size) * np.sqrt(rng.random(n)), rng.uniform(0, 2 * np.pi, n)
    a, b = np.radians([ra, dec])
    centre = np.array([np.cos(a) * np.cos(b), np.sin(a) * np.cos(b), np.sin(b)])
    east = np.array([-np.sin(a), np.cos(a), 0])
    north = np.cross(centre, east)
    aside = np.outer(np.sin(angle), east) + np.outer(np.cos(angle), north)
    x, y, z = (np.cos(away)[:, None] * centre + np.sin(away)[:, None] * aside).T
    return np.degrees(np.arctan2(y, x)) % 360, np.degrees(np.arcsin(z))
