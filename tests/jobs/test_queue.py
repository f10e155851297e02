"""What Slurm answers, or does not."""

import pytest

from catalogs.errors import UsageError
from jobs import queue, submission


@pytest.mark.parametrize(
    ("script", "said"), [("echo slurmctld is away >&2; exit 1", "slurmctld is away"), ("exit 3", "code 3")]
)
def test_a_command_of_slurm_that_fails_is_no_answer(script, said):
    """With words on stderr or without any."""
    with pytest.raises(OSError, match=rf"sh gets no answer \(.*{said}"):
        queue.query("sh", "-c", script)


def test_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="sbatch is not on the PATH: log in where Slurm is"):
        submission.run(tmp_path, submit=lambda: pytest.fail("submitted"))
