"""Parallel cutting: `mpirun -n 8 python -m mpi4py -m jobs.cutouts objects.csv tile.zarr ...` (srun likewise).

Started through `-m mpi4py`, so that one rank's crash ends all of them instead of leaving the rest to wait.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from jobs import ranks

    ranks.start("jobs.cutouts", "Cutouts")

from catalogs.cutting import command
from catalogs.cutting.command import Cutouts
from jobs.ranks import world


def main(config: Cutouts) -> None:
    """Raises UsageError where srun has started tasks that are no ranks of one MPI."""
    command.main(config, world())
