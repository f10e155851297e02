#!/bin/bash
# Train on Slurm:  sbatch slurm/train.sh
# By itself it trains on train.zarr, or on what train.toml says, in the folder that it is submitted from. Flags are
# those of python -m jobs.train:  sbatch slurm/train.sh survey.zarr --slurm.nodes 2 --slurm.tasks-per-node 4
# This job is the controller: one core that submits the training job, follows its log and ends as it does.
# It must outlive the training, requeues and waiting in the queue included: give sbatch a --time if the default is
# short. scancel of this job cancels the training; a controller that was lost finds its job when started again.
#SBATCH --job-name=mmae-controller
#SBATCH --ntasks=1 --cpus-per-task=1 --mem=2G
#SBATCH --output=%x-%j.log
exec "${MMAE_PYTHON:-.venv/bin/python}" -m jobs.train "$@"
