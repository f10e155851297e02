"""Stars, galaxies and quasars: a store that says which is which, a model that learns it, a catalogue."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from astropy.table import Table
from conftest import recipe

from catalogs import ingest
from catalogs.errors import InputRefused
from catalogs.mock.objects import TRAINING, draw
from catalogs.mock.survey import Mock, draw_blocks, write_galaxies
from catalogs.mock.workers import workers
from catalogs.products.schema import Flag
from catalogs.products.screen import screen_estimates
from catalogs.store.cutouts import open_store
from catalogs.store.format import SPECTYPES, STAR
from mmae import evaluate, export, train
from mmae.bundles import columns
from mmae.bundles.bundle import open_bundle
from mmae.bundles.engine import Engine
from mmae.bundles.summary import columns_of_class
from mmae.models import checkpoint
from mmae.scores.catalogue.classes import table
from mmae.training.data import TEST, TRAIN, VALIDATION, TrainingSet

N = 384


@pytest.fixture(scope="module")
def starry(tmp_path_factory):
    """A store of pairs a third of which are stars, out of a file in the layout of GalaxiesML-Spectra."""
    folder = tmp_path_factory.mktemp("starry")
    config = Mock(folder, galaxies=N, seed=4, stars=0.33, artefacts=0)
    with workers(2) as pool:
        pairs = draw_blocks(pool, config, TRAINING, 0, N, "pairs")
        write_galaxies(folder / "galaxies.hdf5", N, pairs)
    ingest.main(ingest.Ingest(folder / "galaxies.hdf5", folder / "train.zarr", shard_rows=128))
    return folder / "train.zarr"


@pytest.fixture(scope="module")
def run(starry, tmp_path_factory):
    config = recipe("mmae", starry, tmp_path_factory.mktemp("run"), epochs=6, schedule="constant")
    train.main(config)
    return config.out


@pytest.fixture(scope="module")
def bundle(run):
    export.main(export.Export(run))
    return open_bundle(run / "bundle", "fp32")


def test_the_store_says_what_an_object_is_and_no_star_has_a_redshift(starry, run):
    store, drawn = open_store(starry), draw(4, TRAINING, range(64), 0, stars=0.33)
    codes = store.column("spectype")
    assert [SPECTYPES[code] for code in codes[:64]] == drawn.kind.tolist()
    others = draw(4, TRAINING, range(8), 0)  # the same objects where no star took their place
    kept = drawn.kind[:8] != "STAR"
    np.testing.assert_array_equal(drawn.image[:8][kept], others.image[kept])
    data = TrainingSet(starry, checkpoint.load_model(checkpoint.find(run))[0].config)
    is_star = codes == STAR
    assert np.isnan(data.redshift[is_star]).all()
    assert np.isfinite(data.redshift[~is_star]).all()
    for name in (VALIDATION, TEST):
        judged, classified = data.rows(name), data.rows(name, stars=True)
        assert not is_star[judged].any()
        np.testing.assert_array_equal(classified[~is_star[classified]], judged)
        assert is_star[classified].any()
    assert is_star[data.rows(TRAIN)].any()
    assert (data.kind(data.rows(TRAIN)) == 0).all()  # stars are labelled, too


def test_a_catalogue_says_what_an_object_is(starry, run, bundle):
    """Most objects that it was not trained on are what they are likeliest to be, and stars are flagged."""
    data = TrainingSet(starry, checkpoint.load_model(checkpoint.find(run))[0].config)
    rows = np.concatenate([data.rows(name, stars=True) for name in (VALIDATION, TEST)])
    batch = data.read(rows)
    values = columns.named(Engine(bundle, torch.device("cpu"), 64).table(batch.image.numpy(), rows))
    probability = np.stack([values[name] for name in columns.CLASSES], 1)
    np.testing.assert_allclose(probability.sum(1), 1, rtol=1e-5)
    scores = table(probability, batch.spectype.numpy())
    assert scores["completeness"][0] > 0.6
    assert scores["purity"][0] > 0.6
    reason = np.full(len(rows), "", "S16").astype(str)
    reason, flags = screen_estimates(columns.point_estimate(values), values, reason, (0, 5))
    np.testing.assert_array_equal((flags & Flag.LIKELY_STAR) > 0, (values["P_STAR"] > 0.5) & (reason == ""))
    fitted = bundle.card["calibration"]["classes"]
    assert sum(fitted["objects"].values()) == len(data.rows(VALIDATION, stars=True))
    assert 0.25 <= fitted["temperature"] <= 4


def test_without_stars_nothing_is_said_of_classes(trained, survey):
    """Galaxies and quasars alone tell no model what a star is: it has the weights that it had before."""
    model, _ = checkpoint.load_model(checkpoint.find(trained))
    assert open_store(survey / "train.zarr").has("spectype")
    assert not [name for name in model.state_dict() if name.startswith("class_head")]
    assert all(values.isnan().all() for values in columns_of_class(torch.zeros(3, 0)).values())


def test_a_model_of_galaxies_learns_classes_from_a_store_with_stars(starry, trained, tmp_path):
    config = recipe("mmae", starry, tmp_path / "run", start=trained, epochs=1, lr=1e-4)
    train.main(config)
    model, _ = checkpoint.load_model(checkpoint.find(config.out))
    assert model.config.classes
    before, _ = checkpoint.load_model(checkpoint.find(trained))
    assert not before.config.classes
    assert torch.equal(model.photometry.whiten, before.photometry.whiten)  # it began with that one


def test_codes_of_no_class_are_refused(draw_training, tmp_path):
    spectype = np.repeat([1, 7], [3, 5]).astype(np.uint8)
    path = draw_training(tmp_path / "odd.zarr", np.arange(8), spectype=spectype)
    with pytest.raises(InputRefused, match=r"spectype of 7: write one of 0 not known, 1 STAR"):
        TrainingSet(path, dataclasses.replace(recipe("mmae", path, tmp_path).model))


def test_evaluate_scores_classes_where_the_truth_tells_them(tmp_path, capsys):
    """Thirty objects; stars have no redshift in the truth, or 0; ten were trained on, and are left out."""
    spectype = np.repeat(["STAR", "GALAXY", "QSO"], 10)
    probability = np.full((30, 3), 0.05)
    probability[np.arange(30), np.repeat([0, 1, 2], 10)] = 0.9
    probability[[12, 24]] = (0.9, 0.05, 0.05)  # one galaxy and one quasar are taken for stars
    z = np.where(spectype == "STAR", np.nan, np.linspace(0.1, 0.9, 30))
    catalogue = Table({"OBJECT_ID": np.arange(30), "RA": np.linspace(10, 11, 30), "DEC": np.zeros(30)})
    catalogue["PHOTOZ_POINT"] = catalogue["PHOTOZ_BEST"] = np.nan_to_num(z, nan=0.3)
    catalogue["IN_TRAINING"] = np.tile([0, 0, 1], 10)
    for name, values in zip(columns.CLASSES, probability.T, strict=True):
        catalogue[name] = values
    catalogue.write(tmp_path / "tile.photoz.fits")
    truth = Table({"OBJECT_ID": np.arange(30), "Z_SPEC": z, "SPECTYPE": spectype, "MAG_I": np.full(30, 20.5)})
    truth.write(tmp_path / "truth.fits")
    evaluate.main(evaluate.Evaluate(tmp_path / "tile.photoz.fits", tmp_path / "truth.fits", draws=5))
    scores = Table.read(tmp_path / "tile.photoz.evaluation/classes.ecsv")
    assert scores["magnitude"].tolist() == ["all"] * 3 + ["20-21"] * 3
    assert scores["n"][:3].tolist() == [7, 7, 6]
    np.testing.assert_allclose(scores["completeness"][:3], [1, 6 / 7, 5 / 6])
    np.testing.assert_allclose(scores["purity"][:3], [7 / 9, 1, 1])
    assert "completeness" in capsys.readouterr().out
    truth[truth["SPECTYPE"] != "QSO"].write(tmp_path / "truth.fits", overwrite=True)
    evaluate.main(evaluate.Evaluate(tmp_path / "tile.photoz.fits", tmp_path / "truth.fits", draws=5))
    report = json.loads(
        (tmp_path / "tile.photoz.evaluation/metrics.json").read_text(), parse_constant=pytest.fail
    )
    assert report["classes"][2]["completeness"] is None  # of no quasars
    truth["SPECTYPE"] = ""
    truth.add_row({"OBJECT_ID": 1000, "Z_SPEC": 0.5, "SPECTYPE": "GALAXY", "MAG_I": 20})  # elsewhere
    truth.write(tmp_path / "truth.fits", overwrite=True)
    evaluate.main(evaluate.Evaluate(tmp_path / "tile.photoz.fits", tmp_path / "truth.fits", draws=5))
    assert not (tmp_path / "tile.photoz.evaluation/classes.ecsv").exists()
    truth.remove_column("SPECTYPE")
    truth.write(tmp_path / "truth.fits", overwrite=True)
    evaluate.main(evaluate.Evaluate(tmp_path / "tile.photoz.fits", tmp_path / "truth.fits", draws=5))
    assert not (tmp_path / "tile.photoz.evaluation/classes.ecsv").exists()
