"""The batch scripts on a real Slurm: whatever `sinfo` answers, else the testbed."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from catalogs.store import format as cutout_format
from mmae import export
from mmae.models import checkpoint

ROOT = Path(__file__).parents[2]
TINY = [
    "--preset=himes2025",
    "--precision=fp32",
    *["--model.embed-dim", "32", "--model.depth", "1", "--model.fusion-depth", "1", "--model.heads", "4"],
]
JOB_SECONDS = 300

pytestmark = pytest.mark.slurm


@pytest.fixture
def submit(cluster, tmp_path):
    """Submit a script of slurm/ and wait; gives the job's state and what it printed."""

    def submit_and_wait(*command):
        environment = cluster | {"MMAE_PYTHON": sys.executable}
        job = subprocess.run(
            ["sbatch", "--parsable", *map(str, command)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        deadline = time.monotonic() + JOB_SECONDS
        query = ["sacct", "-j", job, "-X", "-n", "-o", "state"]
        while True:
            state = subprocess.run(query, env=environment, capture_output=True, text=True).stdout.strip()
            if state not in ("", "PENDING", "RUNNING", "COMPLETING"):
                break
            assert time.monotonic() < deadline, f"job {job} is still {state}"
            time.sleep(1)
        printed = "".join(log.read_text() for log in tmp_path.glob(f"*-{job}.log"))
        return state, printed

    return submit_and_wait


def test_train_on_two_nodes_with_two_ranks_each(submit, survey, tmp_path):
    run = tmp_path / "run"
    state, printed = submit(
        *(ROOT / "slurm/train.sh", survey / "train.zarr", "--out", run, "--epochs", 2, "--batch", 32, *TINY),
        *("--slurm.nodes", 2, "--slurm.tasks-per-node", 2, "--slurm.gpus-per-node", 0),
        *("--slurm.cpus-per-task", 1, "--slurm.memory-gb", 4, "--slurm.hours", 0.5),
    )
    assert state == "COMPLETED", printed
    assert "ranks: 4 (cpu, fp32)" in printed
    assert "epoch 2/2" in printed
    export.main(export.Export(run))
    assert json.loads((run / "bundle" / "card.json").read_text())["step"] > 0
    assert (run / "slurm").stat().st_mode & 0o777 == 0o700


BARE = """
data = "survey.zarr"
preset = "himes2025"
out = "run"
epochs = 1
batch = 32
precision = "fp32"
[model]
embed-dim = 32
depth = 1
fusion-depth = 1
heads = 1
"""


def test_without_arguments_it_trains_on_what_lies_there(submit, survey, tmp_path):
    """Cores, memory and GPUs are those that the nodes have."""
    state, printed = submit(ROOT / "slurm/train.sh")
    assert state == "FAILED"
    assert f"there is neither train.zarr nor train.toml in {tmp_path}" in printed
    assert printed.count("\n") == 1
    (tmp_path / "train.toml").write_text(BARE)
    for name in ("train.zarr", "train.zarr.manifest.json"):
        (tmp_path / name.replace("train", "survey")).symlink_to(survey / name)
    state, printed = submit(ROOT / "slurm/train.sh")
    assert state == "COMPLETED", printed
    assert checkpoint.is_intact(tmp_path / "run" / checkpoint.BEST)


def test_a_failing_job_fails_its_controller(submit, survey, tmp_path):
    state, printed = submit(
        *(ROOT / "slurm/train.sh", survey / "rubin_tile.zarr", "--out", tmp_path / "run", *TINY),
        *("--slurm.gpus-per-node", 0, "--slurm.cpus-per-task", 1, "--slurm.memory-gb", 4),
    )
    assert state == "FAILED"
    assert "ended as FAILED" in printed
    assert checkpoint.newest(tmp_path / "run") is None


def test_ingest_on_two_nodes_gives_the_serial_bytes(submit, survey, tmp_path):
    state, printed = submit(
        *("--nodes=2", "--ntasks-per-node=1", ROOT / "slurm/ingest.sh"),
        *(survey / "galaxies.hdf5", tmp_path / "train.zarr", "--shard-rows", 128),
    )
    assert state == "COMPLETED", printed
    serial = cutout_format.manifest_path(survey / "train.zarr").read_bytes()
    assert cutout_format.manifest_path(tmp_path / "train.zarr").read_bytes() == serial


def test_infer_on_two_nodes(submit, survey, bundle, tmp_path):
    state, printed = submit(
        *(ROOT / "slurm/infer.sh", "--catalog", survey / "rubin_tile.zarr", "--model", bundle),
        *("--out", tmp_path, "--slurm.nodes", 2, "--slurm.gpus-per-node", 0),
        *("--slurm.cpus-per-task", 1, "--slurm.memory-gb", 4, "--slurm.hours", 0.5),
    )
    assert state == "COMPLETED", printed
    assert "rubin_tile.photoz.fits: 2048 objects" in printed
