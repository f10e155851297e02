"""Be one of the ranks of an MPI program: one of them speaks, and all of them end together."""

import contextlib
import io
import os
import sys
import time
from typing import Any, NoReturn

from catalogs.errors import UsageError
from mmae import cli

PATIENCE_SECONDS = 5.0
DELIVERY_SECONDS = 0.5
"""mpirun drops what it has not read yet from a rank that aborts."""


def start(module: str, config: str) -> NoReturn:
    """As `cli.start`, for a module that computes with all ranks of MPI."""
    cli.end_with(lambda: run(cli.Command(module, config, "", "mpi")), f"python -m {module}")


def run(command: cli.Command) -> int:
    """Run the command in this rank; a failure of one rank ends all with its code."""
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # no MPI library, or one that is not for this mpi4py
        print(
            f"python -m {command.module}: MPI is missing ({error}): pip install 'mmae-survey[mpi]'",
            file=sys.stderr,
        )
        return cli.USAGE
    cli.Stop.work_has_begun = True  # the other ranks are to end, too
    comm, held_back, code = MPI.COMM_WORLD, io.StringIO(), cli.OK
    try:
        with contextlib.redirect_stderr(held_back) if comm.Get_rank() > 0 else contextlib.nullcontext():
            code = cli.run_module(command, sys.argv[1:], f"python -m {command.module}")
    finally:
        speak(comm, code, held_back.getvalue())
    return code


def world() -> Any:
    """The communicator of all ranks. Raises UsageError where tasks of srun are no ranks of one MPI."""
    from mpi4py import MPI

    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if MPI.COMM_WORLD.Get_size() == 1 < tasks:
        raise UsageError(f"the {tasks} tasks of srun do not know of each other: choose --mpi for your MPI")
    return MPI.COMM_WORLD


def speak(comm: Any, code: int, words: str) -> None:
    """Say what this rank has to say on stderr; after a failure, end all ranks with `code`.

    A bad input is met by every rank: rank 0 speaks for all, and its abort ends the others while they wait.
    """
    if code and comm.Get_rank() > 0:
        time.sleep(PATIENCE_SECONDS)
    print(words, end="", file=sys.stderr, flush=True)
    if code:
        time.sleep(DELIVERY_SECONDS)
        comm.Abort(code)
