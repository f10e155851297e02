"""Where the real data and the real components are; what may be skipped, and what may not."""

import dataclasses
import fcntl
import os
import re
import secrets
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from s3_server import Proxy, environment, make_bucket
from s3_server import started as s3_server_started

from catalogs import ingest
from catalogs.mock import survey as mock
from catalogs.object_path import ObjectPath
from catalogs.store import cutouts
from catalogs.store import format as cutout_format
from mmae import cli, export, train
from mmae.models.himes2025 import Himes2025Config
from mmae.models.mmae_config import ModelConfig
from mmae.training.recipe import Train

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"
TESTBED = Path(os.environ.get("SLURM_TESTBED", SHARED / "slurm-testbed" / "slurm-testbed"))


EXPENSIVE = {
    *(
        "survey",
        "runs",
        "trained",
        "bundle",
        "draw_tile",
        "draw_training",
        "tile",
        "cluster",
        "mpirun",
        "planted",
        "serial",
    ),
}
"""Fixtures that draw a survey, train a model or start a cluster: their tests are slow whatever they do."""


LONGEST = ("slurm", "faults", "gpu", "test_install.py", "mmae", "jobs")
"""Rooms whose files take minutes, those that mostly wait first."""


def pytest_collection_modifyitems(items):
    """Mark tests of expensive fixtures as slow; put the longest files first.

    A process of tests takes a file at a time, and at the end all but one would wait for a long one.
    """
    for item in items:
        if EXPENSIVE.intersection(item.fixturenames):
            item.add_marker(pytest.mark.slow)
    rank = {room: number for number, room in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path.relative_to(ROOT / "tests").parts[0], len(rank)))


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Tests, and what they start, compute as an actor does: the last bits of a sum differ on more threads.

    And threads of processes that share cores spend most of their time waiting for each other.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def _folder(variable, default):
    folder = Path(os.environ.get(variable, default))
    if not folder.is_dir():
        pytest.skip(f"{variable}: no folder {folder}")
    return folder


@pytest.fixture(scope="session")
def reference():
    """The paper's released model as figures, and its authors' predictions."""
    return _folder("MMAE_SHARED_REFERENCE", SHARED / "reference")


@pytest.fixture(scope="session")
def real_data():
    """Real HSC images and real DESI spectra."""
    return _folder("MMAE_SHARED_DATA", SHARED / "data")


def missing(reason):
    """A component is not there: skip on a machine of one's own, fail where CI promises it."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)


@pytest.fixture(scope="session")
def program():
    """`program(name)`: path of an executable, beside this Python or on the PATH."""

    def find(name):
        found = shutil.which(name, path=Path(sys.executable).parent) or shutil.which(name)
        return found or missing(f"{name} is not installed")

    return find


def slurm_answers(environment):
    if not shutil.which("sinfo"):
        return False
    return subprocess.run(["sinfo"], env=environment, capture_output=True, timeout=60).returncode == 0


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Environment in which Slurm's commands reach a cluster of at least two nodes."""
    if slurm_answers(os.environ):
        yield dict(os.environ)
        return
    if not TESTBED.exists():
        missing(f"no Slurm answers sinfo, and there is no testbed {TESTBED} (set SLURM_TESTBED)")
    if os.geteuid() != 0:
        missing("no Slurm answers sinfo, and the testbed needs root")
    state = tmp_path_factory.mktemp("slurm")
    environment = os.environ | {"SLURM_TESTBED_DIR": str(state), "SLURM_TESTBED_NODES": "2"}
    environment["SLURM_TESTBED_WAIT"] = "300"  # seconds for a part: MariaDB, on a busy machine
    subprocess.run([TESTBED, "install"], check=True, env=environment)
    # each MariaDB that starts removes what others have in the folder of temporary files
    own = environment | {"TMPDIR": str(tmp_path_factory.mktemp("mariadb"))}
    subprocess.run([TESTBED, "up", "--fresh"], check=True, env=own)
    exports = subprocess.run([TESTBED, "env"], check=True, env=environment, capture_output=True, text=True)
    # the testbed's nodes share a kernel, which UCX takes for shared memory, but not /dev/shm
    found = dict(re.findall(r"export (\w+)=(\S+)", exports.stdout)) | {"UCX_TLS": "tcp,self"}
    yield environment | found
    subprocess.run([TESTBED, "down", "--purge"], check=True, env=environment)


@pytest.fixture(scope="session")
def s3_server():
    """Address of a server that speaks S3."""
    with s3_server_started() as address:
        yield address


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """An empty bucket of the test's own, and variables by which it is reached."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment(s3_server).items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{secrets.token_hex(4)}"
    make_bucket(s3_server, name)
    return ObjectPath(name)


@pytest.fixture
def proxy(s3_server, bucket, monkeypatch):
    """A proxy before the server, through which the bucket is reached."""
    with Proxy(s3_server) as before:
        monkeypatch.setenv("AWS_ENDPOINT_URL", before.address)
        yield before
        before.shutdown()


# ---------------------------------------------------------------- a small survey and a small trained model


TINY = {
    "mmae": ModelConfig(embed_dim=64, depth=1, decoder_dim=32, decoder_depth=1, bins=60),
    "himes2025": Himes2025Config(embed_dim=32, depth=1, fusion_depth=1, heads=4),
}
"""Architectures that train in seconds, by preset."""


def recipe(preset, data, out, **flags):
    """A short training of a tiny model on one store, or several, by the recipe of a preset."""
    short = {"epochs": 2, "batch": 32, "precision": "fp32", "model": TINY[preset]}
    return dataclasses.replace(
        Train.preset(preset), data=(data,) if isinstance(data, Path) else data, out=out, **short | flags
    )


@pytest.fixture(scope="session")
def made_once(tmp_path_factory):
    """`made_once(name, make)`: a folder that the first process of tests to ask makes; others wait."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def once(name, make):
        folder, made = base / name, base / f"{name}.made"
        with (base / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # of a process that failed at it
                make(folder)
                made.touch()
        return folder

    return once


@pytest.fixture(scope="session")
def survey(made_once):
    """Folder with galaxies.hdf5, train.zarr (256 galaxies) and rubin_tile.zarr (2048 objects, 16 shards)."""
    return made_once("survey", draw_survey)


def draw_survey(folder):
    mock.main(mock.Mock(folder / "mock", galaxies=256, tile=128, seed=3, artefacts=0, shard_rows=128))
    (folder / "mock" / "galaxies.hdf5").rename(folder / "galaxies.hdf5")
    ingest.main(ingest.Ingest(folder / "galaxies.hdf5", folder / "train.zarr", shard_rows=128))
    drawn = cutouts.open_store(folder / "mock" / "rubin_tile.zarr")
    columns = {name: drawn.column(name) for name in ("object_id", "ra", "dec")}
    image, _ = drawn.images(0, 128)

    def rows(start, stop):  # the same 128 objects over and over, at other brightnesses and with other ids
        object_id = columns["object_id"] + 1000 * start
        return columns | {"object_id": object_id, "image": image * np.float32(1 + start / 2048)}

    cutouts.write(folder / "rubin_tile.zarr", rows, n=2048, survey="mock", shard_rows=128)


@pytest.fixture(scope="session")
def runs(survey, made_once):
    """`runs(preset)`: directory of a finished training run."""
    return lambda preset: made_once(
        preset, lambda out: train.main(recipe(preset, survey / "train.zarr", out))
    )


@pytest.fixture(scope="session")
def trained(runs):
    return runs("mmae")


@pytest.fixture(scope="session")
def bundles(runs, made_once):
    """`bundles(preset)`: the bundle of that run."""
    return lambda preset: made_once(
        f"bundle-{preset}", lambda out: export.main(export.Export(runs(preset), out))
    )


@pytest.fixture(scope="session")
def bundle(bundles):
    return bundles("mmae")


@pytest.fixture(scope="session")
def catalogue(survey, bundle, made_once):
    """Folder with the catalogue of the tile, made in one go by one worker, whatever is in the environment."""

    def infer(folder):
        flags = ("--catalog", survey / "rubin_tile.zarr", "--model", bundle, "--out", folder, "--workers", 1)
        variables = {"PATH": "/usr/bin:/bin", "HOME": str(folder.parent)}
        done = output_of("mmae.infer", *flags, env=variables)
        assert done.startswith(f"model: {bundle}")
        assert "2048 objects" in done

    return made_once("catalogue", infer)


@pytest.fixture(scope="session")
def embeddings(survey, bundle, made_once):
    """Folder with the embeddings of the tile (4 shards), made in one go by one worker."""

    def embed(folder):
        flags = ("--catalog", survey / "rubin_tile.zarr", "--model", bundle, "--out", folder, "--workers", 1)
        made = f"wrote {folder / 'rubin_tile.embeddings.zarr'}: 2048 objects, 64 numbers each; 0 are NaN"
        assert made in output_of("mmae.embed", *flags)

    return made_once("embeddings", embed)


def output_of(module, *flags, env=None):
    command = [sys.executable, "-m", module, *map(str, flags)]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == cli.OK, done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def draw_tile(survey):
    """`draw_tile(path, first, n)`: a store of n rows of the tile in shards of 64, for units of 512."""
    source = cutouts.open_store(survey / "rubin_tile.zarr")

    def draw(path, first, n):
        def rows(start, stop):
            span = first + start, first + stop
            columns = {name: source.column(name, *span) for name in ("object_id", "ra", "dec")}
            return columns | {"image": source.images(*span)[0]}

        cutouts.write(path, rows, n=n, survey="mock", shard_rows=64)
        return path

    return draw


@pytest.fixture(scope="session")
def draw_training(survey):
    """`draw_training(path, rows, **columns)`: a training store of those rows of train.zarr, in shards of 64.

    columns : (n, ...) each, in place of those in train.zarr
    """
    source = cutouts.open_store(survey / "train.zarr")
    names = ("object_id", "ra", "dec", "flux", "ivar", "redshift")

    def draw(path, rows, **columns):
        drawn = {name: source.column(name)[rows] for name in names}
        drawn |= {"image": source.images(0, source.n)[0][rows]} | columns

        def block(start, stop):
            return {name: values[start:stop] for name, values in drawn.items()}

        known = [name for name in columns if name not in (*names, "image")]
        cutouts.write(path, block, n=len(rows), survey="mock", wave=source.wave, shard_rows=64, known=known)
        return path

    return draw


@pytest.fixture(scope="session")
def mixed(survey, draw_training, made_once):
    """A store a third of whose galaxies have no redshift, and a third no spectrum; some have neither."""

    def make(folder):
        folder.mkdir()
        source = cutouts.open_store(survey / "train.zarr")
        redshift, flux = source.column("redshift").copy(), source.column("flux").copy()
        redshift[::3], flux[1::3] = np.nan, 0
        redshift[3::6], flux[3::6] = -1, np.nan
        draw_training(folder / "train.zarr", np.arange(256), redshift=redshift, flux=flux)

    return made_once("mixed", make) / "train.zarr"


@pytest.fixture
def tile(survey, tmp_path):
    """The tile in a folder of the test's own."""
    store = tmp_path / "rubin_tile.zarr"
    shutil.copytree(survey / store.name, store)
    shutil.copy(cutout_format.manifest_path(survey / store.name), tmp_path)
    return store
