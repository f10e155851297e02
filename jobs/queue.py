"""States of jobs in Slurm: `squeue` lists those that run or wait, `sacct` knows how jobs ended."""

import re
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

GPUS = re.compile(r"\bgpu(?::[^:,()]+)?:(\d+)")
"""Number of GPUs in what sinfo calls GRES: gpu:2, gpu:a100:4(S:0-1)."""
POLL_SECONDS = 2.0
ACCOUNTING_SECONDS = 30.0
"""Delay of the accounting after the end of a job, at most."""
UNFINISHED = ("", "PENDING", "RUNNING", "COMPLETING", "REQUEUED", "RESIZING", "SUSPENDED")


def query(*command: str) -> str:
    """The output of a Slurm command. Raises OSError if it fails, as while slurmctld restarts."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        reason = next(iter(done.stderr.splitlines()), f"it ended with code {done.returncode}")
        raise OSError(f"{command[0]} gets no answer ({reason})")
    return done.stdout


class Node(NamedTuple):
    """What a node has."""

    cpus: int
    memory_gb: int
    gpus: int


def least_node(partition: str) -> Node:
    """What every node of a partition has at least; of the default one, if no name is given.

    Raises OSError where Slurm does not answer, or has no such partition.
    """
    rows = [row.split() for row in query("sinfo", "-N", "-h", "-o", "%P %c %m %G").splitlines()]
    wanted = [row[1:] for row in rows if row[0].rstrip("*") == partition or (not partition and "*" in row[0])]
    if not wanted:
        raise OSError(f"Slurm has no partition {partition or 'that is the default'}")
    cpus, memory_mb = (min(int(row[column].rstrip("+")) for row in wanted) for column in (0, 1))
    gpus = min(sum(map(int, GPUS.findall(row[2]))) for row in wanted)
    return Node(cpus, memory_mb // 1024, gpus)


def queued_jobs() -> set[str]:
    """Ids of the user's jobs that wait, run or are about to; OSError if Slurm does not answer."""
    return set(query("squeue", "--me", "--noheader", "--format=%A").split())


def is_queued(job_id: str) -> bool:
    """Whether the job has not ended; `sacct` reports NODE_FAIL even for a job that Slurm requeues.

    Without an answer the job counts as queued: only Slurm knows that it is gone.
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
    rows = query("sacct", "-X", "-n", "-P", "-o", "JobID,State", "-j", ",".join(job_ids))
    pairs = (row.split("|") for row in rows.splitlines())
    return {job_id: state.split()[0] for job_id, state in pairs if state}


def final_state(job_id: str) -> str:
    """The state in which a job ended; OSError if the accounting does not answer."""
    deadline = time.monotonic() + ACCOUNTING_SECONDS
    while True:
        state = states([job_id]).get(job_id, "")
        if state not in UNFINISHED or time.monotonic() > deadline:
            return state or "UNKNOWN"
        time.sleep(POLL_SECONDS)
