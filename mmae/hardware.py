"""What this machine computes with."""

from functools import cache
from pathlib import Path


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
