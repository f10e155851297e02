"""Training: a stopped run goes on exactly, a damaged checkpoint is passed over, ranks work together."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from catalogs.errors import InputRefused, Interrupted, UsageError
from mmae import checkpoint, distributed, train
from mmae.data import TRAIN, TrainingSet
from mmae.model import Himes2025
from mmae.recipe import Train, make_optimizer


@pytest.fixture
def config(survey, tiny, tmp_path):
    return Train(survey / "train.zarr", tmp_path / "run", epochs=2, batch=32, model=tiny)


def weights(run):
    return checkpoint.load(checkpoint.newest(run))["model"]


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_a_run_leaves_what_it_should(trained):
    kinds = [json.loads(line)["kind"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("validation") == 2
    assert checkpoint.is_whole(trained / checkpoint.BEST)
    assert json.loads((trained / "config.json").read_text())["config"]["batch"] == 32
    assert list((trained / "tensorboard").glob("events.*"))


def test_a_finished_run_is_left_alone(trained, survey, tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    train.main(Train(survey / "train.zarr", trained, epochs=2, batch=32, model=tiny))
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


@pytest.mark.parametrize("steps", [3, 6, 8])
def test_a_stopped_run_goes_on_to_the_same_weights(config, trained, monkeypatch, steps):
    """Stopped inside the first epoch, at its end (6 steps) and inside the second."""
    data = TrainingSet(config.data)
    assert len(data.rows(TRAIN)) // config.batch in (5, 6)
    with distributed.world() as world:
        stop = train.Stop()
        done = []
        agree = train.agree

        def stop_at(world, *flags):
            done.append(1)
            stop.requested = len(done) >= steps
            return agree(world, stop.requested, *flags[1:])

        monkeypatch.setattr(train, "agree", stop_at)
        with pytest.raises(Interrupted, match=f"step {steps}"):
            train.train(config, world, data, stop)
        monkeypatch.setattr(train, "agree", agree)
        train.train(config, world, data, train.Stop())
    assert equal(weights(config.out), weights(trained))


def test_sigterm_saves_and_ends_with_code_4(config):
    flags = ["--epochs", "500", "--batch", "32", "--model.embed-dim", "32", "--model.depth", "1"]
    command = [sys.executable, "-u", "-m", "mmae.train", str(config.data), "--out", str(config.out), *flags]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert any("epoch 1/500" in line for line in process.stdout)
        process.terminate()
        process.stdout.read()
        error = process.stderr.read()
    assert process.returncode == 4
    assert error.count("\n") == 1
    assert "goes on" in error
    assert checkpoint.newest(config.out)


def test_a_damaged_checkpoint_is_passed_over(config):
    train.main(replace(config, epochs=1))
    first = checkpoint.newest(config.out)
    train.main(config)
    second = checkpoint.newest(config.out)
    assert second != first
    content = bytearray(second.read_bytes())
    content[len(content) // 2] ^= 1
    second.write_bytes(content)
    assert checkpoint.newest(config.out) == first
    train.main(config)  # the second epoch again
    assert checkpoint.is_whole(second)


def test_a_checkpoint_is_read_without_running_what_is_in_it(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputRefused):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_run_goes_on_with_its_own_flags_only(trained, survey, tiny):
    with pytest.raises(UsageError, match="batch 32"):
        train.main(Train(survey / "train.zarr", trained, epochs=2, batch=64, model=tiny))


def test_positions_and_queries_learn_slowly_and_do_not_decay(config):
    model = Himes2025(config.model)
    rest, slow = make_optimizer(model, config).param_groups
    assert (rest["lr"], rest["weight_decay"]) == (1e-4, 0.01)
    assert (slow["lr"], slow["weight_decay"]) == (1e-5, 0.0)
    assert len(slow["params"]) == 4
    assert len(rest["params"]) + 4 == len(list(model.parameters()))


def test_bf16_autocast_trains(config):
    train.main(replace(config, epochs=1, precision="bf16"))
    state = checkpoint.load(checkpoint.newest(config.out))
    assert all(tensor.dtype == torch.float32 for tensor in state["model"].values())


@pytest.mark.slow
def test_two_ranks_train_one_model(config):
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29611",
    ]
    flags = ["--epochs", "1", "--batch", "32", "--model.embed-dim", "32", "--model.depth", "1"]
    done = subprocess.run(
        [*command, "-m", "mmae.train", str(config.data), "--out", str(config.out), *flags],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ranks: 2 (cpu, fp32)" in done.stdout
    assert len(checkpoint.load(checkpoint.newest(config.out))["generators"]) == 2


def test_slurm_variables_become_torchruns(tmp_path, monkeypatch):
    step = {
        "SLURM_JOB_ID": "12345",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    }
    scontrol = tmp_path / "scontrol"
    scontrol.write_text("#!/bin/sh\necho node1; echo node2\n")
    scontrol.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert distributed.torchrun_variables(step) == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node1",
        "MASTER_PORT": "22345",
    }
    assert distributed.torchrun_variables({"SLURM_NTASKS": "4"})["WORLD_SIZE"] == "1"  # a batch script
    assert distributed.torchrun_variables({"RANK": "0", **step}) == {}
