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
    """Whether it multiplies bfloat16 matrices in hardware: its GPUs, or the CPU where there are none.

    What does not takes several times as long for them as for float32.
    """
    if gpus():
        import torch

        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = Path("/proc/cpuinfo").read_text().split()
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)


def gpus() -> int:
    """GPUs that this process can use."""
    if not Path("/proc/driver/nvidia").exists():
        return 0
    import torch

    return torch.cuda.device_count()
