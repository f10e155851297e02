"""What this machine computes with: GPUs, and the precisions its matrix products come in."""

from functools import cache
from pathlib import Path
from typing import Literal, get_args

Precision = Literal["fp32", "bf16"]
FP32: Precision = "fp32"
BF16: Precision = "bf16"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


@cache
def has_bf16() -> bool:
    """Whether it multiplies bfloat16 matrices in hardware: a GPU, or a CPU that lists it.

    A CPU that does not takes several times as long for them as for float32.
    """
    flags = Path("/proc/cpuinfo").read_text().split()
    return gpus() > 0 or not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def gpus() -> int:
    """GPUs that this process can use."""
    if not Path("/proc/driver/nvidia").exists():
        return 0
    import torch

    return torch.cuda.device_count()
