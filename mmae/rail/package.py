"""mmae-survey as one of RAIL's packages, all of which RAIL imports: installed as rail/mmae/__init__.py."""

from rail.estimation.algos.mmae import MmaeEstimator, MmaeInformer

__all__ = ["MmaeEstimator", "MmaeInformer"]
