"""What Slurm answers, or does not."""

import pytest

from jobs import queue


@pytest.mark.parametrize(
    ("script", "said"), [("echo slurmctld is away >&2; exit 1", "slurmctld is away"), ("exit 3", "code 3")]
)
def test_a_command_of_slurm_that_fails_is_no_answer(script, said):
    """With words on stderr or without any."""
    with pytest.raises(OSError, match=rf"sh gets no answer \(.*{said}"):
        queue.query("sh", "-c", script)
