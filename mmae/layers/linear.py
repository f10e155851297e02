"""Matrix products at inference in which the result of a row does not depend on its position in the batch.

BLAS libraries do not guarantee this: MKL sums in another order at the edges of a matrix, on some CPUs (AMD
with AVX-512, products with few columns) with different last bits. oneDNN sums all rows in the same order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmae.layers.branches import is_recorded


def by_onednn(x: Tensor) -> bool:
    """Whether oneDNN multiplies tensors of this type and device; bfloat16 needs AVX-512 or better.

    What torch.export records is for any device: oneDNN takes its place when that is loaded (recorded.py).
    """
    if is_recorded():
        return False
    if x.is_cuda or x.dtype == torch.float64:
        return False
    return x.dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def product(x: Tensor, weight: Tensor) -> Tensor:
    """x W' of x (..., I) and W (O, I), of the same type: (..., O). For inference only: without gradient."""
    if not by_onednn(x):
        return F.linear(x, weight)
    return torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")


def affine(x: Tensor, weight: Tensor, bias: Tensor, gelu: bool) -> Tensor:
    """x W' + b of x (..., I), W (O, I) and b (O,), then GELU if asked for: (..., O). For inference only."""
    if not by_onednn(x):
        y = F.linear(x, weight, bias)
        return F.gelu(y) if gelu else y
    # oneDNN fuses bias and GELU into the product: 15 % of the time in bfloat16
    name, algorithm = ("gelu", "none") if gelu else ("none", "")
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)


class Linear(nn.Module):
    """x W' + b, optionally followed by GELU, in the precision of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor, gelu: bool = False):
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return affine(x.to(self.weight.dtype), self.weight, self.bias, self.gelu)


def copied(layer: nn.Module, gelu: bool = False) -> Linear:
    """Copy of a layer of a training model for inference."""
    assert isinstance(layer, nn.Linear)
    return Linear(layer.weight, layer.bias, gelu)
