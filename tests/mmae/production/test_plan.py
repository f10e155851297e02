"""The plan: every row in one unit, whatever the store is cut into."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from catalogs.errors import InputRefused
from catalogs.products import photoz
from catalogs.store import cutouts
from catalogs.store.format import NO_METADATA
from mmae.bundles.bundle import open_bundle
from mmae.bundles.image_mask import Masking
from mmae.production import dry_run, plan
from mmae.production.plan import BATCH, GPU_BATCH, MAX_UNIT, MIN_UNIT, Plan, check_input, unit_rows
from mmae.production.tiles import named_tiles


def make_plan(rows, size):
    return Plan(rows, size, BATCH, *["x"] * 11)


@pytest.mark.parametrize("rows", [0, 1, 300, 4096, 100_000, 10**7, 10**9])
@pytest.mark.parametrize("shard", [64, 192, 256, 4096, 65536])
def test_units_are_whole_batches_aligned_to_shards(rows, shard):
    size = unit_rows(rows, shard)
    assert size % BATCH == 0
    assert size % shard == 0 or shard % size == 0
    assert size <= MAX_UNIT
    spans = [make_plan(rows, size).span(unit) for unit in make_plan(rows, size).units]
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    assert (spans[0][0], spans[-1][1]) == (0, rows) if rows else not spans


@pytest.mark.parametrize(
    ("rows", "size", "edges"),
    [
        (64, 512, [0, 64]),
        (65, 512, [0, 64, 65]),
        (1100, 512, [0, 64, 512, 1024, 1100]),
        (100, 64, [0, 64, 100]),
    ],
)
def test_the_first_batch_of_a_tile_is_a_unit_of_its_own(rows, size, edges):
    planned = make_plan(rows, size)
    assert [planned.span(unit) for unit in planned.units] == list(pairwise(edges))


def test_parts_of_other_units_are_refused_before_the_rest_is_done(draw_tile, bundle, tmp_path):
    """As of a version before, whose first unit was not the first batch alone."""
    (tile,) = named_tiles((str(draw_tile(tmp_path / "tile.zarr", 0, 600)),), None)
    tile.open(open_bundle(bundle), NO_METADATA)
    none, damaged, observed = np.zeros(512), np.full(512, "DAMAGED"), np.ones((512, 5), bool)
    ids = tile.store.column("object_id", 0, 512)
    rows = photoz.rows(ids, none, none, {}, none.astype(np.int64), damaged, observed)
    tile.files.part(0).write(tile.plan.sha256, tile.task.provenance, *rows)
    with pytest.raises(InputRefused, match=r"tile.photoz was begun with other units: remove it"):
        list(tile.units())
    tile.close()


def test_a_small_tile_still_has_work_for_several():
    assert unit_rows(2000, 4096) == MIN_UNIT


@pytest.mark.parametrize("rows", [10**4, 10**6, 10**9])
def test_units_for_a_gpu_have_a_batch_or_more(rows):
    assert unit_rows(rows, 4096, GPU_BATCH) % GPU_BATCH == 0


def test_a_billion_objects_make_some_ten_thousand_units():
    assert 15_000 <= len(make_plan(10**9, unit_rows(10**9, 4096)).units) <= 100_000


def store_of(path, object_id):
    n = len(object_id)
    rows = {"image": np.ones((n, 5, 64, 64), np.float32), "ra": np.zeros(n), "dec": np.zeros(n)}
    cutouts.write(path, lambda a, b: rows | {"object_id": object_id}, n=n, survey="test")
    return cutouts.open_store(path)


@pytest.mark.parametrize("ids_per_pass", [2**24, 3])
def test_an_id_that_stands_twice_is_refused_in_bounded_memory(tmp_path, monkeypatch, ids_per_pass):
    monkeypatch.setattr(plan, "IDS_PER_PASS", ids_per_pass)
    good = store_of(tmp_path / "good.zarr", np.array([5, 3, -9, 2**62, 7, 8, 9]))
    assert len(check_input(good)) == 64
    bad = store_of(tmp_path / "bad.zarr", np.array([5, 3, -9, 2**62, 7, 8, -9]))
    with pytest.raises(InputRefused, match="object_id -9 stands there twice"):
        check_input(bad)


def test_the_input_has_one_name_however_many_passes_it_takes(tmp_path, monkeypatch):
    store = store_of(tmp_path / "tile.zarr", np.arange(50))
    name = check_input(store)
    monkeypatch.setattr(plan, "IDS_PER_PASS", 7)
    assert check_input(store) == name


@pytest.mark.slow
def test_a_dry_run_says_that_a_tile_was_begun_with_another_plan(tmp_path, bundle, capsys):
    """Of a finished tile, too, which a run would refuse."""
    cutouts.write(
        tmp_path / "a.zarr", lambda a, b: {}, n=0, survey="s", bands=open_bundle(bundle).input.bands
    )
    (tile,) = named_tiles([str(tmp_path / "a.zarr")], None)
    model = open_bundle(bundle)
    tile.open(model, NO_METADATA)
    tile.finish()
    tile.close()
    dry_run.show([tile], model, NO_METADATA, 1)
    assert "a: 0 objects, finished before" in capsys.readouterr().out
    dry_run.show([tile], replace(model, masking=Masking(0.25, 2)), NO_METADATA, 1)
    assert "a: would be refused" in (said := capsys.readouterr().out)
    assert "was begun with another image_mask, draws" in said
