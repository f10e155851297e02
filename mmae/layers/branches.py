"""Where what is done may depend on values, and where it must not."""

import torch
from torch import Tensor


def is_recorded() -> bool:
    """Whether torch.export is recording."""
    if torch.jit.is_scripting():
        return False
    return torch.compiler.is_exporting()


def are_free(x: Tensor) -> bool:
    """Whether a program on this tensor must do the same whatever its values are.

    A GPU would have to be waited for to know them, and what is recorded is one way for all.
    """
    return not x.is_cpu or is_recorded()
