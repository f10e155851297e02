#!/bin/bash
# Cut coadds with MPI ranks:  sbatch slurm/cutouts.sh objects.csv tile.zarr --coadds 'calexp-{band}-*.fits' ...
# More of them: sbatch --nodes=4 --ntasks-per-node=8 slurm/cutouts.sh ...; memory: up to 1.5 GB a rank.
# After a failure submit it again: shards that are done are kept.
#SBATCH --job-name=mmae-cutouts
#SBATCH --nodes=1 --ntasks-per-node=2 --cpus-per-task=1 --mem-per-cpu=2G
#SBATCH --output=%x-%j.log
# pmi2 is what the mpich wheel of `pip install mmae-survey[mpi]` speaks; set MMAE_MPI for your site's MPI.
exec srun --mpi="${MMAE_MPI:-pmi2}" "${MMAE_PYTHON:-.venv/bin/python}" -m mpi4py -m jobs.cutouts "$@"
