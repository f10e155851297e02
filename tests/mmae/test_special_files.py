"""A FIFO in place of a file is refused with a sentence; opened, it would be waited for."""

import os
from pathlib import Path

import pytest

from catalogs.errors import InputRefused
from mmae import cli
from mmae.production.tile_list import named_stores

FIFO = "redrock-a.fits"
"""A name by which the redshifts of a release are found."""
COMMANDS = {
    "train": [FIFO, "--out", "run"],
    "export": [FIFO],
    "reproduce": [FIFO, "train.zarr"],
    "ingest": [FIFO, "out.zarr"],
    "cutouts": [FIFO, "out.zarr", "--coadds", "*.fits", "--bands", "g"],
    "store": ["info", FIFO],
    "evaluate": [FIFO, "--truth", "truth.fits"],
    "crossmatch": [FIFO, "--desi", ".", "--out", "out.hdf5"],
}


@pytest.fixture
def fifo(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.mkfifo(FIFO)


@pytest.mark.usefixtures("fifo")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_does_not_wait_for_a_fifo(capsys, command):
    assert cli.run_command(command, COMMANDS[command]) == cli.REFUSED
    error = capsys.readouterr().err
    assert f"{FIFO} is a FIFO" in error
    assert error.count("\n") == 1
    assert list(map(str, Path().iterdir())) == [FIFO]


@pytest.mark.usefixtures("fifo")
@pytest.mark.parametrize("entry", [FIFO, f"@{FIFO}"])
def test_a_fifo_is_no_list_of_stores(entry):
    with pytest.raises(InputRefused, match="is a FIFO"):
        named_stores([entry])
