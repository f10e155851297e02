"""Columns of a catalogue beside images: from a file of a survey through training to a catalogue."""

import json
import math
import warnings

import numpy as np
import pytest
import torch
import zarr
from conftest import recipe

from catalogs import ingest
from catalogs.errors import InputRefused, UsageError
from catalogs.products.model_input import ModelInput
from catalogs.store.cutouts import open_store
from mmae import export, train
from mmae.bundles.bundle import open_bundle
from mmae.bundles.columns import named
from mmae.bundles.engine import Engine
from mmae.bundles.program import estimates
from mmae.layers.conditions import split_told
from mmae.models import checkpoint
from mmae.training.data import TRAIN, TrainingSet
from mmae.training.runlog import read_reports

CARD = {"zero_point": 27.0, "pixel_scale": 0.168, "bands": ("hsc_g", "hsc_r", "hsc_i")}
NAMES = tuple(f"{band}_cmodel_mag" for band in "griz")


@pytest.fixture(scope="module")
def store(survey, tmp_path_factory):
    path = tmp_path_factory.mktemp("columns") / "train.zarr"
    ingest.main(ingest.Ingest(survey / "galaxies.hdf5", path, columns=NAMES, shard_rows=128))
    return path


@pytest.fixture(scope="module")
def run(store, tmp_path_factory):
    config = recipe("mmae", store, tmp_path_factory.mktemp("run"), columns=NAMES, schedule="constant")
    train.main(config)
    return config.out


@pytest.fixture(scope="module")
def model(run):
    return checkpoint.load_model(checkpoint.find(run))[0]


@pytest.fixture(scope="module")
def bundle(run):
    export.main(export.Export(run))
    return open_bundle(run / "bundle", "fp32")


def test_columns_come_with_the_images(store, model):
    opened = open_store(store)
    assert opened.extra == sorted(f"columns/{name}" for name in NAMES)
    data = TrainingSet(store, model.config)
    batch = data.read(np.arange(40))
    told, columns = split_told(batch.conditions, 5, 4)
    assert told.isnan().all()
    for k, name in enumerate(NAMES):
        np.testing.assert_array_equal(columns[:, k], opened.column(f"columns/{name}", 0, 40).astype("f4"))


@pytest.fixture
def foreign(tmp_path):
    """`foreign(**columns)`: a store of seven objects as another program writes it, with further columns."""

    def write(**columns):
        group = zarr.create_group(tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr")
        group.attrs.update(bands=["hsc_g", "hsc_r", "hsc_i"], pixel_scale=0.168, zero_point=27.0)
        arrays = {"image": np.ones((7, 3, 64, 64), "f4"), "object_id": np.arange(7)}
        arrays |= {"ra": np.zeros(7), "dec": np.zeros(7)}
        for name, values in arrays.items():
            group.create_array(name, data=values, config={"write_empty_chunks": True})
        group.create_group("columns")
        for name, (values, options) in columns.items():
            group["columns"].create_array(name, data=values, **options)
        return group.store.root

    return write


def test_what_catalogues_write_for_nothing_is_nothing(foreign):
    values = np.array([-99.0, 99.99, np.inf, -np.inf, np.nan, 1e300, 21.5])
    path = foreign(r_cmodel_mag=(values, {}), note=(np.zeros((7, 2)), {}))
    store, taken = open_store(path), ModelInput.of({**CARD, "columns": NAMES}, 2)
    found = taken.columns_of(store)
    assert np.isnan(found[:, [0, 2, 3]]).all()
    assert np.isfinite(found[:, 1]).tolist() == [False] * 6 + [True]
    assert "goes on without" in taken.differences(store)
    assert "g_cmodel_mag" in taken.differences(store)


@pytest.mark.parametrize("values", [np.zeros((7, 2)), np.zeros(6), np.array(["a"] * 7)], ids=str)
def test_a_column_that_is_not_a_number_an_object_is_refused_where_it_is_used(foreign, values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the type of strings
        path = foreign(r_cmodel_mag=(values, {}))
    store = open_store(path)
    assert np.isnan(ModelInput.of(CARD, 2).columns_of(store)).all()
    with pytest.raises(InputRefused, match="columns/r_cmodel_mag is not a number for each of the 7 objects"):
        ModelInput.of({**CARD, "columns": NAMES}, 2).columns_of(store)


def test_a_column_is_decoded_by_no_codec_that_runs_code(foreign):
    path = foreign(r_cmodel_mag=(np.zeros(7), {}))
    metadata = path / "columns/r_cmodel_mag/zarr.json"
    text = json.loads(metadata.read_text())
    text["codecs"].append({"name": "numcodecs.pickle", "configuration": {}})
    metadata.write_text(json.dumps(text))
    with pytest.raises(InputRefused, match="names the codec 'pickle'"):
        open_store(path)


def test_without_columns_p_of_z_is_that_of_the_image_alone(bundle, model, store):
    data = TrainingSet(store, model.config)
    batch = data.read(data.rows(TRAIN)[:64])
    program = bundle.load(torch.device("cpu"))
    told, columns = split_told(batch.conditions, 5, 4)
    nothing = torch.cat([told, columns.new_full(columns.shape, math.nan)], 1)
    whole, without, absent = (
        estimates(program, batch.image, conditions) for conditions in (batch.conditions, told, nothing)
    )
    assert torch.equal(without.mass, absent.mass)
    assert torch.equal(without.joint, whole.joint)
    assert (whole.mass - without.mass).abs().max() > 1e-3
    half = torch.where(torch.arange(4) % 2 == 0, columns, math.nan)
    some = estimates(program, batch.image, torch.cat([told, half], 1))
    assert (some.mass - whole.mass).abs().max() > 1e-4
    torch.testing.assert_close(some.mass.sum(1), torch.ones(64))


def test_the_program_is_the_model_and_an_engine_needs_no_columns(bundle, store):
    assert bundle.card["agreement"]["float64"] < 1e-10
    assert bundle.input.columns == NAMES
    image = np.random.default_rng(0).normal(size=(3, 5, 64, 64)).astype("f4")
    table = Engine(bundle, torch.device("cpu"), 64).table(image, np.arange(3))
    assert np.isfinite(named(table)["PHOTOZ_BEST"]).all()


def test_hidden_columns_are_rebuilt(model, run):
    assert list(model.loss_weights)[-1] == "columns"
    losses = [report["columns"] for report in read_reports(run) if report["kind"] == "train"]
    assert losses
    assert min(losses) > 0


def test_a_column_that_no_store_has_is_refused(store, survey, trained, tmp_path):
    config = recipe("mmae", store, tmp_path / "run", columns=("i_cmodel_mag", "i_size"))
    with pytest.raises(UsageError, match="no store has the column i_size: they have g_cmodel_mag, "):
        train.main(config)
    config = recipe("mmae", store, tmp_path / "run", columns=NAMES, start=trained)
    with pytest.raises(UsageError, match="knows none, leave it out"):
        train.main(config)
    config = recipe("himes2025", store, tmp_path / "run", columns=NAMES)
    with pytest.raises(UsageError, match="for our own model"):
        train.main(config)
    with pytest.raises(UsageError, match="has no column size; it has g_cmodel_mag, "):
        ingest.main(ingest.Ingest(survey / "galaxies.hdf5", tmp_path / "x.zarr", columns=("size",)))
