"""Parallel ingest: `mpirun -n 8 python -m mpi4py -m jobs.ingest survey.hdf5 store.zarr` (srun likewise).

Started through `-m mpi4py`, so that one rank's crash ends all of them instead of leaving the rest to wait.
"""

import contextlib
import io
import os
import sys
import time
from functools import partial

from mpi4py import MPI

from catalogs.errors import UsageError
from catalogs.ingest import Ingest, main
from mmae import cli

AGREE_SECONDS = 2.0


def fail_together(comm: MPI.Comm, code: int, message: str) -> None:
    """End all ranks with `code` and one message.

    A bad input is met by every rank alike, and then rank 0 speaks for all. A fault met by one rank only
    leaves the others waiting for it: that rank speaks, and aborts them.
    """
    everyone = comm.Ibarrier()
    deadline = time.monotonic() + AGREE_SECONDS
    while time.monotonic() < deadline:
        if everyone.Test():
            if comm.Get_rank() == 0:
                print(message, end="", file=sys.stderr)
            return
        time.sleep(0.01)
    print(f"rank {comm.Get_rank()}: {message}", end="", file=sys.stderr, flush=True)
    comm.Abort(code)


def ingest(config: Ingest, comm: MPI.Comm) -> None:
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if comm.Get_size() == 1 < tasks:
        raise UsageError(
            f"srun started {tasks} tasks that do not know of each other: choose --mpi for your MPI"
        )
    main(config, comm)


if __name__ == "__main__":
    comm = MPI.COMM_WORLD
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        code = cli.run(partial(ingest, comm=comm), Ingest, sys.argv[1:], "python -m jobs.ingest")
    if code:
        fail_together(comm, code, errors.getvalue())
    sys.exit(code)
