"""Stamps out of coadds, against astropy's Cutout2D, by hand, and where coadds contradict each other."""

import contextlib

import numpy as np
import pytest
from astropy.io import fits
from astropy.nddata import Cutout2D
from astropy.table import Table
from astropy.wcs import WCS
from survey_files import (
    FLUXMAG0,
    GRIZY,
    cutout2d,
    noise,
    positions,
    same_bits,
    sky,
    write_hsc,
    write_image,
    write_table,
)

from catalogs.cutting import coadds, patches
from catalogs.cutting.objects import Objects
from catalogs.cutting.planes import Plane
from catalogs.cutting.source import Wanted
from catalogs.errors import InputRefused
from catalogs.products.screen import screen_images
from catalogs.store.cutouts import open_store
from catalogs.store.manifest import altered_files
from catalogs.store.shard_writer import SerialComm
from mmae import cli

SIZE = 16


def run(folder, *flags, table="objects.csv", size=SIZE):
    arguments = [folder / table, folder / "tile.zarr", f"--size={size}", "--shard-rows=64", *flags]
    return cli.run_command("cutouts", [str(argument) for argument in arguments])


def read(folder, name="tile.zarr"):
    """The store, and its images."""
    store = open_store(folder / name)
    assert not altered_files(folder / name)
    return store, np.asarray(store.array("image")[:])


def rejected(folder):
    table = Table.read(folder / "tile.zarr.rejects.ecsv")
    return dict(zip(table["object_id"].tolist(), table["reason"].tolist(), strict=True))


@pytest.mark.slow
def test_stamps_of_a_real_field_are_those_of_astropy(real_data, tmp_path, capsys):
    field = np.load(real_data / "hsc_field_grizy_191x191.npz")
    header = fits.Header.fromstring(str(field["wcs_header"]))
    for band, image in zip(GRIZY, field["images"], strict=True):
        write_hsc(tmp_path / f"calexp-{band}-8523-3,4.fits", image, header)
    x, y = np.random.default_rng(1).uniform(-8, 199, (2, 150))
    ids = np.arange(150) + 2**60
    ra, dec = positions(header, x, y)
    write_table(tmp_path / "objects.csv", ids, ra, dec, redshift=x / 100, size_i=y)
    flags = "--coadds", tmp_path / "calexp-{band}-*.fits", "--columns", "size_i", "--bands", *GRIZY
    assert run(tmp_path, *flags, size=64) == cli.OK

    store, images = read(tmp_path)
    assert (store.bands, store.zero_point) == (("hsc_g", "hsc_r", "hsc_i", "hsc_z", "hsc_y"), 27.0)
    assert (store.pixel_scale, store.survey) == (0.168, "hsc")
    inside = (x > -0.5) & (x < 190.5) & (y > -0.5) & (y < 190.5)
    assert set(store.column("object_id").tolist()) == set(ids[inside].tolist())
    assert rejected(tmp_path) == dict.fromkeys(ids[~inside].tolist(), "OFF_COADDS")
    edges = 0
    for row, object_id in enumerate(store.column("object_id").tolist()):
        k = object_id - 2**60
        expected = [cutout2d(image, header, ra[k], dec[k], 64) for image in field["images"]]
        assert same_bits(images[row], expected)
        assert store.column("redshift")[row] == pytest.approx(x[k] / 100)
        assert store.column("columns/size_i")[row] == pytest.approx(y[k])
        edges += np.isnan(expected).any()
    assert edges > 50
    screened = screen_images(images, np.zeros(len(images), bool))
    assert ((screened.flags & 1) != 0).sum() > 50  # hidden from the model, and flagged
    for action in ("info", "preview"):
        assert cli.run_command("store", [action, str(tmp_path / "tile.zarr")]) == cli.OK
    assert "columns/" in capsys.readouterr().out


@pytest.fixture
def field(tmp_path):
    """Two bands of one coadd of 100 x 120 pixels, and five objects on it, one of them beside it."""
    header = sky((100, 120))
    images = {band: noise((100, 120), seed) for seed, band in enumerate("gr")}
    x, y = [59.7, 3.2, 118.9, 40.4, 130.0], [49.7, 97.0, 1.0, 50.3, 50.0]
    ra, dec = positions(header, x, y)
    write_table(tmp_path / "objects.csv", np.arange(5), ra, dec)
    return tmp_path, header, images, ra, dec


def matches_astropy(images, store, expected, header, ra, dec, bands="gr"):
    for row, k in enumerate(store.column("object_id").tolist()):
        stamps = [cutout2d(expected[band], header, ra[k], dec[k], SIZE) for band in bands]
        assert same_bits(images[row], stamps), k


@pytest.mark.parametrize("ending", [".fits", ".fits.gz", ".fits.fz"])
@pytest.mark.parametrize("kind", ["float32", "float64", "int16"])
def test_coadds_of_any_kind_are_what_astropy_reads(field, ending, kind):
    folder, header, images, ra, dec = field
    read_back = {}
    for band, image in images.items():
        path = folder / f"coadd-{band}{ending}"
        cards = {"MAGZERO": 27.5}
        if kind == "int16":  # packed, with one pixel BLANK
            image = np.round(image * 1000).astype(np.int16)
            image[50, 60] = -32768
            cards |= {"BLANK": -32768}
            cards |= {} if ending == ".fits.fz" else {"BSCALE": 0.001, "BZERO": 0.5}  # astropy packs no such
        write_image(path, image.astype(kind), header, **cards)
        read_back[band] = fits.getdata(path).astype(np.float32)
    assert (
        run(folder, "--coadds", folder / f"coadd-{{band}}{ending}", "--bands", "g", "r", "--survey=hsc") == 0
    )
    store, stamps = read(folder)
    assert (store.n, store.zero_point, store.bands) == (4, 27.5, ("hsc_g", "hsc_r"))
    matches_astropy(stamps, store, read_back, header, ra, dec)
    assert kind != "int16" or ending.endswith("fz") or abs(np.nanmean(stamps) - 0.5) < 0.02
    assert kind != "int16" or np.isnan(stamps[store.column("object_id").tolist().index(0)]).sum() == 2


def test_an_object_takes_the_patch_in_which_it_lies_deepest(tmp_path):
    """Two patches of 40 x 60 share 20 columns: x = 40 to 59 of the first are 0 to 19 of the second."""
    header = sky((40, 60), reference=(50.5, 20.5))
    second = sky((40, 60), reference=(10.5, 20.5))
    for name, head, level in (("a", header, 1.0), ("b", second, 2.0)):
        for band in "gr":
            write_image(tmp_path / f"{band}-{name}.fits", np.full((40, 60), level), head, MAGZERO=30.0)
    x = np.array([10.0, 47.0, 53.0, 90.0])
    write_table(tmp_path / "objects.csv", np.arange(4), *positions(header, x, np.full(4, 20.0)))
    assert run(tmp_path, "--coadds", tmp_path / "{band}-*.fits", "--bands", "g", "r") == cli.OK
    store, images = read(tmp_path)
    levels = dict(zip(store.column("object_id").tolist(), np.nanmax(images, (1, 2, 3)).tolist(), strict=True))
    assert levels == {0: 1.0, 1: 1.0, 2: 2.0, 3: 2.0}


def test_a_distorted_wcs_of_another_frame_is_followed_as_astropy_does(field):
    """As of cameras: TAN-SIP, FK5; and the seeing that the header states."""
    folder, header, images, ra, dec = field
    header = header.copy()
    header.update({"CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "RADESYS": "FK5", "EQUINOX": 2000.0})
    header.update({"A_ORDER": 2, "B_ORDER": 2, "A_2_0": 3e-3, "B_1_1": -2e-3})
    for band, seeing in (("g", 0.81), ("r", 0.63)):
        write_image(folder / f"{band}.fits", images[band], header, MAGZERO=27.0, SEEING=seeing)
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", "r") == cli.OK
    store, stamps = read(folder)
    undistorted = cutout2d(images["g"], field[1], ra[3], dec[3], SIZE)
    assert not same_bits(undistorted, stamps[store.column("object_id").tolist().index(3), 0])
    matches_astropy(stamps, store, images, header, ra, dec)
    np.testing.assert_allclose(store.column("psf_fwhm"), [[0.81, 0.63]] * store.n, rtol=1e-6)


@pytest.mark.parametrize("frame", ["ICRS", "FK5", "galactic"])
def test_axes_of_a_coadd_may_be_latitude_and_longitude(field, frame):
    """CTYPE1 is DEC, or GLAT; no number of rows is that of columns."""
    folder, header, images, *_ = field
    header = header.copy()
    names = ("GLAT-TAN", "GLON-TAN") if frame == "galactic" else ("DEC--TAN", "RA---TAN")
    header.update({"CTYPE1": names[0], "CTYPE2": names[1]})
    header.update({"CRVAL1": header["CRVAL2"], "CRVAL2": header["CRVAL1"]})
    header.update({"RADESYS": "FK5", "EQUINOX": 2000.0} if frame == "FK5" else {})
    x, y = np.array([20.3, 90.8]), np.array([60.2, 15.7])
    found = WCS(header).pixel_to_world(x, y).icrs
    write_table(folder / "two.csv", np.arange(2), found.ra.deg, found.dec.deg)
    write_image(folder / "g.fits", images["g"], header, MAGZERO=27.0)
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", table="two.csv") == cli.OK
    store, stamps = read(folder)
    for row, k in enumerate(store.column("object_id").tolist()):
        assert same_bits(stamps[row, 0], Cutout2D(images["g"], (x[k], y[k]), SIZE).data)


def test_an_object_without_a_position_is_rejected(field):
    folder, header, images, ra, dec = field
    write_image(folder / "g.fits", images["g"], header, MAGZERO=27.0)
    write_table(
        folder / "objects.csv", np.arange(5), np.where(np.arange(5) == 1, np.nan, ra), dec, overwrite=True
    )
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g") == cli.OK
    assert rejected(folder) == {1: "NO_POSITION", 4: "OFF_COADDS"}


def test_a_patch_may_lack_a_band(field):
    folder, header, images, ra, dec = field
    write_image(folder / "g-1.fits", images["g"], header, MAGZERO=30.0)
    far = sky((100, 120), centre=(160.0, -10.0))
    for band in "gr":
        write_image(folder / f"{band}-2.fits", images[band], far, MAGZERO=30.0)
    assert run(folder, "--coadds", folder / "{band}-*.fits", "--bands", "g", "r") == cli.OK
    store, stamps = read(folder)
    assert np.isnan(stamps[:, 1]).all()
    matches_astropy(stamps[:, :1], store, images, header, ra, dec, "g")


def test_bands_that_no_pattern_tells_apart_are_refused(field, capsys):
    """Else each were a patch of its own, and the objects on both had one band alone."""
    folder, header, images, *_ = field
    for band in "gr":
        write_image(folder / f"coadd-{band}.fits", images[band], header, MAGZERO=27.0, BAND=band)
    assert run(folder, "--coadds", folder / "coadd-*.fits", "--bands", "g", "r") == cli.REFUSED
    assert "are on the same pixels: put {band} in the place of the band" in capsys.readouterr().err


def test_variances_and_masks_become_noise_and_mask(field, capsys):
    """Of the object at (59.7, 49.7), whose stamp begins at (52, 42)."""
    folder, header, images, *_ = field
    mask = {band: np.zeros((100, 120), int) for band in "gr"}
    mask["g"][50, 60] |= 1 << 1  # SAT
    mask["g"][51, 60] |= 1 << 5  # DETECTED, which is not bad
    mask["r"][49, 58] |= 1 << 8  # NO_DATA
    variance = {"g": np.full((100, 120), 0.04), "r": np.full((100, 120), 0.09)}
    variance["g"][42:50, 52:59] = 100.0  # of a source, 56 pixels of 256
    for band in "gr":
        write_hsc(folder / f"{band}.fits", images[band], header, mask[band], variance[band])
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", "r", "--survey=hsc") == cli.OK
    store, stamps = read(folder)
    row = store.column("object_id").tolist().index(0)
    np.testing.assert_allclose(store.column("noise"), [[0.2, 0.3]] * 4, rtol=1e-6)
    assert np.argwhere(store.column("mask")[row]).tolist() == [[8, 8]]
    assert np.argwhere(np.isnan(stamps[row])).tolist() == [[1, 7, 6]]
    assert stamps[row, 0, 8, 8] == images["g"][50, 60]
    hidden, _ = store.images(row, row + 1, size=SIZE)
    assert np.isnan(hidden[0, :, 8, 8]).all()
    assert "noise, mask" in capsys.readouterr().out

    (folder / "tile.zarr").rename(folder / "before.zarr")
    (folder / "tile.zarr.manifest.json").unlink()
    planes = "--bad-planes", "DETECTED", "SAT"
    assert (
        run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", "r", "--survey=hsc", *planes)
        == cli.OK
    )
    assert np.argwhere(read(folder)[0].column("mask")[row]).tolist() == [[8, 8], [9, 8]]


@pytest.mark.parametrize("ending", ["fits", "fits.fz"])
def test_a_bit_that_a_mask_has_not_is_refused(field, capsys, ending):
    """And does not make all of its pixels good."""
    folder, header, images, *_ = field
    write_image(folder / "g.fits", images["g"], header, MAGZERO=27.0)
    mask = np.full((100, 120), 255, np.uint8)
    write_image(folder / f"mask.{ending}", mask, header)
    flags = "--coadds", folder / "{band}.fits", "--bands", "g", "--mask", folder / f"mask.{ending}"
    flags += ("--bad-planes",)
    assert run(folder, *flags, "10") == cli.REFUSED
    assert "has no bit 10: pass --bad-planes with bits below 8" in capsys.readouterr().err
    assert run(folder, *flags, "7") == cli.OK
    assert read(folder)[0].column("mask").any()


@pytest.mark.filterwarnings("error")
def test_a_mask_of_floats_hides_what_it_knows_nothing_of(field):
    folder, header, images, *_ = field
    mask = np.zeros((100, 120))
    mask[50, 60], mask[51, 60], mask[52, 60] = 1, 2, np.nan
    write_image(folder / "g.fits", images["g"], header, MAGZERO=27.0)
    write_image(folder / "mask.fits", mask, header)
    flags = "--mask", folder / "mask.fits", "--bad-planes", "0"
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", *flags) == cli.OK
    store, _ = read(folder)
    row = store.column("object_id").tolist().index(0)
    assert np.argwhere(store.column("mask")[row]).tolist() == [[8, 8], [10, 8]]


def test_bricks_of_the_legacy_surveys(field, capsys):
    """Images and invvar under fpack, and maskbits, of which bit 0 is what is outside of the brick."""
    folder, header, images, ra, dec = field
    invvar = {band: np.full((100, 120), 25.0, np.float32) for band in "gr"}
    invvar["r"][50, 60] = 0
    bits = np.ones((100, 120), np.int16)
    bits[45, 61] |= 1 << 2
    read_back = {}
    for band in "gr":
        name = "legacysurvey-1501p022-{}-{}.fits.fz"
        path = folder / name.format("image", band)
        units = {"MAGZERO": 22.5, "BUNIT": "nanomaggy", "IMTYPE": "image"}
        write_image(path, images[band], header, **units)
        read_back[band] = fits.getdata(path)
        weights = {"BUNIT": "1/nanomaggy^2", "IMTYPE": "invvar"}
        write_image(folder / name.format("invvar", band), invvar[band], header, **weights)
    write_image(folder / "legacysurvey-1501p022-maskbits.fits.fz", bits, header)
    columns = Table.read(folder / "objects.csv")
    columns["PSFSIZE_G"], columns["psfsize_r"], columns["EBV"] = 1.3, 1.1, 0.02
    columns.write(folder / "objects.csv", overwrite=True)
    flags = [
        *("--coadds", folder / "legacysurvey-*-image-{band}.fits.fz", "--bands", "g", "r"),
        *("--ivar", folder / "legacysurvey-*-invvar-{band}.fits.fz"),
        *("--mask", folder / "legacysurvey-*-maskbits.fits.fz"),
    ]
    assert run(folder, *flags) == cli.REFUSED
    assert "planes none (cards MP_NAME): pass --bad-planes" in capsys.readouterr().err
    assert run(folder, *flags, "--bad-planes", "2", "3") == cli.OK
    store, stamps = read(folder)
    row = store.column("object_id").tolist().index(0)
    assert store.zero_point == 22.5
    assert np.argwhere(store.column("mask")[row]).tolist() == [[3, 9]]
    assert np.argwhere(np.isnan(stamps[row])).tolist() == [[1, 8, 8]]
    read_back["r"][50, 60] = np.nan
    matches_astropy(stamps, store, read_back, header, ra, dec)
    np.testing.assert_allclose(store.column("noise"), 0.2, rtol=1e-6)
    np.testing.assert_allclose(store.column("psf_fwhm"), [[1.3, 1.1]] * 4)
    np.testing.assert_allclose(store.column("ebv"), 0.02)


def test_a_cube_of_all_bands(field, real_data):
    folder, header, images, ra, dec = field
    cube = np.stack([images["r"], images["g"]])
    write_image(folder / "cube.fits", cube, header, BANDS="rg", BAND0="r", BAND1="g", SURVEY="LegacySurvey")
    assert run(folder, "--coadds", folder / "cube.fits", "--bands", "g", "r", "--zero-point=22.5") == cli.OK
    matches_astropy(read(folder)[1], read(folder)[0], images, header, ra, dec)


def test_rows_of_pixels_are_read_once(field, monkeypatch):
    """However many objects lie on them; and no more at a time than a block."""
    folder, header, images, *_ = field
    for band in "gr":
        write_image(folder / f"{band}.fits", images[band], header, MAGZERO=27.0)
    x, y = np.random.default_rng(2).uniform(0, [[119], [99]], (2, 3000))
    write_table(folder / "objects.csv", np.arange(3000), *positions(header, x, y), overwrite=True)
    seen = []
    rows = Plane.rows

    def counted(self, hdus, start, stop):
        seen.append((self.path.name, start, stop))
        return rows(self, hdus, start, stop)

    monkeypatch.setattr(Plane, "rows", counted)
    monkeypatch.setattr(coadds, "BLOCK_BYTES", 40 * 4 * 120)  # 40 rows
    flags = "--coadds", folder / "{band}.fits", "--bands", "g", "r", "--survey=hsc", "--shard-rows=3008"
    assert run(folder, *flags) == cli.OK
    for band in "gr":
        spans = [(start, stop) for name, start, stop in seen if name == f"{band}.fits"]
        assert len(spans) == 4
        assert max(stop - start for start, stop in spans) <= 40
        assert sum(stop - start for start, stop in spans) <= 100 + 3 * (SIZE - 1)


def whole_sky(middle):
    """The header of a Hammer-Aitoff map of 400 x 200 pixels, with the middle of the sky at this one in x."""
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix, wcs.wcs.cdelt = ["RA---AIT", "DEC--AIT"], [middle, 100.5], [-0.9, 0.9]
    return wcs.to_header()


def test_objects_are_found_on_a_map_with_corners_beyond_the_sky():
    wcs = WCS(whole_sky(200.5))
    patch = patches.Patch("map", wcs, (200, 400), [], ("map", None), {}, {}, [], {})
    ra, dec = np.array([1.0, 170.0, 190.0, 300.0]), np.array([1.0, 10.0, -60.0, 80.0])
    found, x, y = patches.assign([patch], ra, dec)
    assert (found == 0).all()
    np.testing.assert_allclose(np.stack([x, y]), wcs.all_world2pix(ra, dec, 0))


def test_bands_of_such_a_map_that_are_apart_are_refused(tmp_path, capsys):
    for band, middle in (("g", 200.5), ("r", 203.5)):
        write_image(tmp_path / f"{band}.fits", np.ones((200, 400), "f4"), whole_sky(middle), MAGZERO=27.0)
    write_table(tmp_path / "objects.csv", [1], [1.0], [1.0])
    flags = ("--coadds", tmp_path / "{band}.fits", "--bands", "g", "r", "--survey=hsc")
    assert run(tmp_path, *flags) == cli.REFUSED
    assert "is on other pixels than" in capsys.readouterr().err


REFUSALS = {
    "zero points": ({"r": {"MAGZERO": 25.0}}, (), "g.fits has zero point 27, "),
    "a flag": ({}, ("--zero-point=25",), "has zero point 27, --zero-point says 25: leave the flag out"),
    "no zero point": ({"g": {"MAGZERO": "27"}, "r": {"MAGZERO": ""}}, (), "does not say its zero point"),
    "half of them": ({"r": {"MAGZERO": ""}}, (), "r.fits does not say its zero point"),
    "two in one": ({"g": {"BUNIT": "nJy"}}, (), "has two zero points (MAGZERO 27, BUNIT 31.4)"),
    "Vega": ({"g": {"MAGSYS": "Vega"}}, (), "has magnitudes of Vega"),
    "a scale": ({}, ("--pixel-scale=0.2",), "has pixel scale 0.168, --pixel-scale says 0.2"),
    "other pixels": ({"r": {"CRPIX1": 11.0}}, (), "r.fits is on other pixels than"),
    "sheared pixels": ({"r": {"PC1_1": -4.7133e-5, "PC1_2": 5.61e-7}}, (), "r.fits is on other pixels than"),
    "oblong pixels": ({"g": {"PC1_1": -6e-5}}, (), "g.fits has pixels of 0.216 x 0.168 arcsec: bring"),
    "skewed pixels": (
        {"g": {"PC1_2": 1e-5, "PC2_1": -1e-5}},
        (),
        "g.fits has pixels of 0.204 x 0.132 arcsec",
    ),
    "no WCS": ({"g": {"CTYPE1": "", "CTYPE2": ""}}, (), "g.fits has no WCS"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_coadds_that_contradict_each_other_are_refused(field, capsys, case):
    folder, header, images, *_ = field
    cards, flags, sentence = REFUSALS[case]
    for band in "gr":
        write_image(folder / f"{band}.fits", images[band], header, **{"MAGZERO": 27.0} | cards.get(band, {}))
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", "r", *flags) == cli.REFUSED
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert {path.name for path in folder.iterdir()} == {"objects.csv", "g.fits", "r.fits"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--bands", "g", "i"), "no file is called {folder}/i.fits (--coadds)"),
        (("--bands", "g", "r", "--mask", "no-{band}.fits"), "no file is called no-g.fits (--mask)"),
    ],
)
def test_a_band_or_a_mask_that_no_file_has_is_refused(field, capsys, flags, sentence):
    """Misspelt, each object would lack it, and nobody would know."""
    folder, header, images, *_ = field
    for band in "gr":
        write_image(folder / f"{band}.fits", images[band], header, MAGZERO=27.0)
    assert run(folder, "--coadds", folder / "{band}.fits", *flags) == cli.REFUSED
    assert sentence.format(folder=folder) in capsys.readouterr().err


def test_a_band_that_no_hdu_has_is_refused(field, capsys):
    folder, header, images, *_ = field
    write_image(
        folder / "cube.fits", np.stack([*images.values()]), header, BAND0="g", BAND1="r", MAGZERO=27.0
    )
    assert run(folder, "--coadds", folder / "cube.fits", "--bands", "g", "i") == cli.REFUSED
    assert "no image is of the band i" in capsys.readouterr().err


def test_a_place_that_cannot_be_written_to_is_told_at_once(field, capsys):
    folder, *_ = field
    arguments = "--coadds", str(folder / "none-{band}.fits"), "--bands", "g"
    for output, sentence in {
        folder / "objects.csv" / "a.zarr": f"as {folder}/objects.csv is no folder to write to",
        "s3://bucket/a.zarr": "s3://bucket/a.zarr is on S3, but output must be in a file system",
    }.items():
        assert cli.run_command("cutouts", [str(folder / "objects.csv"), str(output), *arguments]) == cli.USAGE
        assert sentence in capsys.readouterr().err


@pytest.mark.parametrize("way", ["--coadds", "--files"])
def test_a_card_that_cannot_be_parsed_says_nothing(field, capsys, way):
    """As a comma in its number; one that nobody needs does no harm."""
    folder, header, images, *_ = field
    write_image(folder / "g.fits", images["g"], header, MAGZERO=27.0, OTHER=0.5)
    whole = (folder / "g.fits").read_bytes()
    assert whole.count(b"=                 27.0 ") == 1
    (folder / "g.fits").write_bytes(
        whole.replace(b"=                 27.0 ", b"=                 27,0 ").replace(b" 0.5 ", b" 0,5 ")
    )
    flags = way, folder / "{band}.fits", "--bands", "g"
    assert run(folder, *flags) == cli.REFUSED
    assert "does not say its zero point (AB mag of flux 1): pass --zero-point" in capsys.readouterr().err
    assert run(folder, *flags, "--zero-point=27") == cli.OK


def test_tiles_that_do_not_decompress_are_refused(field, capsys):
    """In a file without checksums, which cfitsio finds, and tells by an error of its own."""
    folder, header, images, *_ = field
    hdu = fits.CompImageHDU(np.round(images["g"] * 1e4).astype(np.int32), header, compression_type="RICE_1")
    hdu.header["MAGZERO"] = 27.0
    hdu.writeto(folder / "g.fits.fz")
    with fits.open(folder / "g.fits.fz", disable_image_compression=True) as hdus:
        start = hdus[1].fileinfo()["datLoc"]
    content = bytearray((folder / "g.fits.fz").read_bytes())
    lengths = np.frombuffer(content, ">i4", 2 * 100, start).copy()
    lengths[::2] = 9  # bytes of each tile
    content[start : start + lengths.nbytes] = lengths.tobytes()
    (folder / "g.fits.fz").write_bytes(content)
    assert run(folder, "--coadds", folder / "{band}.fits.fz", "--bands", "g") == cli.REFUSED
    assert "g.fits.fz[1] cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("cut", [1000, 2880])
def test_a_truncated_coadd_is_refused(field, capsys, cut):
    folder, header, images, *_ = field
    for band in "gr":
        write_hsc(folder / f"{band}.fits", images[band], header, np.zeros((100, 120)))
    whole = (folder / "r.fits").read_bytes()
    (folder / "r.fits").write_bytes(whole[:-cut])
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", "r") == cli.REFUSED
    assert "r.fits is damaged" in capsys.readouterr().err


def test_a_coadd_that_changes_meanwhile_is_refused(field, capsys, monkeypatch):
    folder, header, images, *_ = field
    for band in "gr":
        write_image(folder / f"{band}.fits", images[band], header, MAGZERO=27.0)
    plan = coadds.open_coadds

    def plan_and_change(*arguments):
        source = plan(*arguments)
        (folder / "r.fits").unlink()
        write_image(folder / "r.fits", images["g"], header, MAGZERO=27.0, OBJECT="other")
        return source

    monkeypatch.setattr(coadds, "open_coadds", plan_and_change)
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g", "r") == cli.REFUSED
    assert "r.fits was changed while it was being read" in capsys.readouterr().err


def test_a_coadd_that_changes_while_it_is_open_is_refused(field):
    """Written anew in its place: what follows is of the other, and so may be some of what was read."""
    folder, header, images, ra, dec = field
    write_image(folder / "g.fits", images["g"], header, MAGZERO=27.0)
    objects = Objects(np.arange(5), np.arange(5), ra, dec)
    wanted = Wanted(("g",), "", SIZE, None, None, ())
    source = coadds.open_coadds(
        wanted, objects, str(folder / "{band}.fits"), {}, SerialComm(), lambda items, what: items
    )
    with contextlib.closing(source):
        source.cut(0, 2)
        with (folder / "g.fits").open("r+b") as file:
            file.seek(2880)
            file.write(b"\1" * 2880)
        with pytest.raises(InputRefused, match="was changed while it was being read"):
            source.cut(2, 4)


def test_objects_that_are_all_elsewhere_are_refused_and_listed(field, capsys):
    folder, _, images, *_ = field
    write_hsc(folder / "g.fits", images["g"], sky((100, 120), centre=(10.0, 60.0)), fluxmag0=FLUXMAG0)
    assert run(folder, "--coadds", folder / "{band}.fits", "--bands", "g") == cli.REFUSED
    error = capsys.readouterr().err
    assert "none of the 5 objects can be cut: 5 OFF_COADDS" in error
    assert "begins with 0 at 150.1" in error
    assert "g.fits is at 10.0000 +60.0000" in error
    assert rejected(folder) == dict.fromkeys(range(5), "OFF_COADDS")
    assert not (folder / "tile.zarr").exists()
