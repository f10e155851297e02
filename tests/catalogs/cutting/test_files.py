"""Cutouts in files: real ones, those of surveys in their layouts, and those with something wrong."""

import gzip

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table
from survey_files import (
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

from catalogs.cutting.files import begin
from catalogs.store.cutouts import open_store
from catalogs.store.manifest import altered_files
from mmae import cli

SIZE = 16
BIG = 2**53 + 1
"""The least id that floating point cannot hold."""


def run(folder, *flags, size=SIZE):
    arguments = [folder / "objects.csv", folder / "a.zarr", f"--size={size}", "--shard-rows=64", *flags]
    return cli.run_command("cutouts", [str(argument) for argument in arguments])


def read(folder):
    """Images and rows of the store by id."""
    store = open_store(folder / "a.zarr")
    assert not altered_files(folder / "a.zarr")
    ids = store.column("object_id").tolist()
    return store, dict(zip(ids, np.asarray(store.array("image")[:]), strict=True))


def rejected(folder):
    table = Table.read(folder / "a.zarr.rejects.ecsv")
    return {row["object_id"]: (row["reason"], row["detail"]) for row in table}


@pytest.mark.slow
def test_real_stamps_come_through_to_the_bit(real_data, tmp_path):
    """85 cutouts of HSC in five bands, as its cutout service names them."""
    with np.load(real_data / "hsc_stamps64_grizy.npz") as stamps:
        images, sigma = stamps["images"], stamps["sky_sigma"]
    ids = np.arange(85) + BIG
    ra, dec = 150.1 + np.arange(85) / 100, np.full(85, 2.2)
    for k, stamp in enumerate(images):
        for band, image, level in zip(GRIZY, stamp, sigma[k], strict=True):
            header = sky(image.shape, (ra[k], dec[k]))
            variance = np.full(image.shape, level**2)
            write_hsc(tmp_path / f"{k}-cutout-{band}-9813-pdr3_dud.fits", image, header, variance=variance)
    write_table(tmp_path / "objects.csv", ids, ra, dec)
    pattern = tmp_path / "{row}-cutout-{band}-*.fits"
    assert run(tmp_path, "--files", pattern, "--bands", *GRIZY, size=64) == cli.OK
    store, found = read(tmp_path)
    assert (store.n, store.pixel_scale, store.zero_point) == (85, 0.168, 27.0)
    assert store.bands == ("hsc_g", "hsc_r", "hsc_i", "hsc_z", "hsc_y")
    assert all(same_bits(found[ids[k]], images[k]) for k in range(85))
    np.testing.assert_allclose(store.column("noise"), sigma, rtol=1e-5)
    assert not (tmp_path / "a.zarr.rejects.ecsv").exists()


@pytest.fixture
def table(tmp_path):
    """Twelve objects whose cutouts of two bands are whole: images by id and band."""
    ids = [*range(1, 12), BIG]
    ra, dec = 150.0 + np.arange(12) / 50, np.full(12, 2.2)
    write_table(tmp_path / "objects.csv", ids, ra, dec, redshift=np.arange(12) / 10)
    images = {}
    for k, object_id in enumerate(ids):
        for band in "gr":
            images[object_id, band] = noise((SIZE, SIZE), seed=2 * k + (band == "r"))
            header = sky((SIZE, SIZE), (ra[k], dec[k]))
            write_image(tmp_path / f"{object_id}_{band}.fits", images[object_id, band], header, MAGZERO=27.0)
    return tmp_path, images, dict(zip(ids, ra, strict=True))


def test_traps_end_in_their_rows_and_in_their_rejects(table, capsys):
    folder, images, ra = table
    files = {(k, band): folder / f"{k}_{band}.fits" for k, band in images}
    heads = {k: sky((SIZE, SIZE), (ra[k], 2.2)) for k in ra}

    def anew(k, band, image, header=None, **cards):
        files[k, band].unlink()
        write_image(files[k, band], image, header or heads[k], **{"MAGZERO": 27.0} | cards)

    files[2, "r"].unlink()  # one band
    for band in "gr":
        files[3, band].unlink()  # all of them
    anew(4, "g", images[4, "g"], sky((SIZE, SIZE), (ra[4], 2.2), scale=0.2))
    anew(5, "r", images[5, "r"], MAGZERO=25.0)
    files[6, "g"].write_bytes(files[6, "g"].read_bytes()[:3000])
    edge = images[7, "g"].copy()
    edge[:, 12:] = np.nan
    anew(7, "g", edge)
    packed = np.round(images[8, "g"] * 100).astype(np.int16)
    packed[0, 0] = -32768
    anew(8, "g", packed, BSCALE=0.01, BZERO=1.0, BLANK=-32768)
    anew(9, "g", images[9, "g"], sky((SIZE, SIZE), (ra[9] + 1, 2.2)))  # of another object
    whole = files[10, "g"].read_bytes()
    files[10, "g"].write_bytes(whole[:-100] + b"\0" * 100)
    with fits.open(files[11, "g"], mode="append") as hdus:  # two images, which no name tells apart
        hdus.append(fits.ImageHDU(images[11, "g"]))
    capsys.readouterr()
    assert run(folder, "--files", folder / "{object_id}_{band}.fits", "--bands", "g", "r") == cli.OK

    store, found = read(folder)
    assert set(found) == {1, 2, 7, 8, 10, BIG}
    assert same_bits(found[1], [images[1, "g"], images[1, "r"]])
    assert same_bits(found[BIG], [images[BIG, "g"], images[BIG, "r"]])
    assert same_bits(found[2], [images[2, "g"], np.full((SIZE, SIZE), np.nan)])
    assert same_bits(found[7], [edge, images[7, "r"]])
    unpacked = packed * 0.01 + 1.0
    unpacked[0, 0] = np.nan
    np.testing.assert_allclose(found[8][0], unpacked, rtol=1e-6)
    by_id = dict(zip(store.column("object_id").tolist(), store.column("redshift").tolist(), strict=True))
    assert by_id == pytest.approx({1: 0.0, 2: 0.1, 7: 0.6, 8: 0.7, 10: 0.9, BIG: 1.1})
    reasons = rejected(folder)
    assert {k: reason for k, (reason, _) in reasons.items()} == {
        **{3: "NO_FILE", 4: "PIXEL_SCALE", 5: "ZERO_POINT", 6: "DAMAGED", 9: "OFF_FILE", 11: "REFUSED"},
    }
    assert reasons[4][1] == f"{files[4, 'g']} has pixel scale 0.2, the store 0.168 (arcsec)"
    assert reasons[5][1] == f"{files[5, 'r']} has zero point 25, the store 27 (AB mag of flux 1)"
    assert f"{files[6, 'g']} is damaged or no FITS file" in reasons[6][1]
    assert "two image planes of the band g" in reasons[11][1]
    assert "1 NO_FILE (it has no file in any band), 1 DAMAGED" in capsys.readouterr().out


@pytest.mark.parametrize("ending", [".fits.gz", ".fits.fz"])
def test_compressed_cutouts_and_damage_to_them(table, ending):
    folder, images, ra = table
    paths = {}
    for k, band in images:
        (folder / f"{k}_{band}.fits").unlink()
        paths[k, band] = folder / f"{k}_{band}{ending}"
        write_image(paths[k, band], images[k, band], sky((SIZE, SIZE), (ra[k], 2.2)), MAGZERO=27.0)
    expected = {key: fits.getdata(path) for key, path in paths.items()}
    data = paths[2, "g"].read_bytes()
    paths[2, "g"].write_bytes(data[: len(data) // 2])
    changed = bytearray(paths[3, "r"].read_bytes())
    changed[-3000 if ending.endswith("fz") else len(changed) // 2] ^= 0xFF
    paths[3, "r"].write_bytes(changed)
    assert run(folder, "--files", folder / f"{{object_id}}_{{band}}{ending}", "--bands", "g", "r") == cli.OK
    _, found = read(folder)
    assert {k: reason for k, (reason, _) in rejected(folder).items()} == {2: "DAMAGED", 3: "DAMAGED"}
    for k in {*ra} - {2, 3}:
        assert same_bits(found[k], [expected[k, "g"], expected[k, "r"]])


def test_a_name_that_two_files_have_rejects_the_object(table):
    folder, *_ = table
    for name in ("1_g_old.fits", "1_g_new.fits"):
        (folder / name).write_bytes((folder / "1_g.fits").read_bytes())
    assert run(folder, "--files", folder / "{object_id}_{band}*.fits", "--bands", "g", "r") == cli.OK
    reason, detail = rejected(folder)[1]
    assert reason == "REFUSED"
    assert "is the name of 3 files: leave one of them there" in detail
    assert len(rejected(folder)) == 1


@pytest.mark.parametrize("pattern", ["{name}_{band}.fits", "{name}_{band}*.fits"])
def test_a_name_that_no_file_can_have_rejects_the_object(table, pattern):
    folder, _, ra = table
    names = ["n" * 300, *map(str, [*ra][1:])]
    write_table(folder / "objects.csv", [*ra], [*ra.values()], np.full(12, 2.2), overwrite=True, name=names)
    assert run(folder, "--files", folder / pattern, "--bands", "g", "r") == cli.OK
    assert {k: reason for k, (reason, _) in rejected(folder).items()} == {1: "NO_FILE"}


def test_a_pattern_that_tells_no_object_from_another_is_refused_with_the_reason(table, capsys):
    folder, *_ = table
    assert run(folder, "--files", folder / "*_{band}.fits", "--bands", "g") == cli.REFUSED
    assert "can be read (" + str(folder / "*_g.fits") + " is the name of 12 files" in capsys.readouterr().err


@pytest.mark.parametrize("spec", ["06d", "06"])
def test_zeros_in_front_of_ids(table, spec):
    folder, images, ra = table
    for k, band in images:
        (folder / f"{k}_{band}.fits").rename(folder / f"{k:06d}_{band}.fits")
    pattern = folder / f"{{object_id:{spec}}}_{{band}}.fits"
    assert run(folder, "--files", pattern, "--bands", "g") == cli.OK
    assert set(read(folder)[1]) == {*ra}


def test_a_gzip_of_half_a_file_is_damaged(table):
    folder, *_ = table
    path = folder / "1_g.fits"
    path.write_bytes(gzip.compress(path.read_bytes()[:3000]))
    assert run(folder, "--files", folder / "{object_id}_{band}.fits", "--bands", "g", "r") == cli.OK
    assert rejected(folder)[1][0] == "DAMAGED"


def test_larger_and_smaller_cutouts_are_cut_about_the_object(tmp_path):
    """To the bit as astropy does, also where a file ends with the survey and its object is off its middle."""
    shapes = {1: (40, 40), 2: (41, 37), 3: (16, 9), 4: (12, 40)}
    at = {1: (19.7, 20.2), 2: (17.0, 25.4), 3: (2.3, 7.6), 4: (20.1, 9.8)}
    images, heads, places = {}, {}, []
    for k, shape in shapes.items():
        images[k], heads[k] = noise(shape, k), sky(shape)
        write_image(tmp_path / f"{k}_g.fits", images[k], heads[k], MAGZERO=27.0)
        places.append(positions(heads[k], *at[k]))
    ra, dec = np.array(places).T
    write_table(tmp_path / "objects.csv", list(shapes), ra, dec)
    assert run(tmp_path, "--files", tmp_path / "{object_id}_{band}.fits", "--bands", "g") == cli.OK
    _, found = read(tmp_path)
    for k in shapes:
        assert same_bits(found[k][0], cutout2d(images[k], heads[k], ra[k - 1], dec[k - 1], SIZE)), k


@pytest.mark.parametrize(
    ("position", "length", "first"),
    [
        (31.5, 64, 0),
        (32.4, 64, 0),
        (30.9, 64, 0),
        (34.0, 64, 2),
        (50.0, 101, 18),
        (10.0, 64, -22),
        (20, 101, -12),
    ],
)
def test_where_a_stamp_of_64_pixels_begins(position, length, first):
    assert begin(position, length, length // 2 - 32, 64) == first


def layout_of_hdus(path, images, header):
    """HDUs named by band, with a variance each, as written by hand."""
    hdus = [fits.PrimaryHDU()]
    for band, image in images.items():
        hdus.append(fits.ImageHDU(image, header, name=band))
        hdus.append(fits.ImageHDU(np.full(image.shape, 0.04, np.float32), header, name=f"{band}_VARIANCE"))
    fits.HDUList(hdus).writeto(path)


def layout_of_the_legacy_viewer(path, images, header):
    """A cube with BANDS, BAND0, ... of its default output."""
    write_image(path, np.stack([images["r"], images["g"]]), header, BANDS="rg", BAND0="r", BAND1="g")


def layout_of_the_legacy_viewer_with_subimage(path, images, header):
    """Image and invvar a band, told by IMAGETYP and BAND."""
    hdus = [fits.PrimaryHDU()]
    for band, image in images.items():
        for kind, values in (("image", image), ("invvar", np.full_like(image, 25))):
            hdus.append(fits.ImageHDU(values, header))
            hdus[-1].header["BAND"], hdus[-1].header["IMAGETYP"] = band, kind
    fits.HDUList(hdus).writeto(path)


def layout_of_a_bare_cube(path, images, header):
    """Planes in the order of --bands."""
    fits.PrimaryHDU(np.stack([images["g"], images["r"]]).astype(">f8"), header).writeto(path)


LAYOUTS = {
    layout_of_hdus: True,
    layout_of_the_legacy_viewer: False,
    layout_of_the_legacy_viewer_with_subimage: True,
    layout_of_a_bare_cube: False,
}
"""Layout -> whether it tells the noise."""


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.__name__)
def test_files_that_hold_all_bands(tmp_path, layout):
    header, ids = sky((SIZE, SIZE)), [5, 6]
    expected = {}
    for k in ids:
        images = {band: noise((SIZE, SIZE), 2 * k + (band == "r")) for band in "gr"}
        layout(tmp_path / f"object-{k}.fits", images, header)
        expected[k] = images["g"], images["r"]
    names = [f"object-{k}.fits" for k in ids]
    write_table(tmp_path / "objects.csv", ids, [150.1, 150.1], [2.2, 2.2], filename=names)
    flags = "--bands", "g", "r", "--zero-point=22.5", "--survey=decam"
    assert run(tmp_path, "--files", tmp_path / "{filename}", *flags) == cli.OK
    store, found = read(tmp_path)
    assert (store.bands, store.zero_point, store.survey) == (("decam_g", "decam_r"), 22.5, "decam")
    assert all(same_bits(found[k], expected[k]) for k in ids)
    assert store.has("noise") == LAYOUTS[layout]
    if LAYOUTS[layout]:
        np.testing.assert_allclose(store.column("noise"), 0.2, rtol=1e-6)


def test_rubin_cutouts_with_masks_in_nanojansky(tmp_path):
    """ExposureF files as the cutout service (SODA) writes them, here without a WCS; 64-bit ids in Parquet."""
    ids = np.array([3312345678901234567, 3312345678901234568])
    for k, object_id in enumerate(ids):
        for band in "gr":
            path = tmp_path / f"{object_id}_{band}.fits"
            mask = np.zeros((SIZE, SIZE))
            mask[3, 4 + k] = 1 << 3  # CR
            write_hsc(
                path, noise((SIZE, SIZE), k), fits.Header({"BUNIT": "nJy"}), mask, np.full((SIZE, SIZE), 4)
            )
            with fits.open(path, mode="update") as hdus:
                del hdus[0].header["FLUXMAG0"]
    write_table(tmp_path / "objects.parquet", ids, [10.0, 11.0], [-20.0, -20.0], g_psf_fwhm=[0.9, 0.8])
    flags = ["--files", tmp_path / "{object_id}_{band}.fits", "--bands", "g", "r", "--survey=rubin"]
    arguments = [tmp_path / "objects.parquet", tmp_path / "a.zarr", *flags, "--size=16", "--pixel-scale=0.2"]
    assert cli.run_command("cutouts", list(map(str, arguments))) == cli.OK
    store, _ = read(tmp_path)
    assert (store.zero_point, store.bands) == (31.4, ("lsst_g", "lsst_r"))
    assert store.column("object_id").tolist() == ids.tolist()
    assert [np.argwhere(mask).tolist() for mask in store.column("mask")] == [[[3, 4]], [[3, 5]]]
    np.testing.assert_allclose(store.column("noise"), 2.0)
    np.testing.assert_allclose(store.column("psf_fwhm"), [[0.9, np.nan], [0.8, np.nan]])


@pytest.mark.parametrize(
    ("flags", "code", "sentence"),
    [
        (["--zero-point=25"], cli.REFUSED, "has zero point 27, --zero-point says 25: leave the flag out"),
        (["--pixel-scale=0.2"], cli.REFUSED, "has pixel scale 0.168, --pixel-scale says 0.2"),
        (["--files", "{nothing}.fits"], cli.USAGE, "has no column nothing (in a pattern of names); it has"),
        (["--files", "{}.fits"], cli.USAGE, "without the name of a column"),
        (["--files", "no-{object_id}.fits"], cli.REFUSED, "none of the 12 objects has a file"),
        (["--coadds", "x.fits"], cli.USAGE, "say either of what coadds to cut"),
        (["--bands", "g", "g"], cli.USAGE, "name one band twice"),
        (["--size", "4"], cli.USAGE, "--size must be from 8"),
        (["--columns", "mag"], cli.USAGE, "has no column mag (--columns); it has object_id, ra, dec"),
        (["--files", "{object_id:5.2f}.fits"], cli.USAGE, "a format other than zeros in front"),
        (["--files", "{object_id!r}.fits"], cli.USAGE, "a format other than zeros in front"),
        (["--bands", "g", "r", "i"], cli.REFUSED, "no image is of the band i"),
        (["--mask", "no-{object_id}.fits"], cli.REFUSED, "no object has a file no-{object_id}.fits (--mask)"),
        (["--where", "mag < 25"], cli.USAGE, "--where 'mag < 25': the table has no column mag"),
        (["--where", "ra > 400"], cli.REFUSED, "has no row where ra > 400"),
        (["--columns", "a/b"], cli.USAGE, "--columns a/b is no name of an array"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(table, capsys, flags, code, sentence):
    folder, *_ = table
    before = set(folder.iterdir())
    defaults = {"--files": [folder / "{object_id}_{band}.fits"], "--bands": ["g", "r"]}
    given = [flag for name, values in defaults.items() if name not in flags for flag in (name, *values)]
    assert run(folder, *given, *flags) == code
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert set(folder.iterdir()) == before


def test_a_table_may_have_a_row_an_object_and_band(table, capsys):
    """As Hyrax's downloader writes manifest.fits; `Attempted` is a download that came to nothing."""
    folder, images, positions = table
    ids = [BIG, 3, 1]
    rows = [(i, band, f"{i}_{band}.fits", positions[i], 2.2, (SIZE, SIZE)) for band in "rg" for i in ids]
    rows[4] = (3, "g", "Attempted", *rows[4][3:])
    manifest = Table(rows=rows, names=("object_id", "filter", "filename", "ra", "dec", "dim"))
    manifest.write(folder / "manifest.fits")

    def code(store):
        flags = ["--bands", "g", "r", "--survey", "hsc", "--shard-rows", 64, "--size"]
        pattern = folder / "{filename_{band}}"
        words = [folder / "manifest.fits", folder / store, *flags, SIZE, "--files", pattern]
        return cli.run_command("cutouts", [str(word) for word in words])

    assert code("a.zarr") == cli.OK
    _, found = read(folder)
    assert [*found] == ids
    for i in ids:
        assert same_bits(found[i][1], images[i, "r"])
        assert np.isnan(found[i][0]).all() if i == 3 else same_bits(found[i][0], images[i, "g"])
    manifest.add_row(manifest[0])
    manifest.write(folder / "manifest.fits", overwrite=True)
    assert code("b.zarr") == cli.REFUSED
    assert f"has the object {BIG} in 2 rows of filter r: keep one" in capsys.readouterr().err
