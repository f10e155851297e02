"""A bundle is code by others: what could do more than arithmetic is refused before any of it has run."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from torch import nn

from catalogs import atomic
from catalogs.errors import InputRefused
from mmae import cli
from mmae.bundles.bundle import CARD, PROGRAMS, open_bundle
from mmae.hardware import FP32


class Writes(nn.Module):
    """Makes a file when it is run."""

    def __init__(self, file):
        super().__init__()
        self.file = file

    def forward(self, image: torch.Tensor):
        return torch.from_file(self.file, True, 16) + image.sum()


class WritesInAFunction(Writes):
    def forward(self, image: torch.Tensor):
        return written(self.file, image)


def written(file: str, image: torch.Tensor):
    return torch.from_file(file, True, 16) + image.sum()


class WritesInAPart(nn.Module):
    def __init__(self, file):
        super().__init__()
        self.parts = nn.ModuleList([Writes(file)])

    def forward(self, image: torch.Tensor):
        for part in self.parts:
            image = part(image)
        return image


class WritesWhenLoaded(Writes):
    def forward(self, image: torch.Tensor):
        return image

    @torch.jit.export
    def __getstate__(self):
        return self.file, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]):
        self.file = state[0]
        self.training = state[1]
        torch.from_file(self.file, True, 16)


class Waits(nn.Module):
    """Runs on a thread of its own."""

    def forward(self, image: torch.Tensor):
        return torch.jit.wait(torch.jit.fork(torch.neg, image))


HOSTILE = {
    Writes: "uses the operator aten::from_file",
    WritesInAFunction: "uses the operator aten::from_file",
    WritesInAPart: "uses the operator aten::from_file",
    WritesWhenLoaded: r"would run code when it is loaded \(__setstate__\)",
    Waits: "uses the operator prim::fork",
}


@pytest.fixture
def hostile(bundle, tmp_path):
    """`hostile(program)`: the bundle with another program, and a card that vouches for it."""

    def make(program):
        path = shutil.copytree(bundle, tmp_path / "bundle", dirs_exist_ok=True)
        if isinstance(program, bytes):
            (path / PROGRAMS[FP32]).write_bytes(program)
        else:
            torch.jit.script(program).save(path / PROGRAMS[FP32])
        card = json.loads((path / CARD).read_text())
        card["files"][PROGRAMS[FP32]] = atomic.entry(path / PROGRAMS[FP32])
        atomic.write_json(path / CARD, atomic.sealed(card))
        return path

    return make


@pytest.mark.parametrize(("kind", "words"), HOSTILE.items())
def test_a_program_that_could_touch_files_or_threads_is_refused(hostile, tmp_path, kind, words):
    made = tmp_path / "made"
    path = hostile(kind() if kind is Waits else kind(str(made)))
    made.unlink(missing_ok=True)
    with pytest.raises(InputRefused, match=words):
        open_bundle(path, FP32).load(torch.device("cpu"))
    assert not made.exists()


def test_what_is_no_archive_is_refused(hostile):
    with pytest.raises(InputRefused, match="is no TorchScript archive"):
        open_bundle(hostile(b"no archive"), FP32).load(torch.device("cpu"))


@pytest.mark.slow
def test_a_run_with_such_a_bundle_ends_with_a_sentence(hostile, survey, tmp_path):
    made = tmp_path / "made"
    flags = ("--model", hostile(Writes(str(made))), "--precision", "fp32", "--out", tmp_path / "out")
    command = [sys.executable, "-m", "mmae.infer", "--catalog", survey / "rubin_tile.zarr", *flags]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == cli.REFUSED
    (sentence,) = done.stderr.splitlines()
    assert "a bundle is code; take it from those whose code you would run" in sentence
    assert not made.exists()
