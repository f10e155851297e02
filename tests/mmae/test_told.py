"""What a survey says of its objects, from store to catalogue: trained with it, inferred with and without."""

import subprocess

import numpy as np
import pytest
import zarr
from astropy.table import Table
from conftest import recipe
from infer_runs import command

from catalogs.mock.survey import Mock
from catalogs.mock.survey import main as mock
from catalogs.products.schema import Flag
from mmae import export, train
from mmae.bundles.bundle import open_bundle
from mmae.models import checkpoint


@pytest.fixture(scope="module")
def rubin(tmp_path_factory):
    """A mock of Rubin, with bad pixels in every third image, and a model that was trained on it."""
    folder = tmp_path_factory.mktemp("rubin") / "mock"
    mock(Mock(folder, survey="rubin", galaxies=160, tile=64, seed=4, shard_rows=64, artefacts=0.3))
    train.main(recipe("mmae", folder / "train.zarr", folder / "run"))
    # a tiny model has hardly begun to listen after ten steps: it is made to
    state = checkpoint.load(folder / "run" / checkpoint.BEST)
    for weights in (state["model"], state["average"]):
        weights["photometric_pdf.up"][..., -20:] += 0.05
    checkpoint.save(folder / "run" / checkpoint.BEST, state)
    export.main(export.Export(folder / "run"))
    return folder


def inferred(rubin, folder, drop=()):
    """The catalogue and what was printed, of the tile as a store of another program without some arrays."""
    source, path = zarr.open_group(rubin / "rubin_tile.zarr", mode="r"), folder / "tile.zarr"
    names = ("bands", "pixel_scale", "zero_point")
    tile = zarr.create_group(path, attributes={name: source.attrs[name] for name in names})
    for name in set(source.array_keys()) - set(drop):
        tile.create_array(name, data=source[name][:], config={"write_empty_chunks": name != "mask"})
    done = subprocess.run(command(path, rubin / "run/bundle"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Table.read(folder / "tile.photoz.fits", hdu=1), done.stdout


@pytest.fixture(scope="module")
def told(rubin, tmp_path_factory):
    return inferred(rubin, tmp_path_factory.mktemp("told"))


def test_redshifts_hear_what_a_store_says_and_what_it_does_not_say_is_missed(rubin, told, tmp_path):
    assert open_bundle(rubin / "run/bundle").card["training_data"]["told"] == ["psf_fwhm", "ebv"]
    catalogue, said = told
    untold, missing = inferred(rubin, tmp_path, drop=("psf_fwhm", "ebv", "noise", "mask"))
    assert "goes on without" not in said
    assert "goes on without psf_fwhm, ebv" in missing
    _, one, two = np.intersect1d(catalogue["OBJECT_ID"], untold["OBJECT_ID"], return_indices=True)
    assert np.median(np.abs(catalogue["PHOTOZ_BEST"][one] - untold["PHOTOZ_BEST"][two])) > 1e-5


def test_pixels_that_a_store_calls_bad_are_flagged(rubin, told):
    catalogue, _ = told
    store = zarr.open_group(rubin / "rubin_tile.zarr", mode="r")
    bad = (store["mask"][:] != 0).any((1, 2))
    assert bad.any()
    flagged = catalogue["OBJECT_ID"][(catalogue["PHOTOZ_FLAGS"] & Flag.MASKED_PIXELS) != 0]
    assert set(store["object_id"][:][bad]) & set(catalogue["OBJECT_ID"]) <= set(flagged)
