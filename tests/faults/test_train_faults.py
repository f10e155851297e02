"""A rank that dies ends the others, and the next run goes on from the newest checkpoint."""

import signal
import subprocess
import sys
import time

import psutil
import pytest

from mmae.models import checkpoint

EXIT_SECONDS = 30
TINY = [
    "--precision=fp32",
    "--model.embed-dim=64",
    "--model.depth=1",
    "--model.decoder-dim=32",
    "--model.decoder-depth=1",
]


@pytest.fixture
def torchrun(survey, tmp_path):
    def start(epochs, log):
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "mmae.train"]
        flags = [survey / "train.zarr", "--out", tmp_path / "run", f"--epochs={epochs}", "--batch=32"]
        flags += ["--schedule=constant", *TINY]
        with log.open("w") as output:
            return subprocess.Popen([*command, *map(str, flags)], stdout=output, stderr=subprocess.STDOUT)

    return start


def test_a_dead_rank_ends_the_other_and_the_next_run_goes_on(torchrun, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    process = torchrun(1000, log)
    while not (saved := checkpoint.newest(run)):
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    ranks = psutil.Process(process.pid).children()
    (victim,) = [rank for rank in ranks if rank.environ()["RANK"] == "1"]
    victim.send_signal(signal.SIGKILL)
    process.wait(EXIT_SECONDS)
    assert not any(rank.is_running() for rank in ranks)
    assert "rank 0 of 2 has lost another rank" in log.read_text()
    assert "Signal 9" in log.read_text()

    epoch = checkpoint.load(checkpoint.newest(run))["epoch"]
    assert torchrun(epoch + 1, log).wait(120) == 0, log.read_text()
    assert f"epoch {epoch} of {epoch + 1}" in log.read_text()
    assert checkpoint.newest(run) > saved
