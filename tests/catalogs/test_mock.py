"""Image and spectrum of the mock survey are two views of one object, and its files are what they claim."""

import h5py
import numpy as np
import pytest
from astropy.table import Table

from catalogs import cutouts, mock
from catalogs.errors import UsageError

ZERO_POINT_FNU = 3.631e-20  # erg/s/cm2/Hz
R = mock.BANDS.index("r")


def galaxy(redshift=0.1, i_mag=19.0, passive=False, seed=3):
    return mock.draw_galaxy(np.random.default_rng(seed), redshift, i_mag, passive)


def test_an_object_is_the_same_whichever_others_are_drawn():
    alone, among = mock.draw(1, mock.TRAINING, [7]), mock.draw(1, mock.TRAINING, range(3, 10))
    for name in vars(alone):
        np.testing.assert_array_equal(getattr(alone, name)[0], getattr(among, name)[4], err_msg=name)


def test_streams_and_seeds_are_different_universes():
    first = mock.draw(1, mock.TRAINING, [0])
    for other in (mock.draw(1, mock.TILE, [0]), mock.draw(2, mock.TRAINING, [0])):
        assert other.redshift[0] != first.redshift[0]
        assert not np.array_equal(other.image, first.image)


def test_de_vaucouleurs_gaussians_follow_the_profile():
    s = np.array([0.05, 0.3, 1.0, 3.0])  # half-light radii
    variance = mock.BULGE_VARIANCE
    mixture = (mock.BULGE_FLUX / variance * np.exp(-0.5 * s[:, None] ** 2 / variance)).sum(1)
    ratio = mixture / np.exp(-7.66925 * s**0.25)
    np.testing.assert_allclose(ratio / ratio[2], 1, atol=0.005)
    inside = mock.BULGE_FLUX @ (1 - np.exp(-0.5 / variance))
    assert inside == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize(
    "source",
    [
        galaxy(0.6, 20.0, passive=True),
        galaxy(0.8, 21.0),
        mock.draw_quasar(np.random.default_rng(0), 2.0, 20.0),
    ],
    ids=["passive", "star-forming", "quasar"],
)
def test_a_stamp_holds_the_flux_of_its_magnitude(source):
    stamp = mock.render([source], np.zeros((1, 2)))
    np.testing.assert_allclose(stamp.sum((1, 2)), 10 ** (0.4 * (27.0 - source.magnitudes)), rtol=0.015)


def test_a_point_source_is_centred_and_moves_by_its_offset():
    quasar = mock.draw_quasar(np.random.default_rng(0), 2.0, 20.0)
    stamp = mock.render([quasar], np.array([[2.0, -3.0]]) * mock.PIXEL_SCALE)[R]
    assert np.unravel_index(stamp.argmax(), stamp.shape) == (34, 29)


def test_image_and_spectrum_hold_the_same_light():
    source = galaxy(0.2, 18.5)
    response = np.interp(mock.WAVE, *np.transpose(mock.PASSBAND_CORNERS["r"]))
    photons = (mock.fibre_spectrum(source) * 1e-17 * mock.WAVE * response).sum()
    flux_nu = photons / (2.99792458e18 / mock.WAVE * response).sum()
    in_fibre = source.magnitudes[R] - 2.5 * np.log10(mock.fibre_fraction(source))
    assert -2.5 * np.log10(flux_nu / ZERO_POINT_FNU) == pytest.approx(in_fibre, abs=0.005)


def test_a_fibre_takes_most_of_a_point_and_little_of_a_large_galaxy():
    point = mock.fibre_fraction(mock.draw_quasar(np.random.default_rng(0), 2.0, 20.0))
    large = mock.fibre_fraction(galaxy(0.05, 16.0))
    assert 0.6 < point < 0.8  # a Gaussian of 1.1 arcsec FWHM would put 0.72 there
    assert large < 0.25


@pytest.mark.parametrize(("rest", "redshift"), [(6564.6, 0.1), (3728.5, 0.8)], ids=["H-alpha", "[O II]"])
def test_an_emission_line_stands_at_one_plus_z(rest, redshift):
    spectrum = mock.fibre_spectrum(galaxy(redshift))
    near = np.abs(mock.WAVE - rest * (1 + redshift)) < 40
    assert mock.WAVE[near][spectrum[near].argmax()] == pytest.approx(rest * (1 + redshift), abs=3)


def test_the_4000_break_reddens_g_minus_r():
    colours = []
    for redshift in (0.02, 0.35):
        g, r = galaxy(redshift, 18.0, passive=True).magnitudes[:2]
        colours.append(g - r)
    assert colours[1] > colours[0] + 0.5


def test_the_forest_dims_quasars_blueward_of_lyman_alpha():
    transmission = mock.intergalactic(np.array([4800.0, 4900.0]), 3.0)  # Ly-alpha stands at 4863 A
    assert transmission[0] < 0.75
    assert transmission[1] == 1


def test_sky_noise_is_that_of_hsc_wide():
    quasar = mock.draw_quasar(np.random.default_rng(0), 2.0, 22.0)
    stamps = np.stack([mock.observe_image(np.random.default_rng(k), quasar) for k in range(40)])
    corners = np.concatenate([stamps[..., :8, :8], stamps[..., -8:, -8:]])
    sigma = 1.4826 * np.median(np.abs(corners), (0, 2, 3))
    np.testing.assert_allclose(sigma, [0.037, 0.057, 0.077, 0.156, 0.287], rtol=0.06)


def test_ivar_is_the_inverse_variance_of_the_noise():
    source = galaxy()
    flux, ivar = mock.observe_spectrum(np.random.default_rng(5), source)
    pull = ((flux - mock.fibre_spectrum(source)) * np.sqrt(ivar))[ivar > 0]
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert 0 < (ivar == 0).sum() < 0.05 * len(ivar)


def test_redshifts_follow_the_desi_test_set():
    redshift = [mock.draw_target(np.random.default_rng([9, k])).redshift for k in range(1500)]
    share = np.searchsorted(np.sort(redshift), [0.075, 0.162, 0.338, 0.611, 1.652, 2.320]) / 1500
    np.testing.assert_allclose(share, [0.05, 0.25, 0.50, 0.75, 0.90, 0.95], atol=0.035)


def test_files(tmp_path, capsys):
    mock.main(mock.Mock(tmp_path / "survey", galaxies=5, tile=70, seed=2, shard_rows=64))
    out = tmp_path / "survey"
    truth = mock.draw(2, mock.TRAINING, range(5))
    with h5py.File(out / "galaxies.hdf5") as file:
        layout = {}
        file.visititems(lambda name, item: layout.update({name: item}) if hasattr(item, "shape") else None)
        assert {name: (item.shape, item.dtype) for name, item in layout.items()} == {
            "image": ((5, 5, 64, 64), np.float32),
            "spectrum/flux": ((5, 7783), np.float32),
            "spectrum/ivar": ((5, 7783), np.float32),
            "spectrum/wave": ((5, 7783), np.float32),
            "DESI_fibermap/DESI_redshift": ((5,), np.float64),
            "targetid": ((5,), "S17"),
        }
        np.testing.assert_array_equal(file["image"], truth.image)
        assert [int(name) for name in file["targetid"]] == list(truth.object_id)
        assert file["spectrum/wave"][4, -1] == 9824
    store, table = cutouts.open_store(out / "rubin_tile.zarr"), Table.read(out / "rubin_tile.truth.fits")
    tile = mock.draw(2, mock.TILE, [0, 69])
    np.testing.assert_array_equal(store.images(0, 70)[0][[0, 69]], tile.image)
    np.testing.assert_array_equal(store.column("object_id"), table["OBJECT_ID"])
    np.testing.assert_array_equal(table["Z_SPEC"][[0, 69]], tile.redshift)
    assert not set(table["OBJECT_ID"]) & set(truth.object_id)
    assert np.abs(store.column("dec") - 2.2).max() < 0.25
    assert "rubin_tile.truth.fits" in capsys.readouterr().out
    assert not [path for path in out.iterdir() if "partial" in path.name]


@pytest.mark.parametrize("wrong", [{"galaxies": -1}, {"tile": 0}, {"seed": -1}, {"shard_rows": 100}])
def test_bad_numbers_are_refused_before_anything_is_created(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", "-")):
        mock.main(mock.Mock(tmp_path / "survey", **wrong))
    assert not (tmp_path / "survey").exists()


@pytest.mark.parametrize("taken", ["galaxies.hdf5", "rubin_tile.zarr", "rubin_tile.truth.fits"])
def test_files_that_exist_are_left_alone(tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UsageError, match=taken):
        mock.main(mock.Mock(tmp_path))
    with pytest.raises(UsageError, match="is a file"):
        mock.main(mock.Mock(tmp_path / taken / "below"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "mine")]
