"""Starts of a training job are counted, and its state is told with and without Slurm."""

import re
from functools import partial

import pytest

from catalogs.errors import UsageError
from jobs import starts, status
from mmae.models import checkpoint


@pytest.fixture
def begin(tmp_path, monkeypatch):
    """`begin(job)`: the batch script of a job begins."""
    (tmp_path / "slurm").mkdir()

    def begin(job):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        starts.main(starts.Starts(tmp_path))

    return begin


def test_a_job_may_start_three_times_from_one_checkpoint(begin, tmp_path):
    for _ in range(starts.MAX_STARTS):
        begin("7")
    with pytest.raises(OSError, match="started 3 times without a checkpoint newer than none"):
        begin("7")
    checkpoint.save_step(tmp_path, {"step": 40})
    for _ in range(starts.MAX_STARTS):
        begin("7")
    with pytest.raises(OSError, match=r"newer than mmae-00000040\.pt"):
        begin("7")
    begin("8")  # the user gave the command again


def test_status_of_a_finished_run(trained, capsys):
    status.main(status.Status(trained))
    told = capsys.readouterr().out
    assert "none submitted" in told
    assert re.search(r"training +step 10  total .* samples_per_s", told)
    assert re.search(r"validation +step 12  loss", told)
    assert re.search(r"best +step \d+  loss", told)
    assert re.search(r"checkpoint +mmae-00000012\.pt, epoch 2, [\d.]+ minutes old", told)


def test_status_while_slurm_does_not_answer(tmp_path, capsys, monkeypatch):
    (tmp_path / "slurm").mkdir()
    (tmp_path / "slurm" / "12_submission.sh").touch()
    monkeypatch.setenv("PATH", "")
    status.main(status.Status(tmp_path))
    told = capsys.readouterr().out
    assert "12: " in told
    assert "sacct" in told
    assert "none yet" in told


def test_status_of_what_is_no_run(tmp_path):
    with pytest.raises(UsageError, match="not a run directory"):
        status.main(status.Status(tmp_path))


def test_an_inference_may_start_again_for_every_unit(begin, tmp_path):
    parts = tmp_path / "tile.photoz" / "parts"
    parts.mkdir(parents=True)
    for _ in range(starts.MAX_STARTS):
        begin("7")
    with pytest.raises(OSError, match="started 3 times without a unit more than 0"):
        begin("7")
    (parts / "unit-000000.json").touch()
    begin("7")


def test_starts_of_an_inference_on_s3_are_counted_in_the_folder_of_the_job(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    begin = partial(starts.main, starts.Starts(bucket / "catalogues", tmp_path))
    for _ in range(starts.MAX_STARTS):
        begin()
    with pytest.raises(OSError, match="started 3 times without a unit more than 0"):
        begin()
    (tmp_path / "unit").touch()
    (bucket / "catalogues/tile.photoz/parts/unit-000000.json").write_file(tmp_path / "unit")
    begin()
