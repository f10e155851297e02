"""Nearest neighbours, by hand and as a user runs the command."""

import numpy as np
import pytest
from astropy.table import Table
from matplotlib.image import imread

from catalogs.errors import InputRefused
from catalogs.products import embeddings, neighbours
from catalogs.products.embeddings import Origin
from catalogs.products.neighbours import nearest
from catalogs.store import cutouts
from catalogs.store.format import manifest_path
from catalogs.store.shard_writer import write_shards
from mmae import cli

N = 96
ORIGIN = Origin("image", "model", "fp32", "mock", "input", "store", 27.0, 0.168, "0", "0")


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
    """A store, and vectors of which rows 2 k and 2 k + 1 are one but for their length; row 4 has none."""
    rng = np.random.default_rng(0)
    columns = {
        "object_id": np.arange(N) + 1000,
        "ra": rng.uniform(0, 360, N),
        "dec": rng.uniform(-90, 90, N),
        "image": rng.normal(size=(N, 5, 8, 8)).astype(np.float32),
    }
    vectors = rng.normal(size=(N // 2, 3)).repeat(2, axis=0).astype(np.float32)
    vectors[::2] *= 7
    vectors[4] = np.nan

    def rows(start, stop):
        return {name: values[start:stop] for name, values in columns.items()}

    def embedded(start, stop):
        return rows(start, stop) | {"embedding": vectors[start:stop]}

    cutouts.write(tmp_path / "tile.zarr", rows, n=N, survey="test", size=8)
    layout = embeddings.layout(N, 3, 64, ORIGIN)
    path = tmp_path / "tile.embeddings.zarr"
    write_shards(path, layout, lambda spans: (embedded(*span) for span in spans), source=None)
    return path


def run(tile, *flags):
    store = tile.with_name("tile.zarr")
    return cli.run_command("neighbours", [str(tile), str(store), *map(str, flags)])


def test_the_page_and_the_table_name_the_nearest(tile, capsys):
    assert run(tile, "--like", 1000, 1051, "--count", 2) == cli.OK
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
    other = tile.with_name("other.zarr")
    for flags, code, words in (
        (("--like", 7), cli.USAGE, "--like 7: there is no such object"),
        (("--like", 1004), cli.REFUSED, "without an embedding"),
        (("--count", 0), cli.USAGE, "from 1 to 100"),
        (("--out", "page.jpg"), cli.USAGE, "must end in .png"),
    ):
        assert run(tile, *flags) == code
        assert words in capsys.readouterr().err
    assert cli.run_command("neighbours", [str(other), str(tile)]) == cli.USAGE
    assert cli.run_command("neighbours", [str(tile.with_name("tile.zarr")), str(tile)]) == cli.REFUSED
    assert "holds no embeddings" in capsys.readouterr().err
    assert sorted(tile.parent.rglob("*")) == before


def test_a_store_of_other_objects_is_refused(tile, capsys):
    columns = {"object_id": np.arange(N), "ra": np.ones(N), "dec": np.ones(N), "image": np.ones((N, 5, 8, 8))}
    other = tile.with_name("other.zarr")
    cutouts.write(other, lambda a, b: {k: v[a:b] for k, v in columns.items()}, n=N, survey="test", size=8)
    assert cli.run_command("neighbours", [str(tile), str(other)]) == cli.REFUSED
    assert "its objects are others" in capsys.readouterr().err


def test_a_damaged_product_is_refused(tile, capsys):
    file = tile / "embedding" / "c" / "1" / "0"
    content = bytearray(file.read_bytes())
    content[5] ^= 1
    file.write_bytes(content)
    assert run(tile) == cli.REFUSED
    assert f"{file} has other content than was written" in capsys.readouterr().err
    manifest_path(tile).unlink()
    assert run(tile) == cli.REFUSED
    assert "has no manifest" in capsys.readouterr().err


def test_labels_have_rank_and_redshift():
    matches = neighbours.Matches(np.array([1]), np.array([[0, 2]]), np.array([[0.99, 0.5]]))
    z = np.array([0.1234, np.nan, 2.0])
    assert neighbours.labels(matches, np.array([7, 8, 9]), z) == [
        "8\nquery",
        "7\n1: 0.990  z = 0.123",
        "9\n2: 0.500  z = 2.000",
    ]
