"""Whitening of a sample of vectors."""

import torch
from torch import Tensor


def whitening(sample: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """Mean (J,) of a sample (N, J), and the matrix (J, J) for which (x - mean) @ matrix is white.

    `floor` is a variance added to every direction, for those with hardly any variance.
    """
    double = sample.double()
    covariance = torch.cov(double.T) + floor * torch.eye(sample.shape[1], dtype=torch.float64)
    matrix = torch.linalg.cholesky(torch.linalg.inv(covariance))
    return double.mean(0).to(sample), matrix.to(sample)
