"""Arms of a coadd are joined into one spectrum; damaged files and other layouts are refused."""

import numpy as np
import pytest
from astropy.io import fits

from catalogs.errors import InputRefused, UsageError
from catalogs.surveys.desi import SKY_LINES, in_vacuum, read_coadd

IDS = [39627000000000001, 39627000000000002]
# First wavelength and number of pixels of each tiny arm: B and R share 3602.4 and 3603.2 A.
TINY = {"B": (3600.0, 5), "R": (3602.4, 4), "Z": (9822.4, 3)}


def coadd():
    """HDUs of two fibres by name; flux 1, 2, 3 and ivar 4 everywhere in B, R, Z."""
    targets = fits.BinTableHDU.from_columns(
        [
            fits.Column("TARGETID", "K", array=IDS),
            fits.Column("TARGET_RA", "D", unit="deg", array=[150.0, 150.1]),
            fits.Column("TARGET_DEC", "D", unit="deg", array=[2.0, 2.1]),
        ],
        name="FIBERMAP",
    )
    hdus = {"PRIMARY": fits.PrimaryHDU(), "FIBERMAP": targets}
    for level, (arm, (first, pixels)) in enumerate(TINY.items(), 1):
        images = {
            "WAVELENGTH": first + 0.8 * np.arange(pixels),
            "FLUX": np.full((2, pixels), level, np.float32),
            "IVAR": np.full((2, pixels), 4, np.float32),
            "MASK": np.zeros((2, pixels), np.int32),
        }
        hdus |= {f"{arm}_{kind}": fits.ImageHDU(data, name=f"{arm}_{kind}") for kind, data in images.items()}
    return hdus


def write(folder, hdus):
    path = folder / "coadd.fits"
    fits.HDUList(list(hdus.values())).writeto(path, checksum=True)
    return path


def test_arms_are_joined_by_their_weights_and_masked_pixels_vanish(tmp_path):
    hdus = coadd()
    hdus["R_IVAR"].data[0] = 12
    hdus["R_MASK"].data[0, 1] = 2  # 3603.2 A, which B sees too
    hdus["R_MASK"].data[0, 2] = 1  # 3604.0 A, which R alone sees
    hdus["B_IVAR"].data[1, 0] = 0
    hdus["B_FLUX"].data[1, 1] = np.nan
    spectra = read_coadd(write(tmp_path, hdus))

    assert spectra.flux.shape == spectra.ivar.shape == (2, 7781)
    assert spectra.wave[[0, 1, -1]] == pytest.approx([3600.0, 3600.8, 9824.0])
    # (4 * 1 + 12 * 2) / 16 where both see it
    np.testing.assert_allclose(spectra.flux[0, :8], [1, 1, 1, 1.75, 1, 0, 2, 0], rtol=1e-6)
    np.testing.assert_array_equal(spectra.ivar[0, :8], [4, 4, 4, 16, 4, 0, 12, 0])
    np.testing.assert_allclose(spectra.flux[1, :5], [0, 0, 1, 1.5, 1.5], rtol=1e-6)
    np.testing.assert_array_equal(spectra.ivar[1, :5], [0, 0, 4, 8, 8])
    np.testing.assert_array_equal(spectra.flux[:, -4:], [[0, 3, 3, 3]] * 2)
    assert not spectra.flux[:, 7:-3].any()
    assert not spectra.ivar[:, 7:-3].any()


@pytest.mark.parametrize("lost", ["B", "R", "Z", "RZ"])
def test_the_arms_that_are_there_are_joined(tmp_path, lost):
    whole, hdus = coadd(), coadd()
    for arm in lost:
        whole[f"{arm}_IVAR"].data[:] = 0
    drop_arms(hdus, lost)
    (tmp_path / "whole").mkdir()
    expected, spectra = read_coadd(write(tmp_path / "whole", whole)), read_coadd(write(tmp_path, hdus))
    assert spectra.ivar.any()
    np.testing.assert_array_equal(spectra.flux, expected.flux)
    np.testing.assert_array_equal(spectra.ivar, expected.ivar)


def test_targets_come_with_the_spectra(tmp_path):
    spectra = read_coadd(write(tmp_path, coadd()))
    np.testing.assert_array_equal(spectra.target_id, IDS)
    np.testing.assert_array_equal(spectra.ra, [150.0, 150.1])
    np.testing.assert_array_equal(spectra.dec, [2.0, 2.1])
    assert spectra.target_id.dtype == np.int64
    assert spectra.flux.dtype == spectra.ivar.dtype == np.float32


def test_only_the_requested_targets_are_returned_in_their_order(tmp_path):
    hdus = coadd()
    hdus["B_FLUX"].data[1] = 7
    path = write(tmp_path, hdus)
    all_spectra = read_coadd(path)
    for rows in ([1, 0], [1], []):
        selected = read_coadd(path, np.array(IDS, np.int64)[rows])
        for name in ("target_id", "ra", "dec", "flux", "ivar"):
            np.testing.assert_array_equal(getattr(selected, name), getattr(all_spectra, name)[rows])
    with pytest.raises(InputRefused, match="no spectrum of target 5"):
        read_coadd(path, np.array([IDS[0], 5]))


def test_targets_of_a_coadd_without_fibermap_are_not_known(tmp_path):
    hdus = coadd()
    del hdus["FIBERMAP"]
    with pytest.raises(InputRefused, match="has no FIBERMAP with TARGETID"):
        read_coadd(write(tmp_path, hdus), np.array(IDS))


def test_transposed_images_without_mask_and_fibermap_read_the_same(tmp_path):
    hdus = coadd()
    for kind in ("FLUX", "IVAR"):
        hdus[f"B_{kind}"].data[:] *= np.arange(1, 11).reshape(2, 5)
    expected = read_coadd(write(tmp_path, hdus))
    for name in ["FIBERMAP", *(f"{arm}_MASK" for arm in TINY)]:
        del hdus[name]
    for name in (f"{arm}_{kind}" for arm in TINY for kind in ("FLUX", "IVAR")):
        hdus[name].data = np.ascontiguousarray(hdus[name].data.T)
    (tmp_path / "transposed").mkdir()
    transposed = read_coadd(write(tmp_path / "transposed", hdus))
    np.testing.assert_array_equal(transposed.flux, expected.flux)
    np.testing.assert_array_equal(transposed.ivar, expected.ivar)
    assert transposed.target_id is transposed.ra is transposed.dec is None


def drop_arms(hdus, arms="BRZ"):
    for arm in arms:
        for kind in ("WAVELENGTH", "FLUX", "IVAR", "MASK"):
            del hdus[f"{arm}_{kind}"]


def drop_ivar(hdus):
    del hdus["R_IVAR"]


def half_a_pixel_off(hdus):
    hdus["R_WAVELENGTH"].data += 0.4


def coarser(hdus):
    hdus["Z_WAVELENGTH"].data[:] = 8000 + 1.6 * np.arange(3)


def beyond_the_grid(hdus):
    hdus["Z_WAVELENGTH"].data += 0.8


def cut_ivar(hdus):
    hdus["B_IVAR"].data = hdus["B_IVAR"].data[:, :4]


def lose_a_fibre(hdus):
    for kind in ("FLUX", "IVAR", "MASK"):
        hdus[f"Z_{kind}"].data = hdus[f"Z_{kind}"].data[:1]


def lose_a_fibre_and_the_fibermap(hdus):
    lose_a_fibre(hdus)
    del hdus["FIBERMAP"]


def lose_a_target(hdus):
    hdus["FIBERMAP"].data = hdus["FIBERMAP"].data[:1]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_ivar, "has no image R_IVAR: it is not a DESI coadd"),
        (drop_arms, "has no image B_FLUX or R_FLUX or Z_FLUX: it is not a DESI coadd"),
        (half_a_pixel_off, "arm R is not on DESI's wavelength grid"),
        (coarser, "arm Z is not on DESI's wavelength grid"),
        (beyond_the_grid, "arm Z is not on DESI's wavelength grid"),
        (cut_ivar, r"arm B have shapes \(2, 5\), \(2, 4\), \(2, 5\), not \(n, 5\)"),
        (lose_a_fibre, "differ in number of fibres"),
        (lose_a_fibre_and_the_fibermap, "differ in number of fibres"),
        (lose_a_target, "differ in number of fibres"),
    ],
)
def test_other_layouts_are_refused(tmp_path, damage, message):
    hdus = coadd()
    damage(hdus)
    with pytest.raises(InputRefused, match=message):
        read_coadd(write(tmp_path, hdus))


def test_damage_is_refused(tmp_path):
    path = write(tmp_path, coadd())
    content = path.read_bytes()
    for size in (0, 1000, 4000, len(content) // 2, len(content) - 4000, len(content) - 2000):
        path.write_bytes(content[:size])
        with pytest.raises(InputRefused):
            read_coadd(path)
    flipped = bytearray(content)
    flipped[-2880] ^= 1  # the last image
    path.write_bytes(flipped)
    with pytest.raises(InputRefused, match="checksum of Z_MASK"):
        read_coadd(path)
    path.write_text("TARGETID,Z\n")
    with pytest.raises(InputRefused, match="no FITS file"):
        read_coadd(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match="there is no file"):
        read_coadd(tmp_path / "absent.fits")
    with pytest.raises(UsageError, match="is a folder"):
        read_coadd(tmp_path)


def test_real_coadds_agree_with_spectra_joined_by_other_programs(real_data):
    """Twelve spectra of two releases: chi2 per pixel below 1e-6 (measured: 0), the same ivar to 1e-5."""
    joined = np.load(real_data / "desi_spectra_7781px.npz")
    for flux, ivar, source in zip(joined["flux"], joined["ivar"], joined["source"], strict=True):
        name, fibre = source.split("#")
        ours = read_coadd(real_data / "desi_coadds" / name)
        np.testing.assert_allclose(ours.wave, joined["wave"], atol=1e-3)
        chi2_per_pixel = ((ours.flux[int(fibre)] - flux) ** 2 * ivar).mean()
        assert chi2_per_pixel < 1e-6, source
        np.testing.assert_allclose(ours.ivar[int(fibre)], ivar, rtol=1e-5, err_msg=source)


def test_a_real_fibermap(real_data):
    spectra = read_coadd(real_data / "desi_coadds/fsf_coadd-special-dark-27247.fits")
    assert spectra.target_id == [39089837499744649]
    assert (spectra.ra[0], spectra.dec[0]) == pytest.approx((149.465, 2.0), abs=1)
    assert (spectra.ivar > 0).mean() > 0.99


def test_a_dead_fibre_is_all_zero(real_data):
    spectra = read_coadd(real_data / "desi_coadds/QuasarNP_test_coadd_everest_80605_25fibers.fits")
    dead = ~(spectra.ivar > 0).any(1)
    assert (len(dead), dead.sum()) == (25, 1)
    assert not spectra.flux[dead].any()
    assert spectra.target_id is None


def test_sky_lines_are_where_the_noise_of_spectra_has_them(real_data):
    """In vacuum: in air they would be 1.6 to 2.7 A away, and the Earth's motion moves them by up to 0.9 A."""
    assert in_vacuum(np.array([5577.338])) == pytest.approx([5578.887], abs=2e-3)
    with np.load(real_data / "desi_spectra_7781px.npz") as spectra:
        wave, noise = spectra["wave"], 1 / np.sqrt(np.median(spectra["ivar"], axis=0))
    peaks = [wave[near][noise[near].argmax()] for near in (np.abs(wave - line) < 5 for line in SKY_LINES)]
    assert np.median(np.abs(peaks - SKY_LINES)) < 1
