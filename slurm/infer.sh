#!/bin/bash
# Photo-z catalogues on Slurm:  sbatch slurm/infer.sh --catalog 'tiles/*.zarr' --slurm.nodes 2
# This job is the controller: one core that submits the inference job, follows its log and ends as it does.
# It must outlive the inference, requeues and waiting in the queue included: give sbatch a --time if the default
# is short. scancel of this job cancels the inference; a controller that was lost finds its job when started again.
#SBATCH --job-name=mmae-controller
#SBATCH --ntasks=1 --cpus-per-task=1 --mem=2G
#SBATCH --output=%x-%j.log
exec "${MMAE_PYTHON:-.venv/bin/python}" -m jobs.infer "$@"
