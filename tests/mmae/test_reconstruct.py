"""`mmae reconstruct` as a user runs it, and the reconstruction of real spectra."""

import re
import shutil

import numpy as np
import pytest
import torch
import zarr
from conftest import TINY, recipe
from matplotlib.image import imread

from catalogs import ingest
from catalogs.bands import HSC
from catalogs.mock import survey as mock
from catalogs.store.spectra import normalise, pool
from catalogs.surveys.desi import read_coadd
from mmae import cli, train
from mmae.models import checkpoint
from mmae.models.batch import Batch
from mmae.models.families import build
from mmae.reconstruct import Reconstruct, main
from mmae.scores.lines import LINES
from mmae.scores.reconstruction import Reconstruction, hidden_rms, reconstruct
from mmae.scores.reconstruction_figure import figure

COADDS = (
    "QuasarNP_test_coadd_everest_80605_25fibers.fits",
    "fsf_coadd-4-80613-thru20210324.fits",
    "fsf_coadd-special-dark-27247.fits",
)


def run(*argv: object) -> int:
    return cli.run(main, Reconstruct, [str(arg) for arg in argv], "mmae reconstruct")


@pytest.fixture(params=TINY)
def model(request):
    """A model of either family with random weights."""
    torch.manual_seed(0)
    model = build(TINY[request.param])
    for parameter in model.parameters():  # ours is initialised to the identity
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """train.zarr with spectra, rubin_tile.zarr without; run: a model trained on the former for an epoch."""
    folder = tmp_path_factory.mktemp("survey")
    mock.main(mock.Mock(folder, galaxies=60, tile=2, artefacts=0, shard_rows=64))
    ingest.main(ingest.Ingest(folder / "galaxies.hdf5", folder / "train.zarr", shard_rows=64))
    train.main(recipe("mmae", folder / "train.zarr", folder / "run", epochs=1, batch=16))
    return folder


def half_hidden(model, batch: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks that hide the first half of the image tokens and of the spectrum tokens."""
    tokens = model.config.spectrum_tokens
    return torch.arange(64).expand(batch, -1) < 32, torch.arange(tokens).expand(batch, -1) < tokens // 2


def rebuild(model, flux: np.ndarray, ivar: np.ndarray) -> tuple[torch.Tensor, Reconstruction]:
    """Reconstruct real spectra, with images of noise, by a model of random weights."""
    pooled = pool(normalise(flux, ivar), model.config.spectrum_pool)[:, : model.config.spectrum_length]
    spectrum = torch.from_numpy(pooled).float()
    image = torch.randn(len(spectrum), 5, 64, 64)
    return spectrum, reconstruct(model, image, spectrum, *half_hidden(model, len(spectrum)))


def check(spectrum: torch.Tensor, rebuilt: Reconstruction) -> None:
    n = len(spectrum)
    assert spectrum.shape == rebuilt.spectrum.shape == rebuilt.spectrum_hidden.shape
    assert rebuilt.image.shape == rebuilt.image_hidden.shape == (n, 5, 64, 64)
    assert rebuilt.redshift.shape == (n,)
    assert all(part.isfinite().all() for part in (spectrum, *rebuilt))
    assert spectrum.abs().amax() < 100


def test_real_spectra_go_through(real_data, model):
    joined = np.load(real_data / "desi_spectra_7781px.npz")
    spectrum, rebuilt = rebuild(model, joined["flux"], joined["ivar"])
    check(spectrum, rebuilt)
    assert (spectrum.std(1) > 0.1).all()


@pytest.mark.parametrize("name", COADDS)
def test_real_coadds_go_through(real_data, model, name):
    spectra = read_coadd(real_data / "desi_coadds" / name)
    check(*rebuild(model, spectra.flux, spectra.ivar))


def test_hidden_pixels_have_no_effect(model):
    length, patch = model.config.spectrum_length, model.config.spectrum_patch
    half = model.config.spectrum_tokens // 2 * patch
    image, spectrum = torch.randn(2, 5, 64, 64), torch.randn(2, length)
    rebuilt = reconstruct(model, image, spectrum, *half_hidden(model, 2))
    assert rebuilt.image_hidden[:, :, :32].all()
    assert not rebuilt.image_hidden[:, :, 32:].any()
    assert rebuilt.spectrum_hidden[:, :half].all()
    assert not rebuilt.spectrum_hidden[:, half:].any()
    other = reconstruct(
        model,
        torch.where(rebuilt.image_hidden, 9.0, image),
        torch.where(rebuilt.spectrum_hidden, 9.0, spectrum),
        *half_hidden(model, 2),
    )
    torch.testing.assert_close(other.image, rebuilt.image)
    torch.testing.assert_close(other.spectrum, rebuilt.spectrum)
    other_visible = torch.where(rebuilt.image_hidden, image, 9.0)
    changed = reconstruct(model, other_visible, spectrum, *half_hidden(model, 2))
    assert (changed.redshift != rebuilt.redshift).all()


def test_errors_are_those_of_hidden_pixels():
    truth = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [5.0, 5.0, 5.0, 5.0]])
    rebuilt = torch.tensor([[3.0, 4.0, 9.0, 9.0], [1.0, 1.0, 3.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    hidden = torch.tensor([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 0, 0]]).bool()
    rms = hidden_rms(rebuilt, truth, hidden)
    torch.testing.assert_close(rms[:2], torch.tensor([12.5, 2.0]).sqrt())  # (9 + 16) / 2; (0 + 4) / 2
    assert rms[2].isnan()


def test_the_figure_shows_what_was_seen_hidden_and_rebuilt():
    torch.manual_seed(0)
    model = build(TINY["himes2025"])
    truth = Batch.of_pairs(torch.randn(1, 5, 64, 64), torch.randn(1, 259), torch.tensor([2.0]))
    rebuilt = reconstruct(model, truth.image, truth.spectrum, *half_hidden(model, 1))
    wave = pool(3600 + 0.8 * np.arange(7783))
    galaxy = Batch(*(part[0] for part in truth)), Reconstruction(*(part[0] for part in rebuilt))
    plot = figure("7", wave, *galaxy, HSC)
    image, visible, filled, spectrum = plot.axes
    true, grey, rebuilt_image = (axes.get_images()[0].get_array() for axes in (image, visible, filled))
    np.testing.assert_array_equal(grey[32:], true[32:])
    np.testing.assert_array_equal(rebuilt_image[32:], true[32:])
    assert np.ptp(grey[:32]) == 0
    assert (rebuilt_image[:32] != true[:32]).any()

    marked = {text.get_text(): text.get_position()[0] for text in spectrum.texts}
    expected = {line: pytest.approx(3 * LINES[line].rest) for line in list(LINES)[:4]}
    assert marked == expected  # [O II] is at 11185 A, beyond the spectrum
    curves = {line.get_label(): line.get_ydata() for line in spectrum.get_lines()}
    np.testing.assert_array_equal(np.isfinite(curves["rebuilt"]), np.arange(259) < 128)
    assert np.isfinite(curves["true"]).all()


def test_the_command_draws_galaxies_of_the_test_split(trained, tmp_path, capsys):
    assert run(trained / "run", trained / "train.zarr", "--out", tmp_path / "out", "--objects", 3) == cli.OK
    output = capsys.readouterr().out
    table = re.findall(r"^ +(\d{17})((?: +-?\d+\.\d{3}){4}) *$", output, re.M)
    assert len(table) == 3
    assert sorted(f"{name}.png" for name, _ in table) == sorted(p.name for p in (tmp_path / "out").iterdir())
    for path in (tmp_path / "out").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG\r\n")
        assert imread(path).std() > 0.1
    assert "wrote 3 figures" in output
    assert str(tmp_path / "out") in output


def test_a_whole_image_and_no_spectrum_as_in_figure_2(trained, capsys):
    flags = ("--objects", 1000, "--image-mask", 0, "--spectrum-mask", 1)
    assert run(trained / "run/best.pt", trained / "train.zarr", *flags) == cli.OK
    drawn = len(list((trained / "run/reconstructions").glob("*.png")))
    rows = re.findall(r"^ +\d{17} +\S+ +\S+ +- +\d+\.\d{3} *$", capsys.readouterr().out, re.M)
    assert 0 < drawn == len(rows) < 30


def test_the_same_seed_gives_the_same_figures(trained, tmp_path, capsys):
    for seed, name in ((1, "a"), (1, "b"), (2, "c")):
        flags = ("--objects", 2, "--seed", seed, "--out", tmp_path / name)
        assert run(trained / "run", trained / "train.zarr", *flags) == cli.OK
    a, b, c = ({p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(("pixel_scale", "code"), [(0.2, cli.OK), (0.4, cli.REFUSED)])
def test_a_store_of_other_pixels_is_resampled_for_the_model_or_refused(
    trained, tmp_path, capsys, pixel_scale, code
):
    """Called of other pixels, that is, and so drawn otherwise."""
    other = shutil.copytree(trained / "train.zarr", tmp_path / "other.zarr")
    zarr.open_group(other).attrs.update({"format": "another", "pixel_scale": pixel_scale})
    assert run(trained / "run", other, "--objects", 1, "--out", tmp_path / "other") == code
    refusal = f"has pixel_scale {pixel_scale} arcsec a pixel, the model was trained at 0.168"
    assert (refusal in capsys.readouterr().err) == (code == cli.REFUSED)
    if code == cli.OK:
        assert run(trained / "run", trained / "train.zarr", "--objects", 1, "--out", tmp_path / "own") == code
        (name,) = (path.name for path in (tmp_path / "own").iterdir())
        assert (tmp_path / "own" / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("absent train.zarr", cli.USAGE, "absent does not exist"),
        ("run absent.zarr", cli.USAGE, "absent.zarr does not exist"),
        ("run train.zarr --out galaxies.hdf5", cli.USAGE, "is a file"),
        ("run train.zarr --image-mask 1.5", cli.USAGE, "shares from 0 to 1"),
        ("run train.zarr --objects 0", cli.USAGE, "must be from 1 to"),
        ("train.zarr train.zarr", cli.REFUSED, "no whole checkpoint"),
        ("galaxies.hdf5 train.zarr", cli.REFUSED, "is not a checkpoint"),
        ("run rubin_tile.zarr", cli.REFUSED, "lacks spectra"),
    ],
)
def test_what_cannot_be_rebuilt_is_one_sentence_and_writes_nothing(
    trained, monkeypatch, capsys, arguments, code, message
):
    monkeypatch.chdir(trained)
    before = sorted(trained.rglob("*"))
    assert run(*arguments.split()) == code
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not captured.out
    assert sorted(trained.rglob("*")) == before


def test_a_damaged_checkpoint_is_refused(trained, tmp_path, capsys):
    whole = checkpoint.find(trained / "run").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])
    assert run(tmp_path / "cut.pt", trained / "train.zarr") == cli.REFUSED
    assert sorted(p.name for p in tmp_path.iterdir()) == ["cut.pt"]
