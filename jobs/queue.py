"""What Slurm says of jobs: `squeue` knows which still run or wait, `sacct` how they ended."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

POLL_SECONDS = 2.0
ACCOUNTING_SECONDS = 30.0
"""The accounting may be this far behind the end of a job."""
UNFINISHED = ("", "PENDING", "RUNNING", "COMPLETING", "REQUEUED", "RESIZING", "SUSPENDED")


def ask(*command: str) -> str:
    """What a command of Slurm prints. Raises OSError if it fails, as while slurmctld restarts."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{command[0]} gets no answer ({done.stderr.splitlines()[0]})")
    return done.stdout


def queued_jobs() -> set[str]:
    """Ids of the user's jobs that wait, run or are about to; OSError if Slurm does not answer."""
    return set(ask("squeue", "--me", "--noheader", "--format=%A").split())


def is_queued(job_id: str) -> bool:
    """Whether the job has not ended: `sacct` says NODE_FAIL even of one that Slurm requeues.

    No answer counts as yes: only Slurm can say that a job is gone.
    """
    try:
        return job_id in queued_jobs()
    except OSError:
        return True


def submitted(folder: Path) -> list[str]:
    """Ids of the jobs that submitit has submitted from a folder, oldest first."""
    scripts = folder.glob("*_submission.sh")
    return sorted((script.name.split("_")[0] for script in scripts), key=int)


def states(job_ids: Sequence[str]) -> dict[str, str]:
    """The latest state of each job that the accounting knows; OSError if it does not answer."""
    rows = ask("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(job_ids))
    pairs = (row.split("|") for row in rows.splitlines())
    return {job_id: state.split()[0] for job_id, state in pairs if state}


def final_state(job_id: str) -> str:
    """How a job ended that is no longer queued; OSError if the accounting does not answer."""
    deadline = time.monotonic() + ACCOUNTING_SECONDS
    while True:
        state = states([job_id]).get(job_id, "")
        if state not in UNFINISHED or time.monotonic() > deadline:
            return state or "UNKNOWN"
        time.sleep(POLL_SECONDS)
