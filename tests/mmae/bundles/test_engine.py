"""A row's redshift is the row's alone; what reduced precision loses, float32 finds."""

import numpy as np
import pytest
import torch
from calibrated import calibrated
from conftest import TINY

from catalogs.products import schema
from catalogs.store.cutouts import open_store
from mmae import export
from mmae.bundles import columns, compiler, summary
from mmae.bundles.bundle import Bundle, open_bundle
from mmae.bundles.engine import Engine
from mmae.bundles.image_mask import WHOLE, Masking, visible_tokens
from mmae.bundles.program import program_of
from mmae.hardware import BF16, FP32, PRECISIONS
from mmae.layers import pdf
from mmae.layers.conditions import unknown
from mmae.models import checkpoint
from mmae.models.families import build
from mmae.models.output import Estimate

CPU = torch.device("cpu")
MASKINGS = {"whole": WHOLE, "masked": Masking(0.25, draws=2)}


@pytest.fixture(scope="module", params=TINY)
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def both(runs, preset, tmp_path_factory):
    """A bundle that offers every precision, however coarse."""
    out = tmp_path_factory.mktemp("both") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "BOUND", dict.fromkeys(compiler.BOUND, 1.0))
        export.main(export.Export(runs(preset), out))
    return out


@pytest.fixture(scope="module")
def galaxies():
    rng = np.random.default_rng(4)
    image = rng.normal(size=(150, 5, 64, 64)) * np.geomspace(0.1, 10, 150)[:, None, None, None]
    return image.astype(np.float32), rng.integers(2**60, size=150)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("masking", MASKINGS.values(), ids=MASKINGS)
def test_a_row_does_not_depend_on_its_company(both, galaxies, precision, masking):
    image, object_id = galaxies
    engine = Engine(open_bundle(both, precision, masking), CPU, 64)
    whole = engine.table(image, object_id)
    assert len(whole) == 150
    assert whole.dtype == np.float32
    order = np.random.default_rng(1).permutation(150)
    parts = [engine.table(image[rows], object_id[rows]) for rows in np.split(order, [1, 63, 140])]
    assert np.concatenate(parts).tobytes() == whole[order].tobytes()
    assert engine.table(image[:0], object_id[:0]).shape == (0, whole.shape[1])


def test_inference_asks_nothing_of_the_device_until_the_table_is_fetched(preset):
    """The meta device has no values: whoever asks for one gets an error, where a GPU would be waited for."""
    meta = torch.device("meta")
    with torch.inference_mode():
        program = program_of(build(TINY[preset])).eval().to(meta)
        image = torch.ones(6, 5, 64, 64, device=meta)
        estimate = Estimate(*program(image, None, unknown(image)))
        grid = getattr(TINY[preset], "grid", None)
        table = summary.table(estimate, grid, torch.ones(6, device=meta))
    assert (table.device, len(table)) == (meta, 6)


def test_masked_redshifts_are_the_full_models_mean_over_draws(runs, preset, both, galaxies):
    image, object_id = galaxies
    model, _ = checkpoint.load_model(runs(preset) / checkpoint.BEST)
    expected, config = torch.zeros(150), model.config
    for draw in range(3):
        visible = torch.from_numpy(visible_tokens(object_id, 64, 0.25, draw, seed=9))
        hidden = torch.ones(150, 64, dtype=torch.bool).scatter(1, visible, False)
        no_spectrum = torch.ones(150, config.spectrum_tokens, dtype=torch.bool)
        with torch.inference_mode():
            spectrum = torch.zeros(150, config.spectrum_length)
            expected += model(torch.from_numpy(image), spectrum, hidden, no_spectrum).point / 3
    masked = Engine(open_bundle(both, FP32, Masking(0.25, draws=3, seed=9)), CPU, 64)
    said = columns.named(masked.table(image, object_id))
    np.testing.assert_allclose(said["PHOTOZ_POINT"], expected, atol=1e-5)


def test_columns_are_those_of_the_p_of_z(trained, bundle, galaxies):
    """Against the model's own p(z), calibrated as the card says."""
    image, object_id = galaxies
    said = columns.named(Engine(open_bundle(bundle, FP32), CPU, 64).table(image, object_id))
    model, _ = checkpoint.load_model(trained / checkpoint.BEST)
    hidden = torch.ones(150, 48, dtype=torch.bool)
    with torch.inference_mode():
        seen = torch.zeros(150, 64, dtype=torch.bool)
        output = model(torch.from_numpy(image), torch.zeros(150, 1296), seen, hidden)
    grid, mass = model.config.grid, calibrated(output, open_bundle(bundle))
    best, risk = pdf.best(mass, grid)
    np.testing.assert_allclose(said["PHOTOZ_BEST"], best, atol=1e-4)
    np.testing.assert_allclose(said["PHOTOZ_RISK_BEST"], risk, atol=1e-4)
    np.testing.assert_allclose(said["PHOTOZ_MEAN"], mass.double() @ grid.centres, atol=1e-4)
    for name, level in (("MEDIAN", 0.5), ("ERR68_MIN", 0.16), ("ERR68_MAX", 0.84), ("ERR95_MAX", 0.975)):
        z = torch.from_numpy(said[f"PHOTOZ_{name}"])
        np.testing.assert_allclose(pdf.cdf(mass, grid, z), level, atol=1e-4)
    for k, level in enumerate(schema.QUANTILE_LEVELS):
        z = torch.from_numpy(said["PDF_QUANT"][:, k].copy())
        np.testing.assert_allclose(pdf.cdf(mass, grid, z), level, atol=1e-4)
    np.testing.assert_allclose(
        pdf.cdf(mass, grid, torch.from_numpy(said["PHOTOZ_MC"])), columns.draws(object_id), atol=1e-4
    )


def test_the_draw_from_p_of_z_is_even_and_the_objects_own():
    levels = columns.draws(np.arange(10000))
    assert np.abs(np.sort(levels) - (np.arange(10000) + 0.5) / 10000).max() < 1.63 / 100  # KS, 1 %
    assert (columns.draws(np.array([77])) == levels[77]).all()


def test_a_galaxy_unlike_the_training_set_is_known_by_its_score(survey, bundle, galaxies):
    engine = Engine(open_bundle(bundle, FP32), CPU, 64)
    alike, _ = open_store(survey / "rubin_tile.zarr").images(0, 64)
    unlike = np.full((64, 5, 64, 64), 50, np.float32) * np.array([1, -1, 1, -1, 1], np.float32)[:, None, None]
    scores = [columns.named(engine.table(image, galaxies[1][:64]))["OOD_SCORE"] for image in (alike, unlike)]
    assert 0.2 < np.median(scores[0]) < 0.8
    assert (scores[1] < 0.05).all()


def test_masks_are_drawn_by_object_evenly_and_anew_for_each_draw_and_seed():
    object_id = np.arange(4000)
    visible = visible_tokens(object_id, 64, 0.25, draw=0, seed=0)
    assert visible.shape == (4000, 48)
    assert (np.diff(visible) > 0).all()
    counts = np.bincount(visible.ravel(), minlength=64)
    assert abs(counts - 3000).max() < 5 * np.sqrt(4000 * 0.25 * 0.75)
    assert (visible_tokens(object_id[70:71], 64, 0.25, draw=0, seed=0) == visible[70]).all()
    for other in ({"draw": 1, "seed": 0}, {"draw": 0, "seed": 1}):
        shared = [
            len(np.intersect1d(*pair))
            for pair in zip(visible, visible_tokens(object_id, 64, 0.25, **other), strict=True)
        ]
        assert np.mean(shared) == pytest.approx(36, abs=0.2)


class Losing(Bundle):
    """Its reduced precision loses the brighter half of the galaxies, and one is lost in either."""

    def load(self, device, precision=None):
        program = super().load(device, precision)
        limit = 3e4 if precision == FP32 else 5.0

        def lose(image, visible, conditions):
            estimate = program(image, visible, conditions)
            point = torch.where(image.amax((1, 2, 3)) < limit, estimate[0], torch.nan)
            return (point, *estimate[1:])

        return lose


def test_what_reduced_precision_loses_is_computed_in_fp32(both, galaxies):
    """Contrived: bfloat16 has float32's range, so that a real image is hardly ever lost."""
    image, object_id = galaxies[0].copy(), galaxies[1]
    image[100] *= 1e4
    bundle = open_bundle(both, BF16)
    reduced, exact = (
        Engine(open_bundle(both, precision), CPU, 64).table(image, object_id) for precision in (BF16, FP32)
    )
    kept = image.max((1, 2, 3)) < 5
    assert 30 < kept.sum() < 120
    found = Engine(Losing(bundle.path, bundle.card, BF16, WHOLE), CPU, 64).table(image, object_id)
    expected = np.where(kept[:, None], reduced, exact)
    expected[100, 0] = np.nan
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("precision", [FP32, BF16])
def test_a_galaxy_is_the_same_beside_one_with_a_hole(both, galaxies, precision):
    """A batch without holes is computed without them: bit for bit as with one."""
    image, object_id = galaxies[0][:64].copy(), galaxies[1][:64]
    engine = Engine(open_bundle(both, precision), CPU, 64)
    alone = engine.table(image, object_id)
    image[5, 2, 10:20, 10:20] = np.nan
    image[6, 1] = np.nan
    beside = engine.table(image, object_id)
    others = np.setdiff1d(np.arange(64), [5, 6])
    assert beside[others].tobytes() == alone[others].tobytes()
    assert (beside[[5, 6], 0] != alone[[5, 6], 0]).all()
