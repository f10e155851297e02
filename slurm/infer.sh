#!/bin/bash
# The photo-z catalogue of a tile on one node:  sbatch slurm/infer.sh --catalog rubin_tile.zarr
# One Ray actor a core, or a GPU: sbatch --gpus-per-node=4 slurm/infer.sh ...
#SBATCH --job-name=mmae-infer
#SBATCH --nodes=1 --ntasks=1 --cpus-per-task=2 --mem=8G
#SBATCH --output=%x-%j.log
exec "${MMAE_PYTHON:-.venv/bin/python}" -m mmae.infer --workers "${MMAE_WORKERS:-$SLURM_CPUS_PER_TASK}" "$@"
