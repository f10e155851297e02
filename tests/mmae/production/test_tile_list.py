"""What --catalog names."""

import zipfile
from pathlib import Path

import pytest
import zarr

from catalogs.errors import UsageError
from catalogs.products.embeddings import Origin
from mmae.production.tile_list import named_stores
from mmae.production.tiles import named_tiles


@pytest.fixture
def folder(tmp_path, monkeypatch):
    for name in ("a.zarr", "b.zarr", "other/a.zarr", "c[1].zarr"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "a.zarr.manifest.json").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_globs_and_lists_give_each_store_once(folder):
    (folder / "tiles.txt").write_text("# two of them\n\nb.zarr  # the second\n[a]*.zarr*\n")
    assert named_stores(["@tiles.txt", "b.zarr", "c[1].zarr"]) == [
        *map(Path, ("b.zarr", "a.zarr", "c[1].zarr"))
    ]


def test_a_list_may_begin_with_a_byte_order_mark(folder):
    (folder / "tiles.txt").write_text("a.zarr\n", encoding="utf-8-sig")
    assert [path.name for path in named_stores(["@tiles.txt"])] == ["a.zarr"]


def test_a_glob_passes_over_embeddings(folder):
    for name, attributes in (("a.embeddings.zarr", origin().attributes), ("b.embeddings.zarr", {})):
        zarr.create_group(folder / name, attributes=attributes)
    (folder / "c[1].zarr/zarr.json").write_text("5")  # refused in its turn
    assert named_stores(["[abc]*.zarr"]) == [
        *map(Path, ("a.zarr", "b.embeddings.zarr", "b.zarr", "c[1].zarr"))
    ]
    assert named_stores(["a.embeddings.zarr"]) == [Path("a.embeddings.zarr")]  # named: refused in its turn
    with pytest.raises(UsageError, match="no cutout store matches"):
        named_stores(["a.emb*"])


def origin():
    return Origin("image", "a" * 64, "fp32", 64, "mock", "b" * 64, "c" * 64, 27.0, 0.168, "0", "0")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("nowhere.zarr", "nowhere.zarr does not exist"),
        ("d*.zarr", "no cutout store matches"),
        ("a.zarr.manifest.json", "is a file; a cutout store is a directory"),
        ("a.zarr.manifest.json", r", a list of stores is @a\.zarr\.manifest\.json$"),
        ("d.zarr.zip", r"d\.zarr\.zip is a zipped store: unzip it, and name the folder$"),
        ("gs://bucket/tile.zarr", "gs://bucket/tile.zarr is a URL that is not read here"),
        ("gs://bucket/*.zarr", r"gs://bucket/\*\.zarr is a URL"),
        ("@nowhere.txt", "the list nowhere.txt cannot be read"),
        ("@tiles.txt", r"tiles\.txt, line 2: typo\.zarr does not exist"),
    ],
)
def test_what_is_not_there_is_named(folder, said, words):
    (folder / "tiles.txt").write_text("a.zarr\ntypo.zarr\n")
    with zipfile.ZipFile("d.zarr.zip", "w") as archive:
        archive.writestr("zarr.json", "{}")
    with pytest.raises(UsageError, match=words) as refused:
        named_stores([said])
    assert "\n" not in str(refused.value)


def test_two_stores_of_one_name_cannot_share_a_folder(folder):
    with pytest.raises(UsageError, match=r"a\.zarr and other/a\.zarr would both become a\.photoz\.fits"):
        named_tiles(["a.zarr", "other/a.zarr"], folder)
    with pytest.raises(UsageError, match="several folders"):
        named_tiles(["b.zarr", "other/a.zarr"], None)
