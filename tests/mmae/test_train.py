"""Training: exact resumption, damaged checkpoints, several ranks."""

import itertools
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import killing
import numpy as np
import pytest
import torch
from conftest import TINY, recipe
from torch import nn

from catalogs import atomic
from catalogs.errors import InputRefused, Interrupted, UsageError
from mmae import cli, export, train
from mmae.bundles.bundle import open_bundle
from mmae.models import checkpoint
from mmae.models.families import build
from mmae.models.himes2025 import Himes2025, Himes2025Config
from mmae.training import distributed, loop
from mmae.training.batches import steps_per_epoch
from mmae.training.data import TRAIN, VALIDATION, TrainingSet
from mmae.training.drawn_masks import draw_masks
from mmae.training.optimizer import make_optimizer, rate_factor
from mmae.training.recipe import Train
from mmae.training.runlog import METRICS
from mmae.training.state import update_average
from mmae.training.step import backward
from mmae.training.validate import Validation

SMALL = ["--model.embed-dim=64", "--model.depth=1", "--model.decoder-dim=32", "--model.decoder-depth=1"]


@pytest.fixture
def config(survey, tmp_path):
    return recipe("mmae", survey / "train.zarr", tmp_path / "run", schedule="constant")


def test_a_run_writes_its_files(trained):
    kinds = [json.loads(line)["kind"] for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("validation") == 2
    assert checkpoint.is_intact(trained / checkpoint.BEST)
    assert json.loads((trained / "config.json").read_text())["config"]["batch"] == 32
    assert list((trained / "tensorboard").glob("events.*"))
    assert {path.name for path in trained.glob("*.png")} == {"zphot_zspec.png", "reconstruction.png"}


def test_a_finished_run_is_not_touched(trained, survey, capsys):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    train.main(recipe("mmae", survey / "train.zarr", trained))
    assert "nothing to do" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_report_is_of_all_steps_since_the_last(survey, tmp_path, monkeypatch):
    rows = {}
    for steps in (1, 3):
        monkeypatch.setattr(loop, "REPORT_STEPS", steps)
        out = tmp_path / str(steps)
        train.main(recipe("himes2025", survey / "train.zarr", out, epochs=1))
        reports = map(json.loads, (out / METRICS).read_text().splitlines())
        rows[steps] = {report["step"]: report for report in reports if report["kind"] == "train"}
    assert len(rows[3]) == len(rows[1]) // 3 > 1
    for step, report in rows[3].items():
        for name in ("total", "image", "spectrum", "redshift"):
            since = [rows[1][k][name] for k in (step - 2, step - 1, step)]
            assert report[name] == pytest.approx(np.mean(since), rel=1e-6), name


@pytest.mark.parametrize("splits", [[TRAIN], [VALIDATION], [TRAIN, VALIDATION]])
def test_a_store_of_a_galaxy_or_two_is_refused(survey, draw_training, trained, tmp_path, splits):
    whole = TrainingSet(survey / "train.zarr", TINY["mmae"])
    rows = np.array([whole.rows(split)[0] for split in splits])
    path = draw_training(tmp_path / "few.zarr", rows)
    for preset in TINY:
        with pytest.raises(InputRefused, match=r"too few galaxies .*: [01] in the"):
            train.main(recipe(preset, path, tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputRefused, match="too few galaxies"):
        export.main(export.Export(trained, tmp_path / "bundle", (path,)))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("preset", TINY)
def test_the_least_store_trains_and_exports(survey, draw_training, tmp_path, preset):
    """Two galaxies to train on, one to validate."""
    whole = TrainingSet(survey / "train.zarr", TINY[preset])
    rows = np.append(whole.rows(TRAIN)[:2], whole.rows(VALIDATION)[0])
    train.main(recipe(preset, draw_training(tmp_path / "few.zarr", rows), tmp_path / "run"))
    export.main(export.Export(tmp_path / "run"))
    assert open_bundle(tmp_path / "run/bundle").card["training_data"]["galaxies"] == 2


# ---------------------------------------------------------------- interruption and resumption

HARD = {
    "mmae": {"epochs": 3, "batch": 64, "precision": "bf16", "average": 0.5},
    "himes2025": {"epochs": 3, "batch": 64, "precision": "bf16", "schedule": "restarts", "first_cycle": 1},
}
"""Flags of runs that are hard to resume: a varying rate, bf16, random masks, turns and dropout."""


class Killed(BaseException):
    """Ends a run at once, as SIGKILL does: nothing more is saved."""


def outcome(run):
    """Results that must be equal in two runs: the last state, the best, the reports without the speed."""
    state, best = checkpoint.load(checkpoint.newest(run)), checkpoint.load(run / checkpoint.BEST)
    reports = [json.loads(line) for line in (run / METRICS).read_text().splitlines()]
    for part in (state, best):
        del part["config"]["out"]
    return state, best, [{k: v for k, v in report.items() if k != "samples_per_s"} for report in reports]


def assert_same(a, b):
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.fixture(scope="module", params=HARD)
def preset(request):
    return request.param


@pytest.fixture(scope="module")
def data(survey, mixed, preset):
    """What it trains on: of our own model, galaxies of every kind."""
    return mixed if preset == "mmae" else survey / "train.zarr"


@pytest.fixture(scope="module")
def undisturbed(data, preset, tmp_path_factory):
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "REPORT_STEPS", 2)
        train.main(recipe(preset, data, out, **HARD[preset]))
    return outcome(out)


def test_a_run_stopped_after_every_step_has_the_same_result(data, preset, undisturbed, tmp_path, monkeypatch):
    """Each session takes one step and stops; at the end of an epoch also after the validation."""
    monkeypatch.setattr(loop, "REPORT_STEPS", 2)
    agree = loop.agree
    monkeypatch.setattr(loop, "agree", lambda world, stop, *flags: agree(world, True, *flags))
    config = recipe(preset, data, tmp_path / "run", **HARD[preset])
    config.out.mkdir()
    galaxies, stopped = TrainingSet(config.data, config.model, complete=config.complete), 0
    with distributed.world() as world:
        for _ in range(100):
            try:
                train.train(config, world, galaxies, loop.Stop())
                break
            except Interrupted:
                stopped += 1
    assert stopped == 3 * (steps_per_epoch(len(galaxies.rows(TRAIN)), 64, 1) + 1) - 1
    assert_same(outcome(config.out), undisturbed)


def test_a_run_killed_after_every_checkpoint_has_the_same_result(
    data, preset, undisturbed, tmp_path, monkeypatch
):
    """Each session saves after its first step and is killed in its third, or before the save of an epoch."""
    monkeypatch.setattr(loop, "REPORT_STEPS", 2)
    config = recipe(preset, data, tmp_path / "run", **HARD[preset])
    agree, save, calls, validated = loop.agree, loop.save, 0, set()

    def agree_or_die(world, stop, *flags):
        nonlocal calls
        calls += bool(flags)
        if calls == 3:
            raise Killed
        return [stop, calls == 1, False] if flags else agree(world, stop)

    def save_or_die(*arguments, best=False):
        state = arguments[3]
        if state.step_in_epoch == 0 and state.epoch not in validated:
            validated.add(state.epoch)
            raise Killed
        save(*arguments, best=best)

    monkeypatch.setattr(loop, "agree", agree_or_die)
    monkeypatch.setattr(loop, "save", save_or_die)
    killed = 0
    for _ in range(100):
        calls = 0
        try:
            train.main(config)
            break
        except Killed:
            killed += 1
    assert killed > 6
    assert validated == {1, 2, 3}
    assert_same(outcome(config.out), undisturbed)


ONE_RANK = """
import sys
from pathlib import Path
import numpy as np
from mmae import train
from mmae.training import loop
from conftest import recipe

data, out, seen, last = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
redshifts, batches, agree = [], loop.batches, loop.agree

def recorded(*arguments):
    for batch in batches(*arguments):
        redshifts.append(batch.redshift.numpy())
        yield batch

def stop_at_last(world, stop, *flags):
    return agree(world, len(redshifts) == last, *flags)

loop.batches, loop.agree = recorded, stop_at_last
try:
    flags = {"batch": int(sys.argv[5]), "epochs": int(sys.argv[6]), "schedule": sys.argv[7], "lr": 1e-4}
    train.main(recipe("mmae", data, out, **flags))
finally:
    np.save(seen, np.concatenate(redshifts))
"""


def run_ranks(config, ranks, last, seen):
    """Train on several ranks up to the `last` step of this session (-1: to the end); returns the files of
    the redshifts that each rank read, and its output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    processes, files = [], [seen / f"{ranks}-{rank}.npy" for rank in range(ranks)]
    for rank, file in enumerate(files):
        variables = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        environment = os.environ | {name: str(number) for name, number in variables.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        environment["PYTHONPATH"] = str(Path(killing.__file__).parent)
        command = [
            sys.executable,
            "-c",
            ONE_RANK,
            config.data[0],
            config.out,
            file,
            str(last),
            *map(str, (config.batch, config.epochs, config.schedule)),
        ]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    texts = [process.communicate(timeout=300)[0] for process in processes]
    return files, texts


@pytest.mark.slow
def test_a_run_resumes_with_fewer_ranks_without_losing_or_repeating_a_galaxy(config, tmp_path):
    config = replace(config, epochs=1)
    first, _ = run_ranks(config, 2, 3, tmp_path)
    assert checkpoint.load(checkpoint.newest(config.out))["step"] == 3
    rest, texts = run_ranks(config, 1, -1, tmp_path)
    assert "begun on 2 ranks (cpu); dropout goes on otherwise" in texts[0]
    data = TrainingSet(config.data, config.model)
    seen = np.concatenate([np.load(file) for file in first + rest])
    redshift = data.redshift[data.rows(TRAIN)].astype(np.float32)
    assert len(seen) == len(redshift)
    assert (np.sort(seen) == np.sort(redshift)).all()


@pytest.mark.slow
def test_the_rate_goes_on_where_another_number_of_ranks_has_other_steps(config, tmp_path):
    """Two ranks drop the last batch of an epoch, of one galaxy: one step, where one rank takes two."""
    galaxies = len(TrainingSet(config.data, config.model).rows(TRAIN))
    config = replace(config, schedule="one-cycle", epochs=3, batch=galaxies - 1)
    assert [steps_per_epoch(galaxies, config.batch, ranks) for ranks in (2, 1)] == [1, 2]
    run_ranks(config, 2, 2, tmp_path)
    assert checkpoint.load(checkpoint.newest(config.out))["step"] == 2
    run_ranks(config, 1, -1, tmp_path)
    saved = checkpoint.load(checkpoint.newest(config.out))
    assert saved["epoch"] == 3
    assert saved["optimizer"]["param_groups"][0]["lr"] == 1e-4 * rate_factor(config, 2, 2, 1)


@pytest.mark.parametrize("batches", [1, 7])
@pytest.mark.parametrize("schedule", ["one-cycle", "restarts"])
def test_rates_are_those_of_pytorchs_schedules(schedule, batches):
    config = recipe("mmae", Path(), Path(), schedule=schedule, epochs=23, first_cycle=2)
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    if schedule == "restarts":
        expected = torch.optim.lr_scheduler.CosineAnnealingWarmRestarts(optimizer, 2, T_mult=2)
    else:
        expected = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.5, total_steps=23 * batches + 1, pct_start=0.05, cycle_momentum=False
        )
    optimizer.step()
    for epoch, batch in itertools.product(range(23), range(batches)):
        rate = 0.5 * rate_factor(config, batches, epoch, batch)
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        expected.step(*[epoch + (batch + 1) / batches] * (schedule == "restarts"))


@pytest.mark.slow
def test_one_rank_and_two_agree_on_the_same_batches(config, mixed, tmp_path):
    """The shares of the ranks differ, 17 and 16 and less at the end, and so do their spectra and labels."""
    outcomes = []
    for ranks in (1, 2):
        run = replace(config, data=(mixed,), out=tmp_path / f"run{ranks}", batch=33, epochs=1)
        run_ranks(run, ranks, -1, tmp_path)
        outcomes.append(outcome(run.out))
    (one_rank, _, reports), (two_ranks, _, reports_of_two) = outcomes
    for name, weights in one_rank["model"].items():
        # AdamW makes steps of any gradient: where it is nothing but rounding, its sign may differ
        near = (two_ranks["model"][name] - weights).abs() <= 5e-5 + 1e-4 * weights.abs()
        assert near.float().mean() > 0.999, name
    assert len(reports) == 1  # the validation
    for name in ("loss", "spectrum", "redshift"):
        assert reports_of_two[0][name] == pytest.approx(reports[0][name], rel=1e-4), name
    # a median depends on one or two galaxies, whose rounding does not average out
    assert reports_of_two[0]["sigma_NMAD"] == pytest.approx(reports[0]["sigma_NMAD"], rel=2e-3)


# ---------------------------------------------------------------- files of a run


def test_a_run_directory_has_one_writer(config):
    config.out.mkdir()
    with atomic.owned(config.out), pytest.raises(UsageError, match="being written by another training"):
        train.main(config)
    assert not list(config.out.iterdir())


def test_sigterm_saves_and_ends_with_code_4(config):
    flags = ["--epochs", "500", "--batch", "32", *SMALL]
    command = [
        sys.executable,
        "-u",
        "-m",
        "mmae.train",
        *map(str, config.data),
        "--out",
        str(config.out),
        *flags,
    ]
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


def test_a_damaged_checkpoint_is_skipped(config):
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
    assert checkpoint.is_intact(second)


def test_patience_ends_a_run_that_does_not_improve(config, monkeypatch):
    metrics = {"loss": 1.0}
    validation = Validation(metrics, np.array([0.5]), np.array([0.5]))
    monkeypatch.setattr(loop, "validate", lambda *_: validation)
    train.main(replace(config, epochs=9, patience=2))
    assert checkpoint.load(checkpoint.newest(config.out))["epoch"] == 3  # the first was the best
    train.main(replace(config, epochs=4))  # the rest of the epochs
    assert checkpoint.load(checkpoint.newest(config.out))["epoch"] == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"batch": 64}, "batch 32"), ({"epochs": 3}, "epochs 2")],
)
def test_a_run_resumes_with_its_own_flags_only(trained, survey, changed, message):
    """The number of epochs is one of them with the one-cycle schedule."""
    with pytest.raises(UsageError, match=message):
        train.main(recipe("mmae", survey / "train.zarr", trained, **changed))
    with pytest.raises(UsageError, match="--preset mmae"):
        train.main(recipe("himes2025", survey / "train.zarr", trained))


def test_users_get_the_average_of_the_weights(config):
    train.main(replace(config, epochs=1, average=0.5))
    state = checkpoint.load(checkpoint.newest(config.out))
    model, _ = checkpoint.load_model(checkpoint.newest(config.out))
    assert_same(dict(model.state_dict()), dict(state["average"]))
    name = "blocks.0.ffn.up.weight"
    assert not torch.equal(state["average"][name], state["model"][name])
    assert torch.equal(state["average"]["noise"], state["model"]["noise"])
    assert state["average"]["noise"].tolist() == pytest.approx(state["data"]["noise"])


def test_the_moving_average_lags_by_the_last_steps():
    mean, weight = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    for step in range(1, 200):
        weight.weight.data.fill_(float(step))
        update_average(mean, weight, 0.9, step)
    assert mean.weight.item() == pytest.approx(199 - 9, abs=1e-3)  # a line lags by 0.9 / (1 - 0.9)


def test_positions_and_queries_learn_slowly_and_do_not_decay(config):
    config = Train.preset("himes2025")
    model = Himes2025(TINY["himes2025"])
    rest, slow = make_optimizer(model, config).param_groups
    assert (rest["lr"], rest["weight_decay"]) == (1e-4, 0.01)
    assert (slow["lr"], slow["weight_decay"]) == (1e-5, 0.0)
    assert len(slow["params"]) == 4
    assert len(rest["params"]) + 4 == len(list(model.parameters()))


def test_the_papers_model_at_full_size_needs_steps_with_spectra(config, monkeypatch):
    """Its first gradients overflow where no spectrum is visible; it learns with the paper's recipe."""
    paper = recipe("himes2025", config.data, config.out, epochs=1, batch=16, model=Himes2025Config())
    monkeypatch.setattr(loop, "MAX_SKIPPED", 8)
    train.main(paper)
    learned, _ = checkpoint.load_model(config.out / checkpoint.BEST)
    assert learned.redshift_head[2].bias.abs() > 1e-5
    without = replace(paper, out=config.out.with_name("without"), spectrum_dropout=1.0)
    with pytest.raises(InputRefused, match="no finite gradient at step 8: lower --lr, or --spectrum-dropout"):
        train.main(without)


def test_bf16_autocast_trains(config):
    train.main(replace(config, epochs=1, precision="bf16"))
    state = checkpoint.load(checkpoint.newest(config.out))
    assert all(tensor.dtype == torch.float32 for tensor in state["model"].values())


@pytest.mark.parametrize("preset", TINY)
def test_gradients_of_micro_batches_add_up_to_those_of_the_batch(config, preset):
    """Unequal micro-batches (7, 7, 6), with all spectra in one of them."""
    config = recipe(preset, config.data, config.out)
    data = TrainingSet(config.data, config.model)
    batch = data.read(data.rows(TRAIN)[:20])
    torch.manual_seed(0)  # some weights have such gradients that their sums differ by rounding alone
    model = build(config.model).eval()  # without dropout
    generator = torch.Generator().manual_seed(0)
    masks = draw_masks(torch.arange(20) < 5, config, generator, whole_images=False, turn=True)
    counts, results = masks.counts(model.loss_weights), []
    for micro_batches in (1, 3):
        model.zero_grad()
        losses = backward(model, batch, masks, replace(config, accumulate=micro_batches), counts)
        results.append([losses.total, losses.parts, *(parameter.grad for parameter in model.parameters())])
    for of_batch, summed in zip(*results, strict=True):
        torch.testing.assert_close(summed, of_batch, rtol=1e-3, atol=1e-3)


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
    flags = ["--epochs", "1", "--batch", "32", "--precision", "fp32", *SMALL]
    done = subprocess.run(
        [*command, "-m", "mmae.train", *map(str, config.data), "--out", str(config.out), *flags],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "ranks: 2 (cpu, fp32)" in done.stdout
    assert len(checkpoint.load(checkpoint.newest(config.out))["generators"]) == 2


def test_slurm_variables_become_torchruns(tmp_path, monkeypatch):
    """Where Slurm's commands are not, as in a container."""
    monkeypatch.setenv("PATH", str(tmp_path))
    step = {
        "SLURM_JOB_ID": "12345",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
        "SLURM_STEP_NUM_TASKS": "4",
        "SLURM_STEP_NODELIST": "node[1-2]",
        "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
    }
    assert distributed.torchrun_variables(step) == {
        "RANK": "3",
        "WORLD_SIZE": "4",
        "LOCAL_RANK": "1",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "node1",
        "MASTER_PORT": "22345",
    }
    assert distributed.torchrun_variables({"SLURM_NTASKS": "4"})["WORLD_SIZE"] == "1"  # a batch script
    torchrun = dict.fromkeys((*distributed.SIZES, *distributed.MASTER), "1")
    assert distributed.torchrun_variables(torchrun | step) == {}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node7", "node7"),
        ("gpu[07-09,12],login", "gpu07"),
        ("login,gpu[07-09]", "login"),
        ("rack[2-3]n[001-128],x", "rack2n001"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    """As `scontrol show hostnames` of Slurm 22.05 gives it."""
    assert distributed.first_host(nodes) == first


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({"WORLD_SIZE": "2"}, "LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
        ({}, "WORLD_SIZE, LOCAL_RANK, LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT"),
        ({"WORLD_SIZE": "1"}, "LOCAL_RANK, LOCAL_WORLD_SIZE"),
        (
            {"WORLD_SIZE": "one", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "a"},
            "WORLD_SIZE, MASTER_PORT",
        ),
    ],
)
def test_a_rank_that_a_launcher_half_describes_is_a_usage_error(
    survey, tmp_path, monkeypatch, capsys, variables, missing
):
    for name in (*distributed.SIZES, *distributed.MASTER):  # set by trainings in this process
        monkeypatch.delenv(name, raising=False)
    for name, value in {"RANK": "0", **variables}.items():
        monkeypatch.setenv(name, value)
    command = [survey / "train.zarr", "--out", tmp_path / "run"]
    assert cli.run_command("train", list(map(str, command))) == cli.USAGE
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"RANK is set, but {missing} missing or no number: start the ranks with torchrun" in sentence
    assert not list(tmp_path.iterdir())
