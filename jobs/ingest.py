"""Parallel ingest: `mpirun -n 8 python -m mpi4py -m jobs.ingest survey.hdf5 store.zarr` (srun likewise).

Started through `-m mpi4py`, so that one rank's crash ends all of them instead of leaving the rest to wait.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from jobs import ranks

    ranks.start("jobs.ingest", "Ingest")

import os

from mpi4py import MPI

from catalogs import ingest
from catalogs.errors import UsageError
from catalogs.ingest import Ingest


def main(config: Ingest) -> None:
    """Raises UsageError where srun has started tasks that are no ranks of one MPI."""
    tasks = int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))
    if MPI.COMM_WORLD.Get_size() == 1 < tasks:
        raise UsageError(f"the {tasks} tasks of srun do not know of each other: choose --mpi for your MPI")
    ingest.main(config, MPI.COMM_WORLD)
