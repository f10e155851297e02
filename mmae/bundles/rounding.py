"""Rounding of weights to bfloat16 that changes the outputs of a layer least.

A weight rounded to nearest is wrong by up to 0.2 %, and as the inputs of a layer are much alike from token to
token and from galaxy to galaxy, such errors do not cancel. So the weights of a layer are rounded input by
input, and each rounding error is made good in the weights not yet rounded, as far as the inputs are
correlated: optimal brain quantisation in the order of Frantar et al. 2022 (GPTQ, section 3).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from mmae.bundles.program import Program, estimates
from mmae.layers.linear import Linear

DAMPING = 0.01
"""Added to the squares of the inputs, as a share of their mean, for inputs that the sample lacks."""


@torch.inference_mode()
def watch(
    program: Program, layers: list[Linear], image: Tensor, conditions: Tensor | None
) -> dict[Linear, Tensor]:
    """What the layers see as the program runs on images (N, bands, 64, 64) and their conditions.

    Gives (1 + I, 1 + I) for each: the sum of x x' over its inputs x, led by the 1 that the bias multiplies.
    """
    gram: dict[Linear, Tensor] = {}

    def add(layer: Linear, inputs: tuple[Tensor], _output: Tensor) -> None:
        x = F.pad(inputs[0].flatten(0, -2), (1, 0), value=1.0)
        gram[layer] = gram.get(layer, torch.zeros(())) + x.T @ x

    hooks = [layer.register_forward_hook(add) for layer in layers]
    estimates(program, image, conditions)
    for hook in hooks:
        hook.remove()
    return gram


def rounded(weight: Tensor, gram: Tensor) -> Tensor:
    """The bfloat16 version of weight (O, I) that changes least what the layer gives.

    gram (I, I): the sum of x x' over the layer's inputs x.
    """
    left, gram = weight.to(torch.float64, copy=True), gram.double()
    gram = gram + DAMPING * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    spread = torch.linalg.cholesky(torch.linalg.inv(gram), upper=True)
    for i, row in enumerate(spread):
        error = left[:, i] - left[:, i].bfloat16()
        left[:, i:] -= torch.outer(error / row[i], row[i:])
    return left.bfloat16()


def reduce_precision(program: Program, image: Tensor, conditions: Tensor | None = None) -> Program:
    """Take the layers that the program names for it to bfloat16, in place.

    image (N, bands, 64, 64): galaxies like those to come, which the rounding is fitted to; conditions
    (N, 2 * bands + 1): of their observation.
    """
    layers = program.reduced()
    gram = watch(program, layers, image, conditions)
    for layer in layers:
        weight = rounded(torch.cat([layer.bias.unsqueeze(1), layer.weight], 1), gram[layer])
        layer.bias.data, layer.weight.data = weight[:, 0].clone(), weight[:, 1:].clone()
    return program
