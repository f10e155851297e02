"""An index finds what exact search finds, whatever is killed, changed, added or damaged on the way."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killing
import numpy as np
import pytest
from astropy.table import Table
from similar import ORIGIN, on_a_surface, write_product, write_tile

from catalogs import atomic
from catalogs.products.embeddings import open_embeddings
from catalogs.similarity import builder
from catalogs.similarity.exact import nearest
from catalogs.similarity.index import open_index
from catalogs.similarity.record import RECORD, read_record
from catalogs.similarity.tiles import of_products
from catalogs.store.format import manifest_path
from mmae import cli

N = 3000


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two tiles, in each of which a few rows have no vector, and an index of them."""
    folder = tmp_path_factory.mktemp("made")
    for name, first_id in (("a", 0), ("b", 10**6)):
        vectors = on_a_surface(N, first_id)
        vectors[::500] = np.nan
        write_tile(folder, name, vectors, first_id, shard_rows=1024)
    make(folder / "survey.index", *products_in(folder))
    return folder


@pytest.fixture
def tiles(made, tmp_path):
    """Copies of these tiles, to be changed; beside them the index, which finds them by relative paths."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return products_in(tmp_path)


@pytest.fixture
def index(tiles):
    return tiles[0].with_name("survey.index")


def products_in(folder):
    return [folder / f"{name}.embeddings.zarr" for name in "ab"]


def make(index, *products):
    assert run("index", *products, "--out", index) == cli.OK
    return index


def run(command, *words):
    return cli.run_command(command, [*map(str, words)])


def content(index):
    return {file.name: file.read_bytes() for file in index.iterdir()}


def exact(products, query, count):
    tiles = of_products([open_embeddings(path) for path in products])
    return nearest(tiles.rows(query), query, tiles.blocks(), count)


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("part_rows", [10**6, 1024])
def test_nearly_all_neighbours_are_found_with_their_exact_similarity(tiles, tmp_path, part_rows, monkeypatch):
    monkeypatch.setattr(builder, "PART_BYTES", 4 * 24 * part_rows)
    index = make(tmp_path / "parts.index", *tiles)
    record = read_record(index)
    assert [len(product.parts) for product in record.products] == 2 * [-(-N // part_rows)]
    assert sum(part.vectors for product in record.products for part in product.parts) == 2 * (N - 6)
    query = np.arange(7, 2 * N, 61)
    query = query[query % 500 != 0]
    found, true = open_index(index).nearest(query, 10), exact(tiles, query, 10)
    recall = np.mean([np.isin(t, f).mean() for t, f in zip(true.rows, found.rows, strict=True)])
    assert recall > 0.95
    assert np.all(found.rows % 500)  # none without a vector
    same = found.rows == true.rows
    np.testing.assert_allclose(found.similarity[same], true.similarity[same], atol=1e-6)
    assert np.all(np.diff(found.similarity, axis=1) <= 0)
    for product in record.products:
        for part in product.parts:
            assert part.recall >= builder.RECALL


def test_the_page_through_an_index_is_that_of_exact_search(tiles, index, capsys):
    for flags in ((), ("--exact",), ("--like", 9), ("--like", 9, "--exact")):
        out = index.with_name(f"{len(flags)}{'--exact' in flags}.png")
        assert run("neighbours", index, "--count", 3, "--out", out, *flags) == cli.OK
    for few, many in (("0False", "1True"), ("2False", "3True")):
        one, other = (Table.read(index.with_name(f"{name}.ecsv")) for name in (few, many))
        assert one["QUERY"].tolist() == other["QUERY"].tolist()
        assert np.mean(one["OBJECT_ID"] == other["OBJECT_ID"]) > 0.9
        assert one.meta["embeddings"] == other.meta["embeddings"]
    assert set(one["TILE"]) == {"a", "b"}
    assert run("neighbours", index, "--like", 500) == cli.REFUSED
    assert "without an embedding" in capsys.readouterr().err
    assert run("neighbours", index, "--like", 5) == cli.OK
    assert f"wrote {index.with_name('survey.neighbours.png')}" in capsys.readouterr().out


@pytest.mark.parametrize("n", [0, 1, 2, 30])
def test_few_galaxies_are_an_index_too(n, tmp_path, capsys):
    vectors = np.concatenate([on_a_surface(n, 3), np.full((2, 24), np.nan, np.float32)])
    index = make(tmp_path / "few.index", write_tile(tmp_path, "few", vectors, 0))
    found = run("neighbours", index, "--like", 0, "--count", 50)
    assert found == (cli.OK if n > 1 else cli.REFUSED)
    if n > 1:
        assert len(Table.read(tmp_path / "few.neighbours.ecsv")) == n - 1


# ---------------------------------------------------------------- changes


def test_a_changed_tile_is_told_and_mended_and_the_other_is_kept(tiles, index, capsys):
    before = content(index)
    assert run("index", "--out", index) == cli.OK  # nothing is new
    assert "2 of 2 parts are there already" in capsys.readouterr().out
    assert content(index) == before
    for path in (tiles[1], manifest_path(tiles[1])):
        path.rename(path.with_name(f"old-{path.name}"))
    assert run("neighbours", index) == cli.REFUSED
    assert "is missing: bring it back, or run `mmae index` on it again" in capsys.readouterr().err
    write_product(tiles[1], on_a_surface(N, 7), 10**6)
    assert run("neighbours", index) == cli.REFUSED
    assert "was made of other vectors" in capsys.readouterr().err
    assert run("index", "--out", index) == cli.OK
    assert "1 of 2 parts are there already" in capsys.readouterr().out
    assert run("neighbours", index) == cli.OK
    after = content(index)
    assert len(after) == len(before)
    assert len(set(before) & set(after)) == 1 + 3  # index.json, and the part of the other tile


def test_a_tile_is_added_and_one_that_is_gone_is_left_out(tiles, index, tmp_path, capsys):
    third = write_tile(tmp_path, "c", on_a_surface(N, 11), 2 * 10**6)
    assert run("neighbours", index, third) == cli.USAGE
    assert "add these to it with `mmae index`" in capsys.readouterr().err
    make(index, third)
    assert [product.path for product in read_record(index).products] == [
        f"../{name}.embeddings.zarr" for name in "abc"
    ]
    assert open_index(index).find(2 * 10**6 + 1).tolist() == [2 * N + 1]
    tiles[0].rename(tmp_path / "moved.embeddings.zarr")
    make(index)
    assert f"{tiles[0]} is gone: left out now" in capsys.readouterr().out
    assert len(content(index)) == 1 + 2 * 3
    assert open_index(index).find(2 * 10**6 + 1).tolist() == [N + 1]


def test_what_cannot_be_indexed_leaves_the_index_as_it_is(tiles, index, tmp_path, capsys):
    before = content(index)
    another = replace(ORIGIN, model_sha256="another")
    other = write_product(tmp_path / "other.embeddings.zarr", on_a_surface(64, 0), 0, another)
    folder = tmp_path / "folder.index"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    for words, code, sentence in (
        ((other, "--out", index), cli.REFUSED, "compare embeddings of one model"),
        ((tiles[0].with_name("a.zarr"), "--out", index), cli.REFUSED, "holds no embeddings"),
        ((tmp_path / "absent", "--out", index), cli.USAGE, "is no directory"),
        ((tiles[0], "--out", folder), cli.USAGE, "is there, and no index"),
        ((tiles[0], "--out", tmp_path / "x"), cli.USAGE, "must end in .index"),
        (("--out", tmp_path / "x.index"), cli.USAGE, "no embeddings are named"),
    ):
        assert run("index", *words) == code
        assert sentence in capsys.readouterr().err
    assert content(index) == before
    assert content(folder) == {"thesis.txt": b"mine"}
    assert not (tmp_path / "x.index").exists()


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
@pytest.mark.parametrize("ending", [RECORD, ".faiss", ".ids.npy"])
def test_a_damaged_file_is_told_and_made_again(tiles, index, ending, damage, capsys):
    before = content(index)
    file = min(file for file in index.iterdir() if file.name.endswith(ending))
    whole = file.read_bytes()
    match damage:
        case "cut":
            file.write_bytes(whole[: len(whole) // 2])
        case "flipped":
            middle = len(whole) // 2
            file.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        case "gone":
            file.unlink()
    beside = sorted(index.parent.iterdir())
    assert run("neighbours", index) in (cli.REFUSED, cli.USAGE)
    (sentence,) = capsys.readouterr().err.splitlines()
    assert file.name in sentence or damage == "gone"
    assert sorted(index.parent.iterdir()) == beside
    named = tiles if ending == RECORD else []
    if (ending, damage) == (RECORD, "gone"):  # it could be anything
        assert run("index", *named, "--out", index) == cli.USAGE
        return
    make(index, *named)
    assert content(index) == before


def test_a_damaged_product_is_told_when_it_is_read(tiles, index, capsys):
    for file in (tiles[0] / "embedding/c").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:-1])
    assert run("neighbours", index, "--like", 1) == cli.REFUSED
    assert "is damaged: write the store again" in capsys.readouterr().err
    assert run("index", tiles[0], "--out", index.with_name("new.index")) == cli.REFUSED
    assert not index.with_name("new.index").exists()


def test_a_second_builder_is_refused(tiles, index, capsys):
    before = content(index)
    first = index.with_name("new.index.partial")
    first.mkdir()
    for folder, out in ((index, index), (first, index.with_name("new.index"))):
        with atomic.owned(folder):
            assert run("index", *tiles, "--out", out) == cli.USAGE
        assert f"{folder} is being written by another process" in capsys.readouterr().err
    assert content(index) == before
    assert not content(first)


KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from catalogs.similarity import builder
from killing import die_at

folder, *products = map(Path, sys.argv[1:])
builder.PART_BYTES = 4 * 24 * 2048

def build(index, step=None):
    child = os.fork()
    if not child:
        if step:
            die_at(folder, step)
        builder.build(index, products)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for step in range(1, 1000):
    ended = build(folder / f"{step}.index", step)
    assert ended in (0, -signal.SIGKILL), ended
    assert build(folder / f"{step}.index") == 0
    if ended == 0:
        break
"""


@pytest.mark.slow
def test_a_kill_at_any_step_is_survived(tiles, tmp_path):
    """Steps are changes of files or folders; the index must be as if nothing had happened."""
    folder = tmp_path / "killed"
    folder.mkdir()
    program = [sys.executable, "-c", KILLED_AT_EVERY_STEP, folder, *tiles]
    path = os.pathsep.join([str(Path(killing.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path}
    done = subprocess.run(program, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    contents = [content(index) for index in folder.iterdir()]
    assert len(contents) > 20
    assert len(contents[0]) == 1 + 4 * 3
    assert all(one == contents[0] for one in contents)
    assert not list(folder.glob("*.partial"))
