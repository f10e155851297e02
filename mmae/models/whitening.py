"""Directions in which a sample of vectors varies, each by one."""

import torch
from torch import Tensor


def whitening(sample: Tensor, floor: float) -> tuple[Tensor, Tensor]:
    """The centre (J,) of a sample (N, J), and the matrix (J, J) by which (x - centre) @ matrix is white.

    `floor` is a variance added to every direction, for those the sample hardly has.
    """
    double = sample.double()
    covariance = torch.cov(double.T) + floor * torch.eye(sample.shape[1], dtype=torch.float64)
    matrix = torch.linalg.cholesky(torch.linalg.inv(covariance))
    return double.mean(0).to(sample), matrix.to(sample)
