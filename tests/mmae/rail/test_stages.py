"""The stages in RAIL: found by it, run by a pipeline, judged by its evaluators."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import qp
import tables_io
from finished_files import around, rows, write
from qp.metrics.pit import PIT

from catalogs.errors import InputRefused, UsageError
from catalogs.products.photoz import Provenance
from catalogs.products.quantiles import LEVELS, cumulative, polyline
from mmae.bundles.bundle import open_bundle
from mmae.rail.sources import FromCatalogue, FromStore
from mmae.scores import calibration, metrics

with warnings.catch_warnings(action="ignore"):  # of RAIL's own imports
    from rail.core.stage import RailPipeline, RailStage
    from rail.estimation.algos.mmae import MmaeEstimator, MmaeInformer
    from rail.evaluation.point_to_point_evaluator import PointToPointEvaluator

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
GRID = np.linspace(0, 5, 501)


@pytest.fixture(scope="module")
def store(draw_tile, tmp_path_factory):
    return draw_tile(tmp_path_factory.mktemp("store") / "tile.zarr", 0, 128)


@pytest.fixture(scope="module")
def source(store, bundle):
    return FromStore(store, open_bundle(bundle))


@pytest.fixture(scope="module")
def ids(source):
    """Of the store, in another order, and one that is not there."""
    known = source.store.column("object_id").astype(np.int64)
    return np.append(np.random.default_rng(0).permutation(known), 7)


@pytest.fixture(scope="module")
def catalogue(source, ids, bundle, tmp_path_factory):
    """Of the objects of the store, by the same model."""
    found = source.find(np.sort(ids[:-1]), GRID).rows
    opened = open_bundle(bundle)
    made_by = Provenance(opened.sha256, "mock", "0", "b" * 64, opened.z_range)
    return write(tmp_path_factory.mktemp("catalogue") / "tile.photoz.fits", found, made_by)


class Photoz(RailPipeline):
    """Inform, estimate."""

    def __init__(self, bundle, **places):
        super().__init__()
        self.inform = MmaeInformer.build(bundle=str(bundle), hdf5_groupname="")
        self.estimate = MmaeEstimator.build(
            connections={"model": self.inform.io.model},
            hdf5_groupname="",
            chunk_size=50,
            zmax=5.0,
            nzbins=501,
            **places,
        )


@pytest.fixture(scope="module")
def estimated(bundle, catalogue, ids, tmp_path_factory):
    """Folder of a pipeline over a catalogue that RAIL has run, a process a stage."""
    folder = tmp_path_factory.mktemp("pipeline")
    truth = np.linspace(0.1, 2, len(ids))
    tables_io.write({"object_id": ids, "redshift": truth}, str(folder / "input"), "hdf5")
    pipeline = Photoz(bundle, catalogue=str(catalogue))
    run = {"output_dir": str(folder), "log_dir": str(folder), "resume": False}
    pipeline.initialize({"input": str(folder / "input.hdf5")}, run, None)
    pipeline.save(str(folder / "pipeline.yml"))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["ceci", "pipeline.yml"], cwd=folder, env=os.environ | {"PATH": path}, capture_output=True, text=True
    )
    said = "".join(log.read_text() for log in folder.glob("*.out"))
    assert ran.returncode == 0, ran.stdout + said
    return folder


def test_rail_finds_the_stages_by_itself():
    program = (
        "import rail.stages; rail.stages.import_and_attach_all(silent=True); "
        "print(rail.stages.MmaeEstimator.__module__, rail.stages.MmaeInformer.__module__)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["rail.estimation.algos.mmae"] * 2
    assert RailStage.pipeline_stages["MmaeEstimator"][0] is MmaeEstimator


def test_a_pipeline_gives_the_p_of_z_of_the_catalogue(estimated, source, ids):
    made = qp.read(str(estimated / "output_estimate.hdf5"))
    found = source.find(ids, GRID).rows
    assert np.array_equal(made.ancil["id"], ids)
    assert np.array_equal(made.ancil["zbest"][:-1], found["PHOTOZ_BEST"][:-1])
    assert made.ancil["has_pdf"].tolist() == [1] * 128 + [0]
    assert np.isnan(made.ancil["zbest"][-1])
    assert np.allclose(made.pdf(GRID)[-1], 1 / 5)
    before, after = (cumulative(found["PDF_QUANT"][:-1], GRID + shift) for shift in (-0.01, 0.01))
    reached = made.cdf(GRID)[:-1]
    assert ((before - 1e-4 < reached) & (reached < after + 1e-4)).all()


def test_a_store_gives_the_models_own_p_of_z(source, ids, catalogue, bundle):
    """In all bins: closer than the quantiles of the catalogue, whose rows are the same."""
    own = source.find(ids, GRID)
    other = FromCatalogue(catalogue, open_bundle(bundle).sha256).find(ids, GRID)
    assert own.rows.tobytes() == other.rows.tobytes()
    assert np.isnan(own.density[-1]).all()
    assert np.allclose(np.trapezoid(own.density[:-1], GRID, axis=1), 1)
    step, reached = GRID[1], np.cumsum(own.density[:-1], axis=1) * GRID[1]
    quantiles = own.rows["PDF_QUANT"][:-1]
    for k in (0, 9, 19):  # the CDF at a quantile is its level
        at = np.array(
            [np.interp(q, GRID + step / 2, cdf) for q, cdf in zip(quantiles[:, k], reached, strict=True)]
        )
        assert np.median(np.abs(at - LEVELS[1 + k])) < 0.01


def test_rails_evaluator_gives_our_figures_of_points(estimated):
    made = qp.read(str(estimated / "output_estimate.hdf5"))[:-1]
    best = made.ancil["zbest"].astype(np.float64)
    truth = best + np.random.default_rng(0).normal(0, 0.1, len(best)).round(2)
    ours = {
        "point_bias": metrics.bias,
        "point_stats_iqr": metrics.sigma_iqr,
        "point_stats_sigma_mad": metrics.sigma_nmad,
        "point_outlier_rate": metrics.outliers_3sigma,
    }
    evaluator = PointToPointEvaluator.make_stage(
        name="evaluate",
        metrics=list(ours),
        point_estimate_key="zbest",
        hdf5_groupname="truth",
        force_exact=True,
        output_mode="return",
    )
    theirs = evaluator.evaluate(made, {"truth": {"redshift": truth}})["summary"].data
    for name, metric in ours.items():
        assert theirs[name][0] == pytest.approx(metric(best, truth), abs=1e-6), name


def test_qp_judges_p_of_z_as_we_do_where_its_cdf_is_the_same():
    """A p(z) of even density between quantiles is a polyline to both, given with each end of a step."""
    quantiles = rows(*around(10, 10, 500, 3), 3)["PDF_QUANT"]
    quantiles = quantiles[np.isfinite(quantiles).all(1)]
    line = polyline(quantiles).T
    x = np.repeat(line, 2, axis=1)[:, 1:-1] + np.tile([0, -1e-12], 21)
    density = np.diff(LEVELS) / np.diff(line, axis=1)
    made = qp.Ensemble(qp.interp_irregular_gen, {"xvals": x, "yvals": np.repeat(density, 2, axis=1)})
    z = np.random.default_rng(0).gamma(3, 0.3, len(line))
    theirs = PIT(made, z)
    ours = calibration.pit(quantiles, z)
    assert np.allclose(theirs.pit_samps, ours, atol=1e-6)
    u = np.sort(ours)
    ks, cvm, _ = calibration.pit_tests(u, calibration.logarithms(u), np.ones(len(u)))
    assert theirs.evaluate_PIT_KS().statistic == pytest.approx(ks, abs=1e-6)
    assert theirs.evaluate_PIT_CvM().statistic == pytest.approx(cvm, abs=1e-6)


def test_what_is_no_source_is_refused(bundle, catalogue, store, ids, tmp_path):
    with pytest.raises(InputRefused, match="was made by model"):
        FromCatalogue(catalogue, "0" * 64)
    informer = MmaeInformer.make_stage(name="inform", bundle=str(bundle), output_mode="return")
    model = informer.inform()
    assert model.data["sha256"] == open_bundle(bundle).sha256
    for places, message in [
        ({}, "one of the two"),
        ({"store": str(store), "catalogue": str(catalogue)}, "one of the two"),
        ({"catalogue": str(tmp_path)}, "is a folder"),
    ]:
        stage = MmaeEstimator.make_stage(
            name="estimate", model=model, output_mode="return", hdf5_groupname="", **places
        )
        with pytest.raises((UsageError, InputRefused), match=message):
            stage.estimate({"object_id": ids})
    with pytest.raises(UsageError, match="no model bundle"):
        MmaeInformer.make_stage(name="inform", bundle=str(tmp_path), output_mode="return").inform()
