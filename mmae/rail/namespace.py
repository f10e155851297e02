"""Stages of mmae-survey, where RAIL looks for them: installed as rail/estimation/algos/mmae.py."""

from mmae.rail.stages import MmaeEstimator, MmaeInformer

__all__ = ["MmaeEstimator", "MmaeInformer"]

for stage in (MmaeEstimator, MmaeInformer):
    stage.__module__ = __name__  # by which a pipeline starts a process for each: it must be one of RAIL's
