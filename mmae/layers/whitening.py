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


def completing(sample: Tensor, floor: float, known: Tensor) -> Tensor:
    """The matrix (J, J) for which (x - mean) @ matrix is expected where only some of x is known.

    known (J,) bool; the other entries of x - mean are 0, and get the mean of a normal distribution with the
    covariance of the sample (N, J), given those that are known.
    """
    covariance = _covariance(sample.double(), floor)
    matrix = torch.diag(known.double())
    if known.any() and not known.all():
        between = covariance[known][:, ~known]
        filled = torch.linalg.solve(covariance[known][:, known], between)
        rows, columns = known.nonzero(), (~known).nonzero().T
        matrix[rows, columns] = filled
    return matrix.to(sample)


def _covariance(sample: Tensor, floor: float) -> Tensor:
    return torch.cov(sample.T) + floor * torch.eye(sample.shape[1], dtype=sample.dtype)
