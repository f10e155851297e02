"""`mmae embed` as a user runs it: vectors are the model's, whatever computes them and whatever is killed."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
import torch
import zarr
from astropy.table import Table
from conftest import TINY
from killing import WAIT_SECONDS, wait_for

from catalogs.errors import InputRefused
from catalogs.store import cutouts
from catalogs.store.cutouts import open_store
from catalogs.store.format import NO_METADATA
from catalogs.store.manifest import altered_files
from catalogs.store.resampling import resample
from mmae import cli
from mmae.bundles.bundle import open_bundle
from mmae.bundles.engine import device_of_this_process
from mmae.models import checkpoint
from mmae.production.embedder import Embedder, Setup, Task, open_encoder
from mmae.production.plan import BATCH
from mmae.production.units import Rows
from mmae.training.data import TrainingSet

PRODUCT = "rubin_tile.embeddings.zarr"


def command(*flags):
    return [sys.executable, "-u", "-m", "mmae.embed", "--catalog", *map(str, flags)]


def embed(*flags):
    return subprocess.run(command(*flags), capture_output=True, text=True)


def products(folder):
    """All files of what was written, by name."""
    files = (file for path in folder.glob("*.embeddings.zarr*") for file in (path, *path.rglob("*")))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if file.is_file()}


@pytest.fixture(scope="session")
def undisturbed(embeddings):
    """Folder with the product of the tile (4 shards), made in one go by one worker."""
    return embeddings


def test_a_row_is_what_the_program_makes_of_the_image(survey, bundle, undisturbed):
    group = zarr.open_group(undisturbed / PRODUCT, mode="r")
    store = open_store(survey / "rubin_tile.zarr")
    for name in ("object_id", "ra", "dec"):
        assert (group[name][:] == store.column(name)).all()
    program = open_bundle(bundle).load(device_of_this_process())
    with torch.inference_mode():
        joint = program(torch.from_numpy(store.images(512, 576)[0]))[2].numpy()
    np.testing.assert_allclose(group["embedding"][512:576], joint, atol=1e-6)
    assert group["embedding"].dtype == np.float32
    assert group.attrs["made_of"] == "image"
    assert group.attrs["model_sha256"] == open_bundle(bundle).sha256
    assert not altered_files(undisturbed / PRODUCT)


def test_topcat_gets_it_as_the_readme_says(undisturbed, tmp_path):
    tile = zarr.open_group(undisturbed / PRODUCT, mode="r")
    Table({name: tile[name][:] for name in tile}).write(tmp_path / "tile.fits")
    again = Table.read(tmp_path / "tile.fits")
    assert (again["embedding"] == tile["embedding"][:]).all()
    assert (again["object_id"] == tile["object_id"][:]).all()


def test_workers_make_no_difference_and_what_is_finished_is_left_alone(survey, bundle, undisturbed, tmp_path):
    flags = (survey / "rubin_tile.zarr", "--model", bundle, "--out", tmp_path)
    assert embed(*flags, "--workers", 2).returncode == cli.OK
    assert products(tmp_path) == products(undisturbed)
    again = embed(*flags)
    assert again.returncode == cli.OK
    assert "is finished already; nothing to do" in again.stdout
    assert products(tmp_path) == products(undisturbed)


def test_what_cannot_be_used_is_nan_and_its_neighbours_are_not(survey, bundle, undisturbed, tmp_path):
    store = open_store(survey / "rubin_tile.zarr")
    image = store.images(0, 128)[0]
    image[3], image[70, 1:] = np.nan, 0.0
    columns = {name: store.column(name, 0, 128) for name in ("object_id", "ra", "dec")} | {"image": image}
    path = tmp_path / "holes.zarr"
    cutouts.write(path, lambda a, b: {name: of[a:b] for name, of in columns.items()}, n=128, survey="mock")
    setup = Setup.of(open_encoder(bundle, None, BATCH))
    actor = Embedder(setup)
    actor.begin()
    found = actor.process(0, Task(path, NO_METADATA, open_store(path).stamp), Rows(0, 0, 128))["embedding"]
    expected = zarr.open_group(undisturbed / PRODUCT, mode="r")["embedding"][:128]
    expected[[3, 70]] = np.nan
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputRefused, match="was changed while it was being read"):
        Embedder(replace(setup, sha256="another")).begin()


def test_pixels_of_another_scale_are_brought_to_that_of_the_model(survey, bundle, undisturbed, tmp_path):
    store = open_store(survey / "rubin_tile.zarr")
    columns = {name: store.column(name, 0, 64) for name in ("object_id", "ra", "dec")}
    columns["image"] = resample(store.images(0, 64)[0], 0.2 / 0.168)[..., 6:59, 6:59]
    path = tmp_path / "rubin_tile.zarr"
    cutouts.write(path, lambda a, b: columns, n=64, survey="mock", size=53, shard_rows=64, pixel_scale=0.2)
    done = embed(path, "--model", bundle)
    assert done.returncode == cli.OK, done.stderr
    group = zarr.open_group(tmp_path / PRODUCT, mode="r")
    assert group.attrs["input_pixel_scale"] == 0.2
    expected = zarr.open_group(undisturbed / PRODUCT, mode="r")["embedding"][:64]
    assert np.median(np.abs(group["embedding"][:] - expected) / expected.std(0)) < 0.1
    path = tmp_path / "coarse.zarr"
    cutouts.write(path, lambda a, b: columns, n=64, survey="mock", size=53, shard_rows=64, pixel_scale=0.4)
    refused = embed(path, "--model", bundle)
    assert refused.returncode == cli.REFUSED
    assert "has pixel_scale 0.4 arcsec a pixel, the model was trained at 0.168" in refused.stderr


@pytest.mark.parametrize("preset", TINY)
def test_a_checkpoint_makes_one_vector_of_image_and_spectrum(survey, runs, preset):
    encoder = open_encoder(runs(preset), None, BATCH)
    store = open_store(survey / "train.zarr")
    read = encoder.input.read
    found = encoder.joint(store, 0, 100, read(store, 0, 100))
    parts = [encoder.joint(store, a, b, read(store, a, b)) for a, b in ((0, 1), (1, 37), (37, 100))]
    assert np.concatenate(parts).tobytes() == found.tobytes()
    model, _ = checkpoint.load_model(encoder.path)
    batch = TrainingSet(survey / "train.zarr", model.config).read(np.arange(64))
    whole = [torch.zeros(64, tokens, dtype=torch.bool) for tokens in (64, model.config.spectrum_tokens)]
    with torch.inference_mode():
        joint = model(batch.image, batch.spectrum, *whole).joint
        blind = model(batch.image, batch.spectrum, whole[0], ~whole[1]).joint
    assert joint.shape[1] == encoder.width
    np.testing.assert_allclose(found[:64], joint, atol=1e-5)
    assert (joint - blind).abs().max() > 1e-3


@pytest.mark.parametrize("preset", TINY)
def test_a_galaxy_without_a_spectrum_is_embedded_by_its_image_alone(mixed, runs, preset):
    encoder, store = open_encoder(runs(preset), None, BATCH), open_store(mixed)
    read = encoder.input.read
    found = encoder.joint(store, 0, 100, read(store, 0, 100))
    parts = [encoder.joint(store, a, b, read(store, a, b)) for a, b in ((0, 1), (1, 37), (37, 100))]
    assert np.concatenate(parts).tobytes() == found.tobytes()
    model, _ = checkpoint.load_model(encoder.path)
    data = TrainingSet(mixed, model.config)
    batch, absent = data.read(np.arange(100)), torch.from_numpy(~data.has_spectrum[:100])
    assert 30 < absent.sum() < 70
    hidden = absent[:, None].expand(-1, model.config.spectrum_tokens)
    with torch.inference_mode():
        joint = model(batch.image, batch.spectrum, torch.zeros(100, 64, dtype=torch.bool), hidden).joint
    np.testing.assert_allclose(found, joint, atol=1e-5)


def test_a_training_store_is_embedded_with_its_spectra(survey, trained, tmp_path):
    done = embed(survey / "train.zarr", "--model", trained, "--out", tmp_path)
    assert done.returncode == cli.OK, done.stderr
    group = zarr.open_group(tmp_path / "train.embeddings.zarr", mode="r")
    assert group.attrs["made_of"] == "image and spectrum"
    assert group["embedding"].shape == (256, 64)
    assert np.isfinite(group["embedding"][:]).all()


# ---------------------------------------------------------------- killed


@contextlib.contextmanager
def running(*flags):
    with subprocess.Popen(
        command(*flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    ) as process:
        yield process
        if process.poll() is None:
            process.kill()


def shards(folder):
    return list(folder.glob(f"{PRODUCT}.partial/shard-*.json"))


def actor_of(process):
    for child in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if child.cmdline()[:1] and "Embedder" in child.cmdline()[0]:
                return child
    return None


def test_a_killed_run_goes_on_to_the_same_bytes(survey, bundle, undisturbed, tmp_path):
    flags = (survey / "rubin_tile.zarr", "--model", bundle, "--out", tmp_path, "--workers", 1)
    with running(*flags) as process:
        wait_for(lambda: shards(tmp_path), process)
        os.kill(process.pid, signal.SIGKILL)
    assert not (tmp_path / PRODUCT).exists()
    again = embed(*flags)
    assert again.returncode == cli.OK, again.stderr
    assert "resuming: " in again.stdout
    assert products(tmp_path) == products(undisturbed)


def test_a_killed_actor_is_replaced(survey, bundle, undisturbed, tmp_path):
    with running(survey / "rubin_tile.zarr", "--model", bundle, "--out", tmp_path, "--workers", 1) as process:
        wait_for(lambda: shards(tmp_path), process)
        actor_of(process).kill()
        assert process.wait(WAIT_SECONDS) == cli.OK
    assert products(tmp_path) == products(undisturbed)


# ---------------------------------------------------------------- refused


def run(*flags):
    return cli.run_command("embed", ["--catalog", *map(str, flags)])


def test_what_cannot_be_done_is_one_sentence_and_writes_nothing(survey, bundle, trained, tmp_path, capsys):
    tile = survey / "rubin_tile.zarr"
    for flags, code, words in (
        ((tile, "--model", tmp_path / "absent"), cli.USAGE, "absent does not exist"),
        ((tile, "--model", tmp_path), cli.REFUSED, "holds no whole checkpoint"),
        ((tmp_path / "absent.zarr", "--model", bundle), cli.USAGE, "absent.zarr does not exist"),
        ((tile, "--model", bundle, "--workers", -1), cli.USAGE, "must not be negative"),
        ((tile, "--model", bundle, "--ray-address", "here"), cli.USAGE, "must be HOST:PORT"),
        ((tile, "--model", trained), cli.REFUSED, "has no spectra: to embed images alone, name a bundle"),
        ((tile, "--model", bundle, "--zero-point", 30), cli.REFUSED, "has zero_point 27"),
    ):
        assert run(*flags, "--out", tmp_path) == code
        said = capsys.readouterr()
        assert words in said.err
        assert said.err.count("\n") == 1
        assert list(tmp_path.iterdir()) == []


def test_a_product_of_another_model_is_refused_and_left_alone(
    survey, bundle, bundles, undisturbed, tmp_path, capsys
):
    shutil.copytree(undisturbed, tmp_path, dirs_exist_ok=True)
    before = products(tmp_path)
    flags = (survey / "rubin_tile.zarr", "--out", tmp_path, "--model")
    assert run(*flags, bundles("himes2025")) == cli.REFUSED
    assert "was made with another model_sha256" in capsys.readouterr().err
    (tmp_path / PRODUCT / "embedding" / "c" / "0" / "0").write_bytes(b"")
    assert run(*flags, bundle) == cli.REFUSED
    assert "is 0 bytes long" in capsys.readouterr().err
    assert products(tmp_path).keys() == before.keys()
