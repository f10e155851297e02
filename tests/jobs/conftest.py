"""Programs of several MPI ranks."""

import os
import subprocess
import sys

import pytest

SHARD_ROWS = 64


@pytest.fixture(scope="session")
def mpirun(program):
    def run(ranks, *arguments, start=("-m", "jobs.ingest")):
        """Run to the end, or for a minute; each rank runs what `start` names."""
        command = [program("mpirun"), "-n", ranks, sys.executable, "-m", "mpi4py", *start, *arguments]
        return subprocess.run(
            [*map(str, command), f"--shard-rows={SHARD_ROWS}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )

    return run
