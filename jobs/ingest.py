"""Parallel ingest: `mpirun -n 8 python -m mpi4py -m jobs.ingest survey.hdf5 store.zarr` (srun likewise).

Started through `-m mpi4py`, so that one rank's crash ends all of them instead of leaving the rest to wait.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from jobs import ranks

    ranks.start("jobs.ingest", "Ingest")

from catalogs import ingest
from catalogs.ingest import Ingest
from jobs.ranks import world


def main(config: Ingest) -> None:
    """Raises UsageError where srun has started tasks that are no ranks of one MPI."""
    ingest.main(config, world())
