"""What sbatch is told, and what becomes of its refusal."""

import re
import subprocess
import sys

import pytest
from conftest import missing

from catalogs.errors import UsageError
from jobs.submission import Slurm
from mmae import cli

pytestmark = [pytest.mark.slurm, pytest.mark.slow]
SMALL = ("--slurm.gpus-per-node=0", "--slurm.cpus-per-task=1", "--slurm.memory-gb=1", "--slurm.hours=0.5")


@pytest.fixture
def train(cluster, tmp_path, tmp_path_factory):
    """`train(flags, variables)`: the controller of a training whose store is empty, run to its end."""
    store = tmp_path_factory.mktemp("empty.zarr")

    def train(*flags, **variables):
        command = [sys.executable, "-m", "jobs.train", store, "--out", tmp_path / "runs/first"]
        return subprocess.run(
            list(map(str, (*command, *SMALL, *flags))),
            env=cluster | variables,
            capture_output=True,
            text=True,
        )

    return train


@pytest.mark.parametrize(
    ("flags", "variables", "words"),
    [
        (["--slurm.partition=nowhere"], {}, "invalid partition specified: nowhere"),
        (["--slurm.options", "exclusive", "constraint=none-such"], {}, "Invalid feature specification"),
        ([], {"SBATCH_CONSTRAINT": "none-such"}, "Invalid feature specification"),
        (["--slurm.options", "frobnicate=3"], {}, "unrecognized option '--frobnicate=3'"),
        (["--slurm.nodes=90"], {}, "More processors requested than permitted"),
    ],
)
def test_what_sbatch_refuses_is_a_usage_error_in_its_words(train, tmp_path, flags, variables, words):
    done = train(*flags, **variables)
    assert done.returncode == cli.USAGE, done.stderr
    (sentence,) = done.stderr.splitlines()
    assert "sbatch refuses the job: " in sentence
    assert words in sentence
    assert not list(tmp_path.iterdir())


def test_a_refusal_leaves_the_run_that_is_there(train, tmp_path):
    log = tmp_path / "runs/first/slurm/1_0_log.out"
    log.parent.mkdir(parents=True)
    log.touch()
    assert train("--slurm.partition=nowhere").returncode == cli.USAGE
    assert list(log.parent.iterdir()) == [log]


def test_options_reach_the_job_and_flags_win_over_variables(cluster, train):
    if "SLURM_TESTBED_DIR" not in cluster:
        missing("only a node of the testbed may be given a feature")
    give = ["scontrol", "update", "NodeName=node2", "AvailableFeatures=fast"]
    subprocess.run(give, env=cluster, check=True)
    done = train(
        *("--slurm.options", "constraint=fast", "comment=of the user"),
        SBATCH_CONSTRAINT="none-such",
        SBATCH_TIMELIMIT="7",
        SLURM_JOB_ID="1",
        SLURM_NTASKS="3",
    )
    job = re.search(r"^job (\d+): /", done.stdout)[1]
    show = ["scontrol", "show", "job", job]
    shown = subprocess.run(show, env=cluster, capture_output=True, text=True, check=True).stdout
    for expected in ("Features=fast", "NodeList=node2", "TimeLimit=00:30:00", "Comment=of the user"):
        assert expected in shown
    assert "NumTasks=1" in shown
    assert f"job {job} ended as FAILED" in done.stderr  # there is no store


@pytest.mark.parametrize("option", ["nodes=2", "output=/dev/null", "-C=gpu", "constraint=gpu\n#SBATCH -N9"])
def test_options_that_are_ours_or_none_at_all_are_usage_errors(option):
    with pytest.raises(UsageError, match=r"--slurm\.options"):
        Slurm(options=(option,))
