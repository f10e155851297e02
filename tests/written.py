"""A catalogue as `mmae infer` writes it, of galaxies with Gaussian p(z)."""

import numpy as np
from astropy.table import Table
from scipy.stats import norm

from catalogs.products.photoz import Part, Provenance, merge, rows
from catalogs.products.schema import QUANTILE_LEVELS
from catalogs.products.screen import REASON_DTYPE

N = 3000
BANDS = ("hsc_g", "hsc_r", "hsc_i", "hsc_z", "hsc_y")


def write(folder, model="a" * 64, first=2**60, narrow=1.0, **changed):
    """A catalogue of galaxies with Gaussian p(z) about the redshifts of truth.csv, with its rejects.

    narrow: how many times too small errors are said to be.
    """
    rng = np.random.default_rng(first % 1000)
    z = rng.uniform(0.1, 1.5, N)
    width = 0.03 * (1 + z)
    best = (z + width * rng.standard_normal(N)).clip(min=0.01)
    width /= narrow
    columns = dict.fromkeys(("PHOTOZ_BEST", "PHOTOZ_POINT", "PHOTOZ_MEAN"), best)
    columns |= {f"PHOTOZ_ERR{p}_MIN": best - k * width for p, k in ((68, 1), (95, 1.96))}
    columns |= {f"PHOTOZ_ERR{p}_MAX": best + k * width for p, k in ((68, 1), (95, 1.96))}
    columns["PDF_QUANT"] = (best[:, None] + width[:, None] * norm.ppf(QUANTILE_LEVELS)).clip(min=0)
    columns["PHOTOZ_RISK_BEST"] = np.full(N, 0.04)
    columns["PHOTOZ_CONF_BEST"] = np.full(N, 0.68)
    columns["OOD_SCORE"] = rng.random(N)
    columns["PHOTOZ_MODE2"] = np.full(N, np.nan)
    columns["Z_SPEC"] = np.full(N, np.nan)
    columns |= changed.pop("columns", {})
    reason = changed.pop("reason", np.full(N, "", REASON_DTYPE))
    flags = changed.pop("flags", np.zeros(N, np.int64))
    observed = changed.pop("observed", np.ones((N, 5), bool))
    ids, ra, dec = first + np.arange(N), 359.9 + 0.3 * rng.random(N), 0.3 * rng.random(N)
    tables = rows(ids, ra % 360, dec, columns, flags, reason, observed)
    folder.mkdir(exist_ok=True)
    part, path = Part(folder, 0), folder / "tile.photoz.fits"
    provenance = Provenance(model, "a <mock> & more", "0.2.0", "c" * 64, (0.0, 2.0), bands=BANDS)
    part.write("b" * 64, provenance, *tables)
    merge([part], "b" * 64, tuple(map(len, tables)), provenance, path, folder / "tile.rejects.fits")
    Table({"id": ids, "z": z}).write(folder / "truth.csv", overwrite=True)
    return path
