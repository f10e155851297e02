"""Matrix products at inference, in which a galaxy's row does not depend on where it stands in the batch.

BLAS libraries make no such promise: MKL takes other orders of summation at the edges of a matrix, on some
CPUs (AMD with AVX-512, products with few columns) with other last bits. oneDNN takes one order for all rows.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def by_onednn(x: Tensor) -> bool:
    """Whether oneDNN multiplies such numbers where they are; bfloat16 it does with AVX-512 or better."""
    if x.is_cuda or x.dtype == torch.float64:
        return False
    return x.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W' of x (..., I) and W (O, I), of one type: (..., O). For inference alone: it has no gradient."""
    if not by_onednn(x):
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


class Linear(nn.Module):
    """x W' + b, or the GELU of it, in the precision of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor, gelu: bool = False):
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if not by_onednn(x):
            y = F.linear(x, self.weight, self.bias)
            return F.gelu(y) if self.gelu else y
        # oneDNN does bias and GELU while the product is in the cache: 15 % of the time in bfloat16
        name, algorithm = ("gelu", "none") if self.gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)


def copied(layer: nn.Module, gelu: bool = False) -> Linear:
    """A layer of a model in training, as one for inference."""
    assert isinstance(layer, nn.Linear)
    return Linear(layer.weight, layer.bias, gelu)
