"""Real HSC cutouts, from arrays to a catalogue."""

import csv
import subprocess
import sys

import numpy as np
from astropy.io import fits

from catalogs import cutouts, schema

COSMOS = (150.1, 2.2)  # deg; the cutouts come without positions of their own


def output_of(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=True, **options).stdout


def test_real_cutouts_become_a_catalogue(real_data, bundle, tmp_path, program):
    stamps = np.load(real_data / "hsc_stamps64_grizy.npz")
    x, y = stamps["xy"].T.astype(np.float64) * 0.168 / 3600
    n = len(stamps["images"])
    columns = {
        "image": stamps["images"],
        "object_id": np.arange(1, n + 1),
        "ra": COSMOS[0] + x,
        "dec": COSMOS[1] + y,
    }
    cutouts.write(tmp_path / "hsc.zarr", lambda a, b: columns, n=n, survey="HSC COSMOS")
    flags = ["--catalog", "hsc.zarr", "--model", str(bundle)]
    output_of(sys.executable, "-m", "mmae.infer", *flags, cwd=tmp_path)

    for name in ("hsc.photoz.fits", "hsc.rejects.fits"):
        assert "0 warning(s) and 0 error(s)" in output_of(program("fitsverify"), tmp_path / name)
    with fits.open(tmp_path / "hsc.photoz.fits") as hdus:
        table = hdus[schema.CATALOGUE].data
        assert len(table) == n == 85
        assert np.isfinite(table["PHOTOZ_POINT"]).all()
        source = f"in={tmp_path / 'hsc.photoz.fits'}"
        text = output_of(program("stilts"), "tpipe", source, "omode=out", "ofmt=csv")
        rows = list(csv.DictReader(text.splitlines()))
        assert [int(row["OBJECT_ID"]) for row in rows] == table["OBJECT_ID"].tolist()
        assert np.allclose([float(row["PHOTOZ_POINT"]) for row in rows], table["PHOTOZ_POINT"])
