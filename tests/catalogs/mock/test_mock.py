"""Image and spectrum of a mock object agree with its properties, and the files have the right layout."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import killing
import numpy as np
import pytest
import zarr
from astropy import units
from astropy.table import Table
from matplotlib.image import imread
from speclite import filters

from catalogs import atomic, bands
from catalogs.errors import UsageError
from catalogs.mock import instruments, sed
from catalogs.mock.cameras import HSC
from catalogs.mock.image import (
    Artefact,
    add_artefact,
    fibre_fractions,
    noise,
    observe_image,
    render,
    seeing,
    transforms,
)
from catalogs.mock.objects import TILE, TRAINING, draw
from catalogs.mock.population import Component, Source, draw_galaxy, draw_quasar
from catalogs.mock.spectrum import fibre_spectrum, observe_spectrum
from catalogs.mock.survey import Mock, main
from catalogs.products.schema import Flag
from catalogs.products.screen import screen_images

R = bands.HSC.index("hsc_r")


def generator(seed=3):
    return np.random.default_rng(seed)


def galaxy(redshift=0.1, i_mag=19.0, passive=False, seed=3):
    return draw_galaxy(generator(seed), redshift, i_mag, passive)


def quasar(redshift=2.0, i_mag=20.0):
    return draw_quasar(generator(), redshift, i_mag)


def spectrum(source):
    return fibre_spectrum(source, transforms(source, generator(), HSC), HSC)


def test_an_object_is_the_same_whichever_others_are_drawn():
    single, batch = draw(1, TRAINING, [7]), draw(1, TRAINING, range(5, 9))
    for name in vars(single):
        np.testing.assert_array_equal(getattr(single, name)[0], getattr(batch, name)[2], err_msg=name)


def test_streams_and_seeds_give_different_objects():
    first = draw(1, TRAINING, [0])
    for second in (draw(1, TILE, [0]), draw(2, TRAINING, [0])):
        assert second.redshift[0] != first.redshift[0]
        assert not np.array_equal(second.image, first.image)


# --- Light -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source",
    [galaxy(0.6, 22.0, passive=True), galaxy(0.8, 21.0), quasar()],
    ids=["passive", "star-forming", "quasar"],
)
def test_a_stamp_holds_the_flux_of_its_magnitude(source):
    rng = generator()
    stamp = render(HSC, [source], [transforms(source, rng, HSC)], np.zeros((1, 2)), seeing(rng, HSC)[0])
    np.testing.assert_allclose(stamp.sum((1, 2)), 10 ** (0.4 * (27.0 - source.magnitudes(HSC))), rtol=0.03)


def test_a_point_source_is_centred_and_moves_by_its_offset():
    rng, point = generator(), quasar()
    offset = np.array([[2.0, -3.0]]) * 0.168
    stamp = render(HSC, [point], [transforms(point, rng, HSC)], offset, seeing(rng, HSC)[0])[R]
    assert np.unravel_index(stamp.argmax(), stamp.shape) == (34, 29)


def test_a_radius_is_the_half_light_semi_major_axis():
    disc = Component(np.ones(len(instruments.GRID)), 1.0, radius=1.2, axis_ratio=0.5)
    source = Source(0.1, "GALAXY", (disc,))
    stamp = render(
        HSC, [source], [transforms(source, generator(), HSC)], np.zeros((1, 2)), np.ones((5, 1, 1))
    )[R]
    y, x = (np.mgrid[:64, :64] - 32) * 0.168
    inside = np.hypot(x, y / 0.5) < 1.2  # an ellipse along x
    assert stamp[inside].sum() / stamp.sum() == pytest.approx(0.5, abs=0.02)


def test_image_and_spectrum_hold_the_same_light():
    """speclite's magnitude of the spectrum is that of the image, less the light outside the fibre."""
    source = galaxy(0.2, 18.5, passive=True)
    shape = transforms(source, generator(), HSC)
    light = fibre_spectrum(source, shape, HSC) * 1e-17 * units.erg / units.s / units.cm**2 / units.AA
    magnitude = filters.load_filter("hsc2017-r2").get_ab_magnitude(light, instruments.WAVE * units.AA)
    in_fibre = source.magnitudes(HSC)[R] - 2.5 * np.log10(fibre_fractions(shape, HSC)[0])
    assert magnitude == pytest.approx(in_fibre, abs=0.005)


def test_a_fibre_takes_most_of_a_point_and_little_of_a_large_galaxy():
    point, large = quasar(), galaxy(0.05, 16.0, passive=True)
    assert (
        0.6 < fibre_fractions(transforms(point, generator(), HSC), HSC)[0] < 0.8
    )  # a Gaussian would leave 0.72
    assert fibre_fractions(transforms(large, generator(), HSC), HSC)[0] < 0.25


# --- Spectra -----------------------------------------------------------------------------------------------


def test_lines_removed_from_the_templates_are_nebular_lines():
    assert len(sed.LINES) == sed.LINE_FLUX.shape[1] == sum(len(lines) for _, lines in sed.FEATURES)
    for _, lines in sed.FEATURES:
        assert sum(lines.values()) == pytest.approx(1)
    equivalent_width = sed.LINE_FLUX[sed.NEBULA][np.abs(sed.LINES - 5008.24) < 0.1]
    assert 50 < equivalent_width[0] < 1000  # [O III] of an H II region
    assert not sed.LINE_FLUX[[sed.OLD, sed.YOUNG]].any()


@pytest.mark.parametrize(("rest", "redshift"), [(6564.63, 0.1), (3728.7, 0.8)], ids=["H-alpha", "[O II]"])
def test_an_emission_line_is_redshifted(rest, redshift):
    light = spectrum(galaxy(redshift))
    near = np.abs(instruments.WAVE - rest * (1 + redshift)) < 40
    peak = instruments.WAVE[near][light[near].argmax()]
    assert peak == pytest.approx(rest * (1 + redshift), abs=3)


def test_lines_have_their_flux_and_width():
    wave = np.arange(5000.0, 6000.0, 0.8)
    lines = sed.lines(wave, np.array([5300.0, 5700.0]), np.array([[1.0, 4.0]]), np.array([2.0, 5.0]))[0]
    assert lines.sum() * 0.8 == pytest.approx(5, rel=1e-3)
    near = np.abs(wave - 5700) < 100
    variance = (lines[near] * (wave[near] - 5700) ** 2).sum() / lines[near].sum()
    assert variance**0.5 == pytest.approx(5, rel=0.01)


def test_the_forest_scatters_about_its_mean():
    sightlines = np.stack([sed.intergalactic(generator(k), 3.0) for k in range(200)])
    wave = instruments.GRID
    forest = (wave > 4300) & (wave < 4800)
    mean = sed.mean_transmission(wave, 3.0)
    assert sightlines[:, forest].mean() == pytest.approx(mean[forest].mean(), rel=0.02)
    assert 0.1 < sightlines[:, forest].std() < 0.4
    assert (sightlines[:, wave > 1215.67 * 4] == 1).all()
    assert (sed.intergalactic(generator(), 0.5) == 1).all()


def test_seds_reach_the_u_band():
    """A quasar at z = 1.75 has Lyman-alpha at 3343 A, N V at 3410 A, and its forest short of them."""
    wave = instruments.GRID
    np.testing.assert_allclose(np.diff(wave), instruments.STEP)
    assert wave[0] < 3205
    light = np.mean([sed.quasar(generator(k), 1.75) for k in range(50)], 0)
    assert 1216 * 2.75 < wave[light.argmax()] < 1240 * 2.75  # a blend with N V
    sightlines = np.stack([sed.intergalactic(generator(k), 1.75) for k in range(200)])
    forest = wave < 3300
    mean = sed.mean_transmission(wave, 1.75)[forest].mean()
    assert sightlines[:, forest].mean() == pytest.approx(mean, rel=0.02)
    assert (sightlines[:, wave > 1215.67 * 2.75] == 1).all()


def test_a_galaxy_is_continuous_where_pieces_of_its_sed_meet():
    light = galaxy(1.2, 22.0, passive=True).components[0].sed
    step = len(instruments.BLUE)
    assert light[step - 1] / light[step] == pytest.approx(light[step - 2] / light[step - 1], abs=0.01)


def test_ivar_is_the_inverse_variance_of_the_noise():
    light = spectrum(galaxy(0.5, 21.0))
    flux, ivar = observe_spectrum(generator(5), light)
    off_lines = (ivar > 0) & (instruments.SKY_LINE_PROFILES.max(0) < 0.01)
    pull = ((flux - light) * np.sqrt(ivar))[off_lines]
    assert pull.std() == pytest.approx(1, abs=0.03)
    assert 0 < (ivar == 0).sum() < 0.05 * len(ivar)
    assert (flux[ivar == 0] == 0).all()


# --- Noise and artefacts -----------------------------------------------------------------------------------


def test_sky_noise_is_that_of_hsc_wide():
    dark = Source(1.0, "QSO", (Component(np.full(len(instruments.GRID), 1e-9)),))
    shape = transforms(dark, generator(), HSC)
    stamps = np.stack(
        [observe_image(generator(k), HSC, dark, shape, artefact_share=0).image for k in range(60)]
    )
    sigma = 1.4826 * np.median(np.abs(stamps - np.median(stamps, (2, 3), keepdims=True)), (0, 2, 3))
    np.testing.assert_allclose(sigma, [0.037, 0.057, 0.077, 0.156, 0.287], rtol=0.06)


def test_noise_of_neighbouring_pixels_is_correlated():
    sky = noise(generator(), (50, 64, 64))
    assert sky.std() == pytest.approx(1, abs=0.01)
    for lag, expected in (((0, 1), 0.1), ((1, 0), 0.1), ((1, 1), 0.01), ((0, 3), 0.0)):
        y, x = lag
        product = sky[:, : 64 - y, : 64 - x] * sky[:, y:, x:]
        assert product.mean() == pytest.approx(expected, abs=0.01)


def test_artefacts_have_the_requested_share_and_every_kind():
    source = quasar()
    shape = transforms(source, generator(), HSC)
    kinds = [observe_image(generator(k), HSC, source, shape, artefact_share=0.5).artefact for k in range(120)]
    assert kinds.count(Artefact.NONE) == pytest.approx(60, abs=16)  # 3 sigma
    assert set(kinds) == set(Artefact)


@pytest.mark.parametrize(
    ("artefact", "flags"),
    [
        (Artefact.NONE, 0),
        (Artefact.MISSING_BAND, Flag.MISSING_BAND),
        (Artefact.BLEED_TRAIL, Flag.BLEED_TRAIL | Flag.MASKED_PIXELS | Flag.NO_DATA_REGION),
        (Artefact.SATURATED_NEIGHBOUR, 0),
    ],
)
def test_inference_flags_images_without_a_band_or_with_a_trail_but_not_other_artefacts(artefact, flags):
    image = generator().normal(size=(5, 64, 64))
    add_artefact(generator(), HSC, image, artefact)
    screened = screen_images(image[None], np.zeros(1, bool))
    assert (screened.reason[0], screened.flags[0]) == ("", flags)


def test_a_nan_patch_is_in_one_band():
    image = generator().normal(size=(5, 64, 64))
    add_artefact(generator(), HSC, image, Artefact.NAN_PATCH)
    assert sorted(np.isnan(image).any((1, 2))) == [False] * 4 + [True]


# --- Files -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_files(tmp_path, capsys):
    out = tmp_path / "survey"
    main(Mock(out, galaxies=5, tile=70, seed=2, shard_rows=64, preview=True))
    truth = draw(2, TRAINING, range(5))
    with h5py.File(out / "galaxies.hdf5") as file:
        layout = {}
        file.visititems(lambda name, item: layout.update({name: item}) if hasattr(item, "shape") else None)
        assert {name: (item.shape, item.dtype) for name, item in layout.items()} == {
            "image": ((5, 5, 64, 64), np.float32),
            "spectrum/flux": ((5, 7783), np.float32),
            "spectrum/ivar": ((5, 7783), np.float32),
            "spectrum/wave": ((5, 7783), np.float32),
            "DESI_fibermap/DESI_redshift": ((5,), np.float64),
            "DESI_fibermap/SPECTYPE": ((5,), "S6"),
            "targetid": ((5,), "S17"),
            **{f"{band}_cmodel_mag": ((5,), np.float32) for band in "grizy"},
        }
        np.testing.assert_array_equal(file["image"], truth.image)
        assert [int(name) for name in file["targetid"]] == list(truth.object_id)
        assert file["spectrum/wave"][4, -1] == 9824
    store, table = zarr.open_group(out / "rubin_tile.zarr"), Table.read(out / "rubin_tile.truth.fits")
    assert store.attrs["bands"] == list(bands.HSC)
    tile = draw(2, TILE, [0, 69])
    np.testing.assert_array_equal(store["image"][:][[0, 69]], tile.image)
    np.testing.assert_array_equal(store["object_id"], table["OBJECT_ID"])
    np.testing.assert_array_equal(table["Z_SPEC"][[0, 69]], tile.redshift)
    assert not set(table["OBJECT_ID"]) & set(truth.object_id)
    assert np.abs(store["dec"][:] - 2.2).max() < 0.25
    pairs = Table.read(out / "galaxies.truth.fits")
    np.testing.assert_array_equal(pairs["MAG_HSC_R"], truth.magnitudes[:, R].astype(np.float32))
    assert imread(out / "preview.png").shape[2] == 4
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("rubin_tile.truth.fits", "preview.png"))
    assert not [path for path in out.iterdir() if "partial" in path.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("survey", "tile", "names", "pixel_scale", "zero_point"),
    [
        ("rubin", "rubin_tile", ["lsst_u", "lsst_g", "lsst_r", "lsst_i", "lsst_z", "lsst_y"], 0.2, 31.4),
        ("legacy", "legacy_tile", ["decam_g", "decam_r", "decam_z"], 0.262, 22.5),
    ],
)
def test_files_of_another_survey(tmp_path, survey, tile, names, pixel_scale, zero_point):
    config = Mock(tmp_path, survey=survey, galaxies=3, tile=2, seed=2, shard_rows=64, preview=True)
    main(config)
    for stream, name in ((TRAINING, "train"), (TILE, tile)):
        store, table = zarr.open_group(tmp_path / f"{name}.zarr"), Table.read(tmp_path / f"{name}.truth.fits")
        assert store.attrs["bands"] == names
        assert (store.attrs["pixel_scale"], store.attrs["zero_point"]) == (pixel_scale, zero_point)
        objects = draw(2, stream, range(len(table)), camera=config.camera)
        columns = {"image", "object_id", "ra", "dec", "noise", "psf_fwhm", "ebv", "mask"}
        columns |= {"flux", "ivar", "redshift", "spectype"} if stream == TRAINING else set()
        for column in columns:
            np.testing.assert_array_equal(store[column][:], getattr(objects, column), err_msg=column)
        further = {f"{band.rpartition('_')[2]}_cmodel_mag" for band in names}
        assert set(store["columns"]) == further
        for k, band in enumerate(names):
            magnitudes = store[f"columns/{band.rpartition('_')[2]}_cmodel_mag"][:]
            np.testing.assert_array_equal(magnitudes, objects.cmodel[:, k])
        made = {"wave", "spectrum"} if stream == TRAINING else set()
        assert set(store) == columns | made | {"columns"}
        assert [each for each in table.colnames if "MAG" in each] == [f"MAG_{each.upper()}" for each in names]
        np.testing.assert_array_equal(table["Z_SPEC"], objects.redshift)
    made = {"train.zarr", "train.zarr.manifest.json", "train.truth.fits", "preview.png"}
    made |= {f"{tile}.zarr", f"{tile}.zarr.manifest.json", f"{tile}.truth.fits"}
    assert {path.name for path in tmp_path.iterdir()} == made


@pytest.mark.slow
def test_the_number_of_processes_changes_no_byte(tmp_path):
    for processes in (1, 3):
        command = [sys.executable, "-m", "mmae.cli", "mock", tmp_path / str(processes), "--galaxies", "40"]
        flags = ["--tile", "33", "--shard-rows", "64", "--processes", str(processes), "--artefacts", "0.3"]
        subprocess.run([*command, *flags], check=True, capture_output=True)
    truths = ("galaxies.truth.fits", "rubin_tile.truth.fits")
    for name in ("galaxies.hdf5", "rubin_tile.zarr.manifest.json", *truths):
        digests = {hashlib.sha256((tmp_path / n / name).read_bytes()).digest() for n in ("1", "3")}
        assert len(digests) == 1, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"galaxies": -1},
        {"tile": 0},
        {"seed": -1},
        {"shard_rows": 100},
        {"processes": 0},
        {"artefacts": 1.5},
        {"missing_bands": -0.1},
    ],
)
def test_bad_numbers_are_refused_before_anything_is_created(tmp_path, wrong):
    with pytest.raises(UsageError, match=next(iter(wrong)).replace("_", "-")):
        main(Mock(tmp_path / "survey", **wrong))
    assert not (tmp_path / "survey").exists()


def test_years_are_of_rubin_alone(tmp_path):
    with pytest.raises(UsageError, match="--survey rubin"):
        main(Mock(tmp_path / "survey", years=1))
    assert not (tmp_path / "survey").exists()


@pytest.mark.parametrize("taken", ["galaxies.hdf5", "rubin_tile.zarr", "rubin_tile.truth.fits"])
def test_files_that_exist_are_left_alone(tmp_path, taken):
    (tmp_path / taken).write_text("mine")
    with pytest.raises(UsageError, match=taken):
        main(Mock(tmp_path))
    with pytest.raises(UsageError, match="is a file"):
        main(Mock(tmp_path / taken / "below"))
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(taken, "mine")]


KILLED = """
import sys
from pathlib import Path
from killing import die_at
from catalogs.mock.survey import Mock, main

if __name__ == "__main__":
    out = Path(sys.argv[1])
    die_at(out, int(sys.argv[2]))
    main(Mock(out, sys.argv[3], galaxies=3, tile=3, shard_rows=64, processes=1))
"""


@pytest.mark.slow
def test_a_killed_run_starts_over(tmp_path):
    """Killed at a change of a file, again and again: early, among pairs of two surveys, among the tile."""
    program, out = tmp_path / "killed.py", tmp_path / "survey"
    program.write_text(KILLED)
    below = map(str, (Path(killing.__file__).parent, Path.cwd()))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(below)}
    steps = (
        (2, "hsc", ".mock.*"),
        (6, "hsc", ".mock.*"),
        (90, "rubin", "train.zarr*"),
        (40, "hsc", "rubin_tile.zarr*"),
    )
    for step, survey, begun in steps:
        command = [sys.executable, program, out, str(step), survey]
        killed = subprocess.run(command, env=environment, capture_output=True, timeout=100)
        assert killed.returncode == -signal.SIGKILL
        assert list(out.glob(begun)) or step == 2
    for folder in (out, tmp_path / "undisturbed"):
        main(Mock(folder, galaxies=3, tile=3, shard_rows=64, processes=1))
    names = {path.name for path in (tmp_path / "undisturbed").iterdir()}
    assert {path.name for path in out.iterdir()} == names
    for name in names - {"rubin_tile.zarr"}:  # whose files the manifest lists
        assert (out / name).read_bytes() == (tmp_path / "undisturbed" / name).read_bytes()
    with pytest.raises(UsageError, match="exists already"):
        main(Mock(out, galaxies=3, tile=3, shard_rows=64, processes=1))


@pytest.mark.slow
def test_starting_over_removes_nothing_of_a_run_that_ended(tmp_path):
    """A run of the Legacy Surveys was killed beside the finished files of HSC."""
    (tmp_path / "galaxies.hdf5").write_text("finished")
    (tmp_path / "train.zarr").mkdir()
    (tmp_path / "mine.txt").write_text("not the mock's")
    (tmp_path / ".mock.unfinished").write_text("train.zarr\nlegacy_tile.zarr\nmine.txt\n..\n\n")
    with pytest.raises(UsageError, match=r"galaxies\.hdf5 exists already"):
        main(Mock(tmp_path))
    main(Mock(tmp_path, survey="legacy", galaxies=2, tile=2, shard_rows=64, processes=1))
    assert (tmp_path / "galaxies.hdf5").read_text() == "finished"
    assert (tmp_path / "mine.txt").exists()
    assert (tmp_path / "train.zarr/zarr.json").exists()
    assert not (tmp_path / ".mock.unfinished").exists()


def test_a_folder_that_is_being_written_is_left_alone(tmp_path):
    (tmp_path / ".mock.unfinished").write_text("galaxies.hdf5")
    (tmp_path / "galaxies.hdf5").write_text("mine")
    with atomic.owned(tmp_path), pytest.raises(UsageError, match="is being written by another process"):
        main(Mock(tmp_path))
    assert (tmp_path / "galaxies.hdf5").read_text() == "mine"
