"""Checkpoints: intact after a kill at any step of a save, loaded without executing their code."""

import os
import subprocess
import sys
from pathlib import Path

import killing
import pytest
import torch

from catalogs.errors import InputRefused
from mmae.models import checkpoint

KILLED_IN_EVERY_SAVE = """
import os, signal, sys, warnings
from pathlib import Path
import torch
from mmae.models import checkpoint
from killing import die_at

FOLDER = Path(sys.argv[1])

def save(run, at):
    checkpoint.sweep(run)
    state = {"step": at, "weights": torch.full((1000,), float(at))}
    checkpoint.save(run / checkpoint.BEST, state)
    checkpoint.save_step(run, state)
    checkpoint.save_step(run, state | {"again": True})  # as after a validation: under the same name

def killed(run, at, step):
    child = os.fork()
    if not child:
        die_at(FOLDER, step)
        save(run, at)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

for step in range(1, 1000):
    run = FOLDER / str(step)
    run.mkdir()
    for at in (1, 2):
        save(run, at)
    ended = killed(run, 3, step)
    state = checkpoint.load(checkpoint.newest(run))
    assert state["step"] in (2, 3) and (state["weights"] == state["step"]).all()
    assert checkpoint.is_intact(run / checkpoint.BEST)
    best = checkpoint.load(run / checkpoint.BEST)["step"]
    assert best >= state["step"]
    save(run, 4)
    if ended == 0:
        break
    assert ended == -signal.SIGKILL, ended
"""


def test_a_kill_at_any_step_of_a_save_leaves_an_intact_checkpoint(tmp_path):
    """Steps are operations that change files; the next save succeeds and deletes what was left."""
    program = [sys.executable, "-c", KILLED_IN_EVERY_SAVE, tmp_path]
    environment = os.environ | {"PYTHONPATH": str(Path(killing.__file__).parent)}
    done = subprocess.run(program, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = list(tmp_path.iterdir())
    assert len(runs) > 20
    for run in runs:
        names = {path.name.removesuffix(".sha256") for path in run.iterdir()}
        assert {"best.pt", "mmae-00000004.pt"} < names
        assert len(names) == 3, names  # and the step before it
        for sums in run.glob("*.sha256"):
            assert subprocess.run(["sha256sum", "--check", "--quiet", sums.name], cwd=run).returncode == 0


def test_a_checkpoint_is_loaded_without_executing_its_code(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    with pytest.raises(InputRefused):
        checkpoint.load(tmp_path / "evil.pt")
    assert not (tmp_path / "pwned").exists()


def test_a_damaged_checkpoint_is_refused_though_it_is_named(tmp_path):
    path = checkpoint.save_step(tmp_path, {"step": 1})
    assert checkpoint.find(path) == path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputRefused, match=r"is damaged, by its mmae-00000001.pt.sha256"):
        checkpoint.find(path)
