"""Whitening of a sample of vectors."""

import torch
from torch import Tensor


def whitening(sample: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Mean (J,) of a sample (N, J), and the matrix (J, J) for which (x - mean) @ matrix is white.

    `floor` is a variance added to every direction, for those with hardly any variance.
    """
    double = sample.double()
    return double.mean(0).to(sample), whitening_of(_covariance(double, floor)).to(sample)


def whitening_of(covariance: Tensor) -> Tensor:
    """The matrix (J, J) for which x @ matrix is white, x of mean 0 and of the covariance (J, J)."""
    return torch.linalg.cholesky(torch.linalg.inv(covariance))


def _covariance(sample: Tensor, floor: float) -> Tensor:
    return torch.cov(sample.T) + floor * torch.eye(sample.shape[1], dtype=sample.dtype)
