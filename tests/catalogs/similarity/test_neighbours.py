"""Exact neighbours, by hand and as a user runs the command."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.image import imread
from similar import ORIGIN, write_product, write_tile

from catalogs.errors import InputRefused
from catalogs.products.embeddings import open_embeddings
from catalogs.similarity.exact import Matches, nearest
from catalogs.similarity.page import Drawn, labels, stores_of
from catalogs.similarity.tiles import of_products
from catalogs.store import cutouts
from catalogs.store.format import manifest_path
from catalogs.store.preview import read_composites
from mmae import cli

N = 96


def test_neighbours_by_hand_in_blocks_of_any_size():
    """Directions in degrees: 0, 90, 10, NaN, 190, 350 (a long vector), a zero vector; queries: 0 and 350."""
    angles = np.deg2rad([0, 90, 10, 0, 190, 350, 0])
    vectors = np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)
    vectors[3], vectors[5], vectors[6] = np.nan, 1000 * vectors[5], 0
    query = np.array([0, 5])
    for size in (1, 2, 7):
        blocks = (vectors[a : a + size] for a in range(0, 7, size))
        matches = nearest(vectors[query], query, blocks, 3)
        assert matches.rows[0].tolist() in ([2, 5, 1], [5, 2, 1])  # both at 10 degrees
        assert matches.rows[1].tolist() == [0, 2, 1]
        expected = np.cos(np.deg2rad([[10, 10, 90], [10, 20, 100]]))
        np.testing.assert_allclose(matches.similarity, expected, atol=1e-6)
    assert nearest(vectors[query], query, iter([vectors]), 50).rows.shape == (2, 4)


def test_a_query_without_a_vector_is_refused():
    vectors = np.array([[1.0, 0.0], [np.nan, np.nan]], np.float32)
    with pytest.raises(InputRefused, match="without an embedding"):
        nearest(vectors[1:], np.array([1]), [vectors], 1)
    with pytest.raises(InputRefused, match="no other galaxy"):
        nearest(vectors[:1], np.array([0]), [vectors], 1)


@pytest.fixture
def tile(tmp_path):
    """A tile of which rows 2 k and 2 k + 1 have one vector but for its length; row 4 has none."""
    vectors = np.random.default_rng(0).normal(size=(N // 2, 3)).repeat(2, axis=0).astype(np.float32)
    vectors[::2] *= 7
    vectors[4] = np.nan
    return write_tile(tmp_path, "tile", vectors, 1000)


def run(*words):
    return cli.run_command("neighbours", [*map(str, words)])


def test_the_page_and_the_table_name_the_nearest(tile, capsys):
    assert run(tile, tile.with_name("tile.zarr"), "--like", 1000, 1051, "--count", 2) == cli.OK
    assert f"wrote {tile.with_name('tile.neighbours.png')}: 2 galaxies" in capsys.readouterr().out
    assert imread(tile.with_name("tile.neighbours.png")).std() > 0.1
    table = Table.read(tile.with_name("tile.neighbours.ecsv"))
    assert table["QUERY"].tolist() == [1000, 1000, 1051, 1051]
    assert table["RANK"].tolist() == [1, 2, 1, 2]
    assert table["OBJECT_ID"][::2].tolist() == [1001, 1050]
    np.testing.assert_allclose(table["SIMILARITY"][::2], 1, atol=1e-6)
    assert table["RA"].unit == "deg"
    assert table.meta["embeddings"]["model_sha256"] == "model"


def test_by_default_queries_are_spread_and_have_a_vector(tile):
    assert run(tile, "--queries", 100, "--count", 1, "--out", tile.with_name("all.png")) == cli.OK
    table = Table.read(tile.with_name("all.ecsv"))
    assert sorted(table["QUERY"]) == [1000 + k for k in range(N) if k != 4]


def test_a_refused_query_writes_nothing(tile, capsys):
    before = sorted(tile.parent.rglob("*"))
    for flags, code, words in (
        (("--like", 7), cli.USAGE, "--like 7: there is no such object"),
        (("--like", 1004), cli.REFUSED, "without an embedding"),
        (("--count", 0), cli.USAGE, "from 1 to 100"),
        (("--out", "page.jpg"), cli.USAGE, "must end in .png"),
        ((tile.with_name("absent.zarr"),), cli.USAGE, "absent.zarr does not exist"),
    ):
        assert run(tile, *flags) == code
        assert words in capsys.readouterr().err
    assert run(tile.with_name("absent.embeddings.zarr")) == cli.USAGE
    assert "is no directory" in capsys.readouterr().err
    assert run(tile.with_name("tile.zarr")) == cli.USAGE
    assert "no embeddings are named" in capsys.readouterr().err
    assert sorted(tile.parent.rglob("*")) == before


def test_a_store_of_other_objects_is_refused(tile, capsys):
    columns = {"object_id": np.arange(N), "ra": np.ones(N), "dec": np.ones(N), "image": np.ones((N, 5, 8, 8))}
    other = tile.with_name("other.zarr")
    cutouts.write(other, lambda a, b: {k: v[a:b] for k, v in columns.items()}, n=N, survey="test", size=8)
    assert run(tile, other) == cli.REFUSED
    assert "its objects are others" in capsys.readouterr().err


def test_a_damaged_product_is_refused(tile, capsys):
    file = tile / "embedding" / "c" / "1" / "0"
    content = file.read_bytes()
    for damaged, words in (
        (bytes([content[0] ^ 1, *content[1:]]), f"{tile}/embedding does not decode"),
        (content[:-1], f"{file} is damaged"),
    ):
        file.write_bytes(damaged)
        assert run(tile) == cli.REFUSED
        assert words in capsys.readouterr().err
    file.unlink()
    assert run(tile) == cli.REFUSED
    assert f"{file} is damaged" in capsys.readouterr().err
    manifest_path(tile).unlink()
    assert run(tile) == cli.REFUSED
    assert "has no manifest" in capsys.readouterr().err


def test_nines_in_the_place_of_a_redshift_are_no_label(tile):
    store = cutouts.open_store(tile.with_name("tile.zarr"))
    columns = {name: store.column(name) for name in ("object_id", "ra", "dec", "image")}
    columns["redshift"] = np.full(N, 0.5)
    columns["redshift"][:3] = -99, 9.9999, np.nan
    again = tile.with_name("again.zarr")
    rows = lambda a, b: {k: v[a:b] for k, v in columns.items()}  # noqa: E731
    cutouts.write(again, rows, n=N, survey="test", size=8, known=["redshift"])
    tiles, queries = of_products([open_embeddings(tile)]), np.arange(4)
    drawn = Drawn(tiles, Matches(queries, queries[:, None], np.ones((4, 1))), [again])
    np.testing.assert_array_equal(drawn.z, [np.nan, np.nan, np.nan, 0.5])


def test_labels_have_rank_and_redshift():
    place, similarity = np.array([[1, 0, 2]]), np.array([[0.99, 0.5]])
    assert labels(place, similarity, np.array([7, 8, 9]), np.array([0.1234, np.nan, 2.0])) == [
        "8\nquery",
        "7\n1: 0.990  z = 0.123",
        "9\n2: 0.500  z = 2.000",
    ]


# ---------------------------------------------------------------- several tiles


@pytest.fixture
def two(tmp_path):
    """Two tiles: a row of the first is nearly that row of the second, whose cutouts are larger."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(N, 8)).astype(np.float32)
    other = vectors + 1e-4 * rng.normal(size=(N, 8)).astype(np.float32)
    return write_tile(tmp_path, "a", vectors, 1000), write_tile(tmp_path, "b", other, 5000, size=12)


def test_neighbours_are_found_in_all_tiles_and_drawn_from_the_store_of_each(two):
    assert run(*two, "--like", 1003, 5090, "--count", 1) == cli.OK
    table = Table.read(two[0].with_name("neighbours.ecsv"))
    assert table["OBJECT_ID"].tolist() == [5003, 1090]
    assert table["TILE"].tolist() == ["b", "a"]
    assert imread(two[0].with_name("neighbours.png")).std() > 0.1

    tiles = of_products([open_embeddings(path) for path in two])
    query = np.array([3, N + 90])
    matches = nearest(tiles.rows(query), query, tiles.blocks(), 1)
    drawn = Drawn(tiles, matches, stores_of(tiles.paths, []))
    assert drawn.object_id.tolist() == [1003, 1090, 5003, 5090]
    for image, (name, row) in zip(
        drawn.composites(), (("a", 3), ("a", 90), ("b", 3), ("b", 90)), strict=True
    ):
        (alone,) = read_composites(cutouts.open_store(two[0].with_name(f"{name}.zarr")), [row])
        edge = (len(image) - len(alone)) // 2  # 12 pixels a side, those of a are 8
        assert np.array_equal(image[edge : len(image) - edge, edge : len(image) - edge], alone)
        assert edge == {"a": 2, "b": 0}[name]


def test_a_store_elsewhere_is_named_and_a_missing_one_told(two, tmp_path, capsys):
    away = tmp_path / "away"
    away.mkdir()
    for path in (tmp_path / "b.zarr", manifest_path(tmp_path / "b.zarr")):
        path.rename(away / path.name)
    assert run(*two) == cli.USAGE
    assert f"{tmp_path / 'b.zarr'}, the cutout store of {two[1]}, is not there" in capsys.readouterr().err
    assert run(*two, away / "b.zarr", "--count", 1) == cli.OK


def test_products_of_several_models_are_not_compared(two, tmp_path, capsys):
    other = replace(ORIGIN, model_sha256="another")
    path = write_product(tmp_path / "c.embeddings.zarr", np.ones((4, 8), np.float32), 9000, other)
    assert run(two[0], path) == cli.REFUSED
    assert "compare embeddings of one model" in capsys.readouterr().err
