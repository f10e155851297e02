"""A row's redshift is the row's alone; what reduced precision loses, float32 finds."""

import numpy as np
import pytest
import torch

from mmae import checkpoint, export
from mmae.bundle import BF16, FP32, PRECISIONS, Bundle, open_bundle
from mmae.engine import Engine
from mmae.image_mask import WHOLE, Masking, visible_tokens

CPU = torch.device("cpu")
MASKINGS = {"whole": WHOLE, "masked": Masking(0.25, draws=2)}


@pytest.fixture(scope="module")
def both(trained, tmp_path_factory):
    """A bundle that offers every precision, however coarse."""
    out = tmp_path_factory.mktemp("both") / "bundle"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "BOUND", dict.fromkeys(export.BOUND, 1.0))
        export.main(export.Export(trained, out))
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
    whole = engine.redshifts(image, object_id)
    assert whole.shape == (150,)
    assert whole.dtype == np.float32
    order = np.random.default_rng(1).permutation(150)
    parts = [engine.redshifts(image[rows], object_id[rows]) for rows in np.split(order, [1, 63, 140])]
    assert np.concatenate(parts).tobytes() == whole[order].tobytes()
    assert engine.redshifts(image[:0], object_id[:0]).shape == (0,)


def test_masked_redshifts_are_the_full_models_mean_over_draws(trained, both, galaxies):
    image, object_id = galaxies
    model, _ = checkpoint.load_model(trained / checkpoint.BEST)
    expected = torch.zeros(150)
    for draw in range(3):
        visible = torch.from_numpy(visible_tokens(object_id, 64, 0.25, draw, seed=9))
        hidden = torch.ones(150, 64, dtype=torch.bool).scatter(1, visible, False)
        with torch.inference_mode():
            no_spectrum = torch.zeros(150, 259), hidden, torch.ones(150, 32, dtype=torch.bool)
            expected += model(torch.from_numpy(image), *no_spectrum).redshift / 3
    masked = Engine(open_bundle(both, FP32, Masking(0.25, draws=3, seed=9)), CPU, 64)
    np.testing.assert_allclose(masked.redshifts(image, object_id), expected, atol=1e-5)


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

        def lose(image):
            return torch.where(image.amax((1, 2, 3)) < limit, program(image), torch.nan)

        return lose


def test_what_reduced_precision_loses_is_computed_in_fp32(both, galaxies):
    """Contrived: bfloat16 has float32's range, so that a real image is hardly ever lost."""
    image, object_id = galaxies[0].copy(), galaxies[1]
    image[100] *= 1e4
    bundle = open_bundle(both, BF16)
    reduced, exact = (
        Engine(open_bundle(both, precision), CPU, 64).redshifts(image, object_id)
        for precision in (BF16, FP32)
    )
    kept = image.max((1, 2, 3)) < 5
    assert 30 < kept.sum() < 120
    found = Engine(Losing(bundle.path, bundle.card, BF16, WHOLE), CPU, 64).redshifts(image, object_id)
    expected = np.where(kept, reduced, exact)
    expected[100] = np.nan
    assert found.tobytes() == expected.tobytes()
