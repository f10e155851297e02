"""One sentence and the documented code for whatever goes wrong."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from catalogs.errors import InputRefused, Interrupted, UsageError
from jobs.train import TrainJob
from mmae import cli, flags
from mmae.training.recipe import Train


@dataclasses.dataclass(frozen=True)
class Config:
    """A command."""

    batch: int = 1
    """Of something."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("what"), 2),
        (InputRefused("what"), 3),
        (Interrupted("what"), 4),
        (KeyboardInterrupt(), 4),
        (OSError("what"), 5),
    ],
)
def test_an_error_becomes_its_exit_code_and_one_line(error, code, capsys):
    def main(config):
        raise error

    assert cli.run(main, Config, [], "mmae test") == code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("argv", [["--batch", "x"], ["--bogus", "1"], ["stray"]])
def test_a_wrong_flag_is_one_line_and_code_2(argv, capsys):
    assert cli.run(lambda config: None, Config, argv, "mmae test") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert argv[0] in error


def test_a_fault_of_ours_keeps_its_traceback():
    def main(config):
        raise AssertionError("ours")

    with pytest.raises(AssertionError):
        cli.run(main, Config, [], "mmae test")


@pytest.mark.parametrize(("argv", "code"), [(["--help"], 0), ([], 2), (["nonsense"], 2)])
def test_the_program_lists_its_commands(argv, code):
    done = subprocess.run([sys.executable, "-m", "mmae.cli", *argv], capture_output=True, text=True)
    assert done.returncode == code
    assert all(name in done.stdout + done.stderr for name in cli.COMMANDS)


@pytest.mark.slow
def test_a_missing_extra_is_named():
    script = """
import sys
from pathlib import Path
sys.modules["galsim"] = None
from jobs.train import TrainJob
from mmae import cli
from mmae.training.recipe import Train
sys.exit(cli.run_command("mock", ["survey"]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == cli.USAGE
    assert done.stderr.count("\n") == 1
    assert "pip install 'mmae-survey[mock]'" in done.stderr


def test_a_file_gives_flags_and_the_command_line_overrules_it(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text("lr = 2e-4\nbatch = 8\n[model]\nembed_dim = 64\n")
    config = flags.parse(Train, ["store.zarr", "--config", str(file), "--batch", "16"], "mmae train")
    assert (config.lr, config.batch, config.model.embed_dim) == (2e-4, 16, 64)


def test_a_preset_is_defaults_that_flags_and_files_overrule(tmp_path):
    file = tmp_path / "recipe.toml"
    file.write_text('preset = "himes2025"\nlr = 2e-4\nimage_mask = [0.1, 0.5]\n[model]\ndepth = 2\n')
    ours, paper = (
        flags.parse(Train, ["store.zarr", *given], "mmae train")
        for given in ([], ["--config", str(file), "--epochs=3"])
    )
    assert ours == Train((Path("store.zarr"),))
    assert (ours.model.family, ours.lr, ours.image_mask) == ("mmae", 3e-3, (0.0, 0.75))
    assert (paper.model.family, paper.model.depth, paper.epochs) == ("himes2025", 2, 3)
    assert (paper.lr, paper.image_mask, paper.turn) == (2e-4, (0.1, 0.5), False)
    job = flags.parse(TrainJob, ["store.zarr", "--preset", "himes2025", "--slurm.nodes=2"], "jobs.train")
    assert (job.train.model.family, job.slurm.nodes) == ("himes2025", 2)
    with pytest.raises(UsageError, match="no preset 'other'; there are: mmae, himes2025"):
        flags.parse(Train, ["store.zarr", "--preset=other"], "mmae train")


def test_without_flags_a_training_is_what_lies_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for config_type in (Train, TrainJob):
        config = flags.parse(config_type, [], "mmae train")
        assert getattr(config, "train", config) == Train((Path("train.zarr"),))
    with pytest.raises(UsageError, match=f"there is neither train.zarr nor train.toml in {tmp_path}"):
        Train().check_data()
    (tmp_path / "train.toml").write_text('data = "survey.zarr"\nbatch = 8\n')
    assert flags.parse(Train, [], "mmae train") == Train((Path("survey.zarr"),), batch=8)
    assert flags.parse(Train, ["--batch", "9"], "mmae train") == Train((Path("train.zarr"),), batch=9)
    given = ["other.zarr", "--config", "train.toml"]
    assert flags.parse(Train, given, "mmae train") == Train((Path("other.zarr"),), batch=8)


@pytest.mark.parametrize(
    ("text", "words"), [("bacth = 8", "--bacth"), ("batch = ", "recipe.toml"), ("batch = 'x'", "--batch")]
)
def test_a_file_that_says_something_wrong_is_a_usage_error(tmp_path, text, words):
    file = tmp_path / "recipe.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=words) as refused:
        flags.parse(Train, ["store.zarr", "--config", str(file)], "mmae train")
    assert "\n" not in str(refused.value)
