"""Ways out that no command sees itself: signals, closed outputs, users and names of all kinds."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from catalogs.store import cutouts
from mmae import cli

PIECES = (".", "-", "_", " ", "é", "\n", "\x1b[31m")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("store") / "a.zarr"
    cutouts.write(path, lambda a, b: {}, n=0, survey="±", shard_rows=64)
    return path


def command(*words):
    return [sys.executable, "-m", *map(str, words)]


def run(*words, **how):
    return subprocess.run(command(*words), capture_output=True, text=True, **how)


def catches(process, number):
    """Whether a process has a handler of its own for a signal."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    mask = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return int(mask.split()[1], 16) >> (number - 1) & 1


@pytest.mark.slow
@pytest.mark.parametrize("module", ["mmae.infer", "jobs.train"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_while_modules_are_imported_is_an_interruption(module, number, tmp_path):
    for wait in (0.0, 0.1, 0.3):
        with subprocess.Popen(
            command(module, tmp_path / "absent", "--help"), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
        ) as process:
            while not catches(process, signal.SIGTERM):
                assert process.poll() is None
            time.sleep(wait)
            process.send_signal(number)
            words = process.stderr.read().decode()
        if wait == 0.0 or process.returncode:  # a fast machine has shown its help by then
            assert process.returncode == cli.INTERRUPTED, words
            assert words == f"python -m {module}: interrupted\n"


def test_a_reader_that_has_seen_enough_is_no_failure_to_talk_about(store):
    words = " ".join(command("mmae.cli", "store", "info", store))
    done = subprocess.run(
        ["bash", "-c", f"{words} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert done.returncode == cli.IO_FAILED
    assert done.stderr == ""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_is_full_is_named(store, unbuffered):
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command("mmae.cli", "store", "info", store),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONUNBUFFERED": unbuffered},
        )
    assert done.returncode == cli.IO_FAILED
    (sentence,) = done.stderr.splitlines()
    assert sentence.endswith("No space left on device: 'standard output'")


def test_a_closed_output_is_nobodys_loss(store):
    words = " ".join(command("mmae.cli", "store", "info", store))
    assert subprocess.run(["bash", "-c", f"{words} >&- 2>&-"]).returncode == cli.OK


def test_a_terminal_of_few_letters_gets_what_it_can_show(store):
    few = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = run("mmae.cli", "store", "info", store, env=few)
    assert done.returncode == cli.OK, done.stderr
    assert r"\xb1" in done.stdout
    wrong = run("mmae.cli", "infer", "--catalog", "x", "--workers", "x", env=few)
    assert wrong.returncode == cli.USAGE
    assert wrong.stderr.startswith("mmae infer: Error parsing --workers: invalid literal")


@pytest.mark.slow
def test_a_user_without_home_or_name_may_work(survey, bundle):
    """As in containers; who the user is stands in no file of the system."""
    if os.getuid() != 0:
        pytest.skip("to become another user takes root")
    flags = [survey / "rubin_tile.zarr", "--model", bundle, "--workers", 1]
    nobody = ["setpriv", "--reuid", "54321", "--clear-groups"]
    for kept in ("--inh-caps", "--ambient-caps"):  # to read the files of these tests
        nobody.append(f"{kept}=+dac_override,+dac_read_search")
    known = ("HOME", "USER", "LOGNAME", "USERNAME", "LNAME")
    with tempfile.TemporaryDirectory() as folder:
        os.chown(folder, 54321, -1)
        done = subprocess.run(
            [*nobody, *command("mmae.infer", "--out", folder, "--catalog", *flags)],
            env={name: value for name, value in os.environ.items() if name not in known},
            cwd=folder,
            capture_output=True,
            text=True,
        )
        assert done.returncode == cli.OK, done.stderr
        assert (Path(folder) / "rubin_tile.photoz.fits").stat().st_uid == 54321


def test_a_name_too_long_is_a_usage_error(tmp_path, capsys):
    name = 300 * "a"
    for words in (
        ["store", "info", name],
        ["infer", "--catalog", name, "--model", name],
        ["mock", tmp_path / name, "--galaxies", 4, "--tile", 4],
        ["status", name],
    ):
        code, error = cli.run_command(words[0], list(map(str, words[1:]))), capsys.readouterr().err
        assert code == cli.USAGE, error
        assert error.count("\n") == 1


@pytest.mark.parametrize("piece", PIECES)
def test_what_is_said_of_a_name_is_one_line_of_text(piece, capsys):
    assert cli.run_command("status", [f"no{piece}such"]) == cli.USAGE
    words = capsys.readouterr().err
    assert words.count("\n") == 1
    assert words.rstrip("\n").isprintable()


def test_a_module_that_is_broken_is_told_to_be_installed(tmp_path):
    (tmp_path / "zarr.py").write_text("import that_is_not_there")
    done = run("mmae.infer", env=os.environ | {"PYTHONPATH": str(tmp_path)})
    assert done.returncode == cli.USAGE
    assert "No module named 'that_is_not_there': pip install 'mmae-survey'" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_zero_byte_in_a_file_of_flags_is_refused(tmp_path):
    file = tmp_path / "flags.toml"
    file.write_text('out = "a\\u0000b"\n')
    done = run("mmae.infer", "--catalog", "x", "--config", file)
    assert done.returncode == cli.USAGE
    assert "zero byte" in done.stderr


@pytest.mark.parametrize("words", [["neighbours", "", ""], ["infer", "--catalog", ""], ["train", "--out="]])
def test_an_argument_that_is_empty_is_refused(words, capsys):
    """As a variable of the shell that is not set makes it; `Path("")` is the folder where one stands."""
    assert cli.run_command(words[0], words[1:]) == cli.USAGE
    assert "is empty: is a variable of the shell not set?" in capsys.readouterr().err


@pytest.mark.parametrize("place", [".", "/", ".."])
def test_a_place_without_a_name_is_no_product(place, capsys):
    assert cli.run_command("neighbours", [place, place]) in (cli.USAGE, cli.REFUSED)
    assert capsys.readouterr().err.count("\n") == 1


def test_the_version_is_told():
    assert run("mmae.cli", "--version").stdout.startswith("mmae-survey ")


SWALLOWED = """
import os, signal
from mmae import cli
from catalogs.errors import UsageError

def work():
    cli.Stop.work_has_begun = True
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        pass
    raise {error}

cli.end_with(lambda: cli.exit_code(work, "mmae"), "mmae")
"""


@pytest.mark.parametrize(
    "error", ["RecursionError", "UsageError('there is no such module')", "SystemExit(0)"]
)
def test_an_interruption_that_an_import_swallows_is_one_all_the_same(error):
    """What is raised afterwards, by modules that are half there, is no news."""
    program = [sys.executable, "-c", SWALLOWED.format(error=error)]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (cli.INTERRUPTED, "mmae: interrupted\n")
