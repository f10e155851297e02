"""Real HSC cutouts, from arrays to a catalogue; real images and spectra rebuilt, by bench_real_data.py."""

import csv
import re
import subprocess
import sys

import bench_real_data
import numpy as np
import pytest
import real_data as real
import real_data_scores
import report
from astropy.io import fits
from matplotlib.image import imread

from catalogs.products import schema
from catalogs.store import cutouts
from catalogs.store.spectra import POOLED_LENGTH, STORED_POOL, normalise, pool
from mmae.models.mmae_config import ModelConfig
from mmae.scores.rebuilding import image_errors, spectrum_errors, truth_of
from mmae.scores.spectrum_scores import COARSE
from mmae.training.data import TRAIN, TrainingSet

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


def test_images_with_their_noise_drawn_again_are_one_noise_off(real_data):
    galaxies = real.real_cutouts(real_data)["galaxies"]
    drawn = np.random.default_rng(0).standard_normal(galaxies.truth.image.shape)
    again = galaxies.truth.image + galaxies.noise[..., None, None] * drawn
    found = image_errors(again, np.full(again.shape, True), galaxies.truth, galaxies.noise)
    assert len(again) == 37
    assert found["rms error"] == pytest.approx(1, abs=0.02)
    wide = real.as_wide(galaxies)
    added = (wide.truth.image - galaxies.truth.image).std((2, 3))
    np.testing.assert_allclose(np.hypot(galaxies.noise, added), wide.noise, rtol=0.05)


def test_chi2_of_spectra_with_their_noise_drawn_again_is_one(real_data):
    """So noise comes rightly through normalisation and pooling; chi2 of 259 pixels scatters by 9 %."""
    truth, _ = real.real_spectra(real_data)
    with np.load(real_data / "desi_spectra_7781px.npz") as joined:
        flux, ivar, wave = (joined[name].astype(np.float64) for name in ("flux", "ivar", "wave"))
    scale = np.median(np.diff(normalise(flux, ivar)) / np.diff(flux), axis=1, keepdims=True)  # 1 / rms
    noise = scale * np.random.default_rng(0).standard_normal(flux.shape) / np.sqrt(ivar)
    again = truth.spectrum + pool(noise, STORED_POOL)[:, : real.PIXELS]
    hidden = np.full((len(flux), POOLED_LENGTH), True)
    found = spectrum_errors(pool(again, COARSE), hidden, truth, pool(wave, STORED_POOL)[: real.PIXELS])
    assert found["chi2"] == pytest.approx(1, abs=0.35)
    assert np.mean(found["chi2"]) == pytest.approx(1, abs=0.08)


def test_what_is_round_or_straight_is_rebuilt_without_a_model():
    image = np.broadcast_to((100.0 - real.RING).reshape(64, 64), (1, 5, 64, 64))
    hidden = np.zeros(image.shape, bool)
    hidden[..., :32] = True  # of every ring half is seen
    np.testing.assert_allclose(real.round_galaxy(np.where(hidden, 1e9, image), hidden), image)
    np.testing.assert_allclose(real.seen_mean(image, hidden)[0, 0, 0, 0], image[0, 0, :, 32:].mean())
    line = np.arange(10.0)[None]
    gap = (line > 3) & (line < 7)
    np.testing.assert_allclose(real.straight_lines(np.where(gap, 1e9, line), gap), line)


def test_a_galaxy_of_the_training_split_is_its_own_twin(survey):
    data = TrainingSet(survey / "train.zarr", ModelConfig())
    rows = data.rows(TRAIN)[:10]
    truth = truth_of(data.object_id[rows], data.read(rows))
    seen = np.arange(POOLED_LENGTH) % 4 == 0
    library = real.Library(data)
    found = library.twins(truth, np.broadcast_to(seen, (10, POOLED_LENGTH)))
    assert found.tolist() == list(range(10))
    np.testing.assert_array_equal(library.images(found), truth.image)


def test_real_galaxies_are_rebuilt_and_scored(real_data, survey, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    monkeypatch.setattr(real_data_scores, "MASKS", 2)
    monkeypatch.setattr(bench_real_data, "MOCK_SPECTRA", 8)
    monkeypatch.setenv("MMAE_SHARED_DATA", str(real_data))
    monkeypatch.setattr(sys, "argv", ["", str(trained), str(survey / "train.zarr"), "--out", str(tmp_path)])
    bench_real_data.main()
    text = (tmp_path / "real_data.md").read_text()
    assert "trained on the mock survey alone" in text
    assert not re.search(r"\b(nan|inf)\b", text)
    rows = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("| ")}
    assert {"real", "mock", "real stars", "real, mostly padding", "model, no image", "12"} <= set(rows)
    for name in ("real_images.png", "real_spectra.png"):
        assert imread(tmp_path / name).std() > 0.1
