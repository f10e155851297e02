"""A write interrupted at any point resumes, and ends with the same bytes as an uninterrupted one."""

import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import killing
import numpy as np
import pytest

from catalogs.errors import InputRefused, UsageError
from catalogs.store import cutouts
from catalogs.store import format as cutout_format
from catalogs.store.cutouts import open_store
from catalogs.store.manifest import altered_files

N, SHARD_ROWS, SIZE = 300, 128, 8  # shards of rows 0-127, 128-255, 256-299
SETTINGS = {"n": N, "survey": "test", "size": SIZE, "shard_rows": SHARD_ROWS, "source": "the same"}


def rows(start, stop):
    rng = np.random.default_rng(start)
    return {
        "image": rng.normal(size=(stop - start, 5, SIZE, SIZE)).astype(np.float32),
        "object_id": np.arange(start, stop) + 2**53,
        "ra": rng.uniform(0, 360, stop - start),
        "dec": rng.uniform(-90, 90, stop - start),
    }


def failing(error, shard=2):
    """`rows`, with an error in one shard."""

    def rows_or_error(start, stop):
        if start == shard * SHARD_ROWS:
            raise error
        return rows(start, stop)

    return rows_or_error


def names(folder):
    return {entry.name for entry in folder.iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Manifest of an uninterrupted write: it holds the sha256 of every file."""
    path = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    cutouts.write(path, rows, **SETTINGS)
    assert names(path.parent) == {"a.zarr", "a.zarr.manifest.json"}
    return cutout_format.manifest_path(path).read_bytes()


@pytest.fixture
def stopped(tmp_path):
    """A store of which shards 0 and 1 are done when the disk is full."""
    path = tmp_path / "a.zarr"
    with pytest.raises(OSError, match="full"):
        cutouts.write(path, failing(OSError(errno.ENOSPC, "full")), **SETTINGS)
    assert names(tmp_path) == {"a.zarr.partial"}
    return path


def written_shards(path, **settings):
    """Write the store; return the shards whose rows were requested."""
    requested = []

    def recorded(start, stop):
        requested.append(start // settings.get("shard_rows", SHARD_ROWS))
        return rows(start, stop)

    cutouts.write(path, recorded, **(SETTINGS | settings))
    assert names(path.parent) == {path.name, f"{path.name}.manifest.json"}
    assert not altered_files(path)
    return requested


# ---------------------------------------------------------------- rows


UNFIT = {
    "no ra": (lambda rows: rows.pop("ra"), "lack ra: a store holds image, object_id, ra, dec"),
    "float ids": (
        lambda rows: rows.update(object_id=rows["object_id"] + 0.5),
        "object_id is of type float64 and does not fit int64",
    ),
    "ids beyond 63 bits": (
        lambda rows: rows.update(object_id=rows["object_id"].astype(np.uint64) + np.uint64(2**63)),
        "object_id is of type uint64 and does not fit int64",
    ),
    "larger images": (
        lambda rows: rows.update(image=np.zeros((len(rows["ra"]), 5, 127, 127))),
        "not (128, 5, 8, 8): pass size=127",
    ),
    "more rows than asked for": (
        lambda rows: rows.update(dec=np.zeros(len(rows["ra"]) + 1)),
        "dec is of shape (129,), not (128,)",
    ),
    "names": (lambda rows: rows.update(ra=rows["ra"].astype(str)), "ra is of type <U32 and does not fit"),
    "a column of another kind": (lambda rows: rows.update(mag_i=rows["ra"]), "have mag_i, which a store"),
}


@pytest.mark.parametrize(("spoil", "words"), UNFIT.values(), ids=UNFIT)
def test_what_a_store_cannot_keep_is_refused_with_the_remedy(tmp_path, spoil, words):
    def spoiled(start, stop):
        columns = rows(start, stop)
        spoil(columns)
        return columns

    with pytest.raises(ValueError, match=re.escape(words)):
        cutouts.write(tmp_path / "a.zarr", spoiled, **(SETTINGS | {"source": None}))
    assert names(tmp_path) == set()


# ---------------------------------------------------------------- names


def test_a_name_that_is_taken_is_refused_and_left_alone(tmp_path, undisturbed):
    written_shards(tmp_path / "a.zarr")
    with pytest.raises(UsageError, match="exists already"):
        cutouts.write(tmp_path / "a.zarr", rows, **SETTINGS)
    assert cutout_format.manifest_path(tmp_path / "a.zarr").read_bytes() == undisturbed
    assert names(tmp_path) == {"a.zarr", "a.zarr.manifest.json"}


def test_a_link_that_leads_nowhere_takes_a_name_before_anything_is_written(tmp_path):
    (tmp_path / "a.zarr").symlink_to(tmp_path / "purged" / "a.zarr")
    with pytest.raises(UsageError, match="exists already"):
        cutouts.write(tmp_path / "a.zarr", failing(AssertionError, shard=0), **SETTINGS)
    assert names(tmp_path) == {"a.zarr"}


@pytest.mark.parametrize("shard_rows", [0, -64, 1, 100])
def test_shards_are_whole_chunks(tmp_path, shard_rows):
    with pytest.raises(UsageError, match="multiple of 64"):
        cutouts.write(tmp_path / "a.zarr", rows, n=5, survey="test", shard_rows=shard_rows)
    assert names(tmp_path) == set()


def test_an_impossible_path_is_a_usage_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="cannot be created"):
        cutouts.write(tmp_path / "file" / "a.zarr", rows, n=5, survey="test")


def test_the_manifest_of_a_store_that_was_moved_is_not_overwritten(tmp_path):
    written_shards(tmp_path / "a.zarr")
    (tmp_path / "a.zarr").rename(tmp_path / "moved.zarr")
    with pytest.raises(UsageError, match=r"a\.zarr\.manifest\.json exists already"):
        cutouts.write(tmp_path / "a.zarr", rows, **SETTINGS)
    assert names(tmp_path) == {"moved.zarr", "a.zarr.manifest.json"}


def test_two_writers_do_not_share_a_directory(tmp_path):
    path = tmp_path / "a.zarr"

    def rows_meanwhile(start, stop):
        with pytest.raises(UsageError, match="being written by another process"):
            cutouts.write(path, rows, **SETTINGS)
        return rows(start, stop)

    cutouts.write(path, rows_meanwhile, **SETTINGS)
    assert not altered_files(path)


# ---------------------------------------------------------------- resuming


def test_finished_shards_are_kept(stopped, undisturbed, capsys):
    shard = stopped.with_name("a.zarr.partial") / "store/image/c/0/0/0/0"
    before = shard.stat()
    assert written_shards(stopped) == [2]
    assert "resuming: 2 of 3 shards are done" in capsys.readouterr().out
    assert (stopped / "image/c/0/0/0/0").stat().st_ino == before.st_ino
    assert cutout_format.manifest_path(stopped).read_bytes() == undisturbed


def truncate(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content)


DAMAGES = {
    "a shard deleted": ("store/image/c/0/0/0/0", lambda file: file.unlink(), [0, 2]),
    "a shard truncated": ("store/image/c/1/0/0/0", truncate, [1, 2]),
    "a shard of no length": ("store/ra/c/1", lambda file: os.truncate(file, 0), [1, 2]),
    "a bit flipped": ("store/object_id/c/0", flip, [0, 2]),
    "a record deleted": ("shard-000001.json", lambda file: file.unlink(), [1, 2]),
    "a record truncated": ("shard-000001.json", truncate, [1, 2]),
    "a record of nothing": ("shard-000001.json", lambda file: file.write_text("{}"), [1, 2]),
    "a file half written": ("store/image/c/2/0/0/0.123.partial", lambda file: file.write_text("x"), [2]),
    "a shard written, but not recorded": ("store/ra/c/2", lambda file: file.write_text("x"), [2]),
    "metadata edited": ("store/ra/zarr.json", lambda file: file.write_text("{}"), [0, 1, 2]),
    "no word of what it is": ("begun.json", lambda file: file.unlink(), [0, 1, 2]),
}


@pytest.mark.parametrize(("file", "damage", "shards"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_shards_are_written_again(stopped, undisturbed, file, damage, shards):
    damaged = stopped.with_name("a.zarr.partial") / file
    damaged.parent.mkdir(parents=True, exist_ok=True)
    damage(damaged)
    assert written_shards(stopped) == shards
    assert cutout_format.manifest_path(stopped).read_bytes() == undisturbed


CHANGES = [
    *({"source": "another"}, {"survey": "another"}, {"n": 290}, {"shard_rows": 192}),
    *({"zero_point": 30.0}, {"pixel_scale": 0.2}, {"bands": list("yzirg")}, {"source": None}),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_two_stores_never_mix(stopped, tmp_path, capsys, change):
    shards = [0, 1] if "shard_rows" in change else [0, 1, 2]
    assert written_shards(stopped, **change) == shards
    assert ("starting over" in capsys.readouterr().out) == (change != {"source": None})
    (tmp_path / "fresh").mkdir()
    fresh = tmp_path / "fresh" / "a.zarr"
    written_shards(fresh, **change)
    manifests = [cutout_format.manifest_path(path).read_bytes() for path in (stopped, fresh)]
    assert manifests[0] == manifests[1]


@pytest.mark.parametrize(
    ("error", "source", "left"),
    [
        (InputRefused("no more"), "the same", set()),
        (KeyboardInterrupt(), "the same", {"a.zarr.partial"}),
        (KeyboardInterrupt(), None, set()),
    ],
)
def test_a_failure_keeps_only_what_can_be_resumed(tmp_path, error, source, left):
    with pytest.raises(type(error)):
        cutouts.write(tmp_path / "a.zarr", failing(error), **(SETTINGS | {"source": source}))
    assert names(tmp_path) == left


def test_leftover_records_of_a_finished_store_are_removed(tmp_path):
    """A run was killed after it renamed the store, and before it cleaned up."""
    written_shards(tmp_path / "a.zarr")
    (tmp_path / "a.zarr.partial").mkdir()
    (tmp_path / "a.zarr.partial" / "shard-000000.json").touch()
    with pytest.raises(UsageError, match="exists already"):
        cutouts.write(tmp_path / "a.zarr", rows, **SETTINGS)
    assert names(tmp_path) == {"a.zarr", "a.zarr.manifest.json"}


def test_an_unfinished_store_is_kept_while_its_name_is_taken(stopped):
    stopped.mkdir()
    with pytest.raises(UsageError, match="exists already"):
        cutouts.write(stopped, rows, **SETTINGS)
    stopped.rmdir()
    assert written_shards(stopped) == [2]


# ---------------------------------------------------------------- killed

KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
import numpy as np
from catalogs.store import cutouts
from catalogs.store.command import altered_files
from killing import die_at

FOLDER = Path(sys.argv[1])

def rows(start, stop):
    m = stop - start
    image = np.random.default_rng(start).normal(size=(m, 5, 8, 8)).astype("f4")
    return {"image": image, "object_id": np.arange(start, stop), "ra": np.ones(m), "dec": np.ones(m)}

def write(path, step=None):
    child = os.fork()
    if not child:
        if step:
            die_at(FOLDER, step)
        cutouts.write(path, rows, n=100, survey="test", size=8, shard_rows=64, source="same")
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for step in range(1, 1000):
    path = FOLDER / str(step) / "a.zarr"
    ended = write(path, step)
    if ended != 0:
        assert ended == -signal.SIGKILL, ended
        assert not path.exists() or not altered_files(path)
    if not path.exists():
        assert write(path) == 0
    if ended == 0:
        break
"""


@pytest.mark.slow
def test_a_kill_at_any_step_is_survived(tmp_path):
    """Steps are changes of files or folders; the store must be as if nothing had happened."""
    program = [sys.executable, "-c", KILLED_AT_EVERY_STEP, tmp_path]
    environment = os.environ | {"PYTHONPATH": str(Path(killing.__file__).parent)}
    done = subprocess.run(program, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    steps = sorted(tmp_path.iterdir(), key=lambda folder: int(folder.name))
    assert len(steps) > 50
    manifests = {(folder / "a.zarr.manifest.json").read_bytes() for folder in steps}
    assert len(manifests) == 1
    for folder in steps:
        assert not altered_files(folder / "a.zarr")
        assert names(folder) <= {"a.zarr", "a.zarr.manifest.json", "a.zarr.partial"}
        for record in folder.glob("a.zarr.partial/*"):  # the store was renamed: only records are left
            assert record.suffix == ".json"


KILLED_HALF_WAY = """
import os, signal, sys
from pathlib import Path
import numpy as np
from catalogs.store import cutouts

def rows(start, stop):
    if start:
        os.kill(os.getpid(), signal.SIGKILL)
    m = stop - start
    return {"image": np.ones((m, 5, 8, 8)), "object_id": np.arange(m), "ra": np.ones(m), "dec": np.ones(m)}

cutouts.write(Path(sys.argv[1]), rows, n=300, survey="dead", size=8, shard_rows=128)
"""


def test_a_write_without_a_source_starts_over(tmp_path):
    path = tmp_path / "a.zarr"
    killed = subprocess.run([sys.executable, "-c", KILLED_HALF_WAY, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert names(tmp_path) == {"a.zarr.partial"}
    assert written_shards(path, source=None) == [0, 1, 2]
    np.testing.assert_array_equal(open_store(path).images(0, 128)[0], rows(0, 128)["image"])
