"""Finished catalogues as ensembles: what qp reads is what the FITS catalogues have."""

import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import qp
from astropy.io import fits
from finished_files import FIRST_ID, PROVENANCE, around, rows, write

from catalogs.errors import InputRefused, UsageError
from catalogs.products.photoz import pdf_edges
from catalogs.products.qp_ensemble import Qp, main
from catalogs.products.quantiles import LEVELS, cumulative, density_on, polyline
from catalogs.products.schema import CATALOGUE, QUANTILE_LEVELS


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Two catalogues of 101 and 100 objects, of which one each has no p(z)."""
    folder = tmp_path_factory.mktemp("tiles")
    return [
        write(folder / f"tile{seed}.photoz.fits", rows(*around(10, 10, 101 - seed, seed), seed))
        for seed in range(2)
    ]


@pytest.fixture(scope="module")
def expected(tiles):
    joined = np.concatenate([np.array(fits.getdata(path, CATALOGUE)) for path in tiles])
    return joined[np.isfinite(joined["PDF_QUANT"]).all(1)]


def ensemble(tiles, path, **flags):
    main(Qp(tuple(tiles), path, **flags))
    return qp.read(str(path))


def test_qp_reads_the_quantiles_and_all_other_columns(tiles, expected, tmp_path, capsys):
    made = ensemble(tiles, tmp_path / "tile.hdf5")
    assert "as they have no p(z): 2" in capsys.readouterr().out
    assert made.npdf == len(expected) == 199
    assert np.array_equal(made.metadata["quants"].ravel(), LEVELS)
    assert np.array_equal(made.objdata["locs"][:, 1:-1], expected["PDF_QUANT"])
    levels = np.array(QUANTILE_LEVELS)
    assert np.allclose(made.ppf(levels), expected["PDF_QUANT"], rtol=1e-6)
    assert (made.objdata["locs"] >= 0).all()
    assert made.ancil["OBJECT_ID"].min() >= FIRST_ID
    assert np.array_equal(np.sort(made.ancil["OBJECT_ID"]), np.sort(expected["OBJECT_ID"]))
    for name, column in {"zmode": "PHOTOZ_MODE", "zbest": "PHOTOZ_BEST", "Z_SPEC": "Z_SPEC"}.items():
        assert np.array_equal(made.ancil[name], expected[column], equal_nan=True)


def test_a_grid_has_the_density_of_the_polyline(tiles, expected, tmp_path):
    made = ensemble(tiles, tmp_path / "tile.hdf5", grid=401, z_max=4.0)
    z = np.linspace(0, 4, 401)
    assert np.allclose(made.metadata["xvals"].ravel(), z)
    inside = polyline(expected["PDF_QUANT"])[-1] < 4
    assert inside.sum() > 190
    before, after = (cumulative(expected["PDF_QUANT"][inside], z + shift) for shift in (-0.01, 0.01))
    reached = made.cdf(z)[inside]
    assert ((before - 1e-6 < reached) & (reached < after + 1e-6)).all()
    assert np.allclose(np.trapezoid(made.pdf(z), z, axis=1), 1, atol=1e-5)


def test_the_density_of_a_uniform_p_of_z_is_one():
    """Quantiles k + 1/2 of 20 of p = 1 from 0 to 1: F(z) = z, by hand."""
    quantiles = np.array(QUANTILE_LEVELS)[None]
    z = np.array([0.0, 0.3, 1.0, 1.7])
    assert np.allclose(cumulative(quantiles, z), [[0, 0.3, 1, 1]])
    assert np.allclose(density_on(quantiles, np.linspace(0, 0.8, 9)), 1 / 0.8)
    same = np.full((1, 20), 0.5)
    assert np.allclose(cumulative(same, np.array([0.49, 0.6])), [[0, 1]])


def test_provenance_and_what_columns_mean_survive(tiles, tmp_path):
    ensemble(tiles, tmp_path / "tile.hdf5")
    with h5py.File(tmp_path / "tile.hdf5") as file:
        assert file.attrs["PZMODEL"] == PROVENANCE.model_sha256
        assert file.attrs["PZFLAG6"].startswith("ATYPICAL")
        assert [text.split()[0] for text in file.attrs["catalogues"]] == [path.name for path in tiles]
        assert file["ancil/RA"].attrs["unit"] == "deg"
        assert file["ancil/zmedian"].attrs["ucd"] == "src.redshift.phot;stat.median"


def test_tiles_of_one_model_may_differ_in_what_is_of_a_tile(tmp_path):
    """Each tile has a drift of its own; one without rows has none."""
    paths = [
        write(tmp_path / f"{n}.photoz.fits", rows(*around(10, 10, n, n), n), drift=drift)
        for n, drift in ((5, 0.02), (6, 0.03), (0, None))
    ]
    assert ensemble(paths, tmp_path / "tiles.hdf5").npdf == 9  # one of each has no p(z)
    with h5py.File(tmp_path / "tiles.hdf5") as file:
        assert file.attrs["PZMODEL"] == PROVENANCE.model_sha256
        assert "PZCDRIFT" not in file.attrs  # that of one of them would pass for that of all


def test_what_cannot_be_written_is_refused(tiles, tmp_path, capsys):
    point = rows(*around(10, 10, 9, 1), 1)
    point["PDF_QUANT"] = np.nan
    far = rows(*around(10, 10, 9, 2), 2)
    far["PDF_QUANT"] += 5
    falling = rows(*around(10, 10, 9, 2), 2)
    falling["PDF_QUANT"] = falling["PDF_QUANT"][:, ::-1]
    for catalogue, flags, message in [
        (point, {}, "no object of .* has a p"),
        (far, {"grid": 11, "z_max": 4.0}, "is all beyond z = 4"),
        (falling, {}, "never decrease"),
    ]:
        path = write(tmp_path / "t.photoz.fits", catalogue)
        with pytest.raises(InputRefused, match=message):
            main(Qp((path,), tmp_path / "out.hdf5", **flags))
    main(Qp(tuple(tiles), tmp_path / "cut.hdf5", grid=11, z_max=1.0))
    assert "over 1 % of p(z) beyond z = 1," in capsys.readouterr().out
    for flags, message in [
        ({"out": tmp_path / "cut.hdf5"}, "exists"),
        ({"out": tmp_path / "out.fits"}, "must end in .hdf5"),
        ({"out": tmp_path / "out.hdf5", "grid": 1}, "no grid"),
        ({"out": tmp_path / "out.hdf5", "z_max": 1.0}, "the end of a --grid"),
    ]:
        with pytest.raises(UsageError, match=message):
            main(Qp(tuple(tiles), **flags))
    assert {path.name for path in tmp_path.iterdir()} == {"t.photoz.fits", "cut.hdf5"}


def test_a_copy_of_a_catalogue_is_refused(tiles, tmp_path):
    copy = shutil.copy(tiles[0], tmp_path / "copy.photoz.fits")
    with pytest.raises(UsageError, match=r"copy.photoz.fits has the same rows as .*: name one of them"):
        main(Qp((*tiles, copy), tmp_path / "out.hdf5"))
    assert not (tmp_path / "out.hdf5").exists()


def test_one_object_is_an_ensemble_too(tmp_path):
    path = write(tmp_path / "t.photoz.fits", rows(*around(10, 10, 1, 1), 1))
    made = ensemble([path], tmp_path / "one.hdf5")
    assert made.npdf == 1
    assert np.isfinite(made.ppf(0.5)).all()


def test_a_grid_is_of_the_whole_p_of_z_where_it_was_kept(tmp_path):
    """Two narrow peaks, that 20 quantiles would smear: probability 0.02 about z = 0.5, else about 2.2."""
    catalogue = rows(*around(10, 10, 5, 1), 1)
    edges = pdf_edges(80, 4.0)
    pdf = np.zeros((5, 80), np.float32)
    low, high = (int(np.searchsorted(edges, z)) - 1 for z in (0.5, 2.2))
    pdf[:, low], pdf[:, high] = 0.02, 0.98
    path = write(tmp_path / "t.photoz.fits", catalogue, replace(PROVENANCE, pdf_bins=80, pdf_z_max=4.0), pdf)
    made = ensemble([path], tmp_path / "t.hdf5", grid=801)
    assert made.metadata["xvals"].max() == pytest.approx(4.0)
    assert made.npdf == 4  # one has no quantiles
    between = (edges[low + 1] + edges[high]) / 2
    at = np.array([edges[low] - 0.01, between, edges[high + 1] + 0.01])
    assert np.allclose(made.cdf(at), [0, 0.02, 1], atol=1e-3)


def test_a_catalogue_without_checksums_is_refused(tiles, tmp_path):
    """As a program leaves it that does not keep them up."""
    with fits.open(tiles[0]) as hdus:
        del hdus[CATALOGUE].header["DATASUM"]
        hdus.writeto(tmp_path / "t.photoz.fits")
    with pytest.raises(InputRefused, match="has no DATASUM"):
        main(Qp((tmp_path / "t.photoz.fits",), tmp_path / "out.hdf5"))


def test_a_whole_p_of_z_that_is_damaged_is_refused(tmp_path):
    """The checksum of the table is known where its last row was read."""
    pdf = np.full((5, 80), 1 / 80, np.float32)
    kept = replace(PROVENANCE, pdf_bins=80, pdf_z_max=4.0)
    path = write(tmp_path / "t.photoz.fits", rows(*around(10, 10, 5, 1), 1), kept, pdf)
    with fits.open(path) as hdus:
        start = hdus["PDF"].fileinfo()["datLoc"]
    content = bytearray(path.read_bytes())
    content[start : start + 4] = np.array(0.5, ">f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputRefused, match="do not add up to DATASUM"):
        main(Qp((path,), tmp_path / "out.hdf5", grid=11))
    assert not (tmp_path / "out.hdf5").exists()


@pytest.mark.parametrize("lost", [2000, 2880 * 2, 2880 * 4])
def test_a_catalogue_whose_p_of_z_is_cut_short_is_refused(tmp_path, lost):
    pdf = np.full((5, 80), 1 / 80, np.float32)
    kept = replace(PROVENANCE, pdf_bins=80, pdf_z_max=4.0)
    path = write(tmp_path / "t.photoz.fits", rows(*around(10, 10, 5, 1), 1), kept, pdf)
    path.write_bytes(path.read_bytes()[:-lost])
    with pytest.raises(InputRefused, match=r"copy it again"):
        main(Qp((path,), tmp_path / "out.hdf5", grid=11))
    assert not (tmp_path / "out.hdf5").exists()
