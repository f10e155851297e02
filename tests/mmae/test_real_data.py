"""Real HSC cutouts, from arrays to a catalogue."""

import subprocess
import sys

import numpy as np
from astropy.io import fits

from catalogs import cutouts, schema

COSMOS = (150.1, 2.2)  # deg; the cutouts come without positions of their own


def test_real_cutouts_become_a_catalogue(real_data, bundle, tmp_path, fitsverify, stilts):
    stamps = np.load(real_data / "hsc_stamps64_grizy.npz")
    x, y = stamps["xy"].T * 0.168 / 3600
    n = len(stamps["images"])
    columns = {
        "image": stamps["images"],
        "object_id": np.arange(1, n + 1),
        "ra": COSMOS[0] + x.astype(np.float64),
        "dec": COSMOS[1] + y.astype(np.float64),
    }
    cutouts.write(tmp_path / "hsc.zarr", lambda a, b: columns, n=n, survey="HSC COSMOS")
    command = [sys.executable, "-m", "mmae.infer", "--catalog", "hsc.zarr", "--model", str(bundle)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

    for name in ("hsc.photoz.fits", "hsc.rejects.fits"):
        assert "0 warnings and 0 errors" in fitsverify(tmp_path / name)
    with fits.open(tmp_path / "hsc.photoz.fits") as hdus:
        table = hdus[schema.CATALOGUE].data
        assert len(table) == n == 85
        assert np.isfinite(table["PHOTOZ_POINT"]).all()
        rows = stilts(tmp_path / "hsc.photoz.fits")
        assert [int(row["OBJECT_ID"]) for row in rows] == table["OBJECT_ID"].tolist()
        assert np.allclose([float(row["PHOTOZ_POINT"]) for row in rows], table["PHOTOZ_POINT"])
