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

PATIENCE_SECONDS = 5.0
DELIVERY_SECONDS = 0.5
"""mpirun drops what it has not read yet from a rank that aborts."""


def ingest(config: Ingest, comm: MPI.Comm) -> None:
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if comm.Get_size() == 1 < tasks:
        raise UsageError(f"the {tasks} tasks of srun do not know of each other: choose --mpi for your MPI")
    main(config, comm)


def speak(comm: MPI.Comm, code: int, words: str) -> None:
    """Say what this rank has to say on stderr; after a failure, end all ranks with `code`.

    A bad input is met by every rank: rank 0 speaks for all, and its abort ends the others while they wait.
    """
    if code and comm.Get_rank() > 0:
        time.sleep(PATIENCE_SECONDS)
    print(words, end="", file=sys.stderr, flush=True)
    if code:
        time.sleep(DELIVERY_SECONDS)
        comm.Abort(code)


if __name__ == "__main__":
    comm = MPI.COMM_WORLD
    held_back = io.StringIO()
    code = cli.OK
    try:
        with contextlib.redirect_stderr(held_back) if comm.Get_rank() > 0 else contextlib.nullcontext():
            code = cli.run(partial(ingest, comm=comm), Ingest, sys.argv[1:], "python -m jobs.ingest")
    finally:
        speak(comm, code, held_back.getvalue())
