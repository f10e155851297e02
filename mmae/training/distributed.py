"""Rank of this process, from torchrun's or Slurm's variables, and the process group of all ranks."""

import contextlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from catalogs.cpus import cpus
from catalogs.errors import Interrupted, UsageError

SIZES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
"""Environment variables of torchrun that say which rank this process is, of how many."""
MASTER = ("MASTER_ADDR", "MASTER_PORT")
"""Those that say where several ranks meet."""
TIMEOUT = timedelta(minutes=10)
"""Timeout of collective operations (gloo notices a dead rank at once)."""


@dataclass(frozen=True)
class World:
    """Global and local rank of this process, the numbers of ranks, and its device."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which writes files and reports."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Mean over ranks."""
        return self.sum(values) / self.size

    def sum(self, values: Tensor) -> Tensor:
        """Sum over ranks."""
        if self.size > 1:
            dist.all_reduce(values)
        return values

    def gather(self, values: Tensor) -> list[Tensor]:
        """A tensor of equal shape from every rank, on every rank."""
        if self.size == 1:
            return [values]
        parts = [torch.empty_like(values) for _ in range(self.size)]
        dist.all_gather(parts, values)
        return parts


def torchrun_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of torchrun to set for this process, from those of a Slurm job step.

    Empty under torchrun itself, and under another launcher that sets them. Only a step of `srun` counts: a
    batch script has SLURM_NTASKS too, but is a single process. Raises UsageError where a launcher has set
    some of them: which GPU is this rank's cannot be guessed.
    """
    if "RANK" in environment:
        wrong = [name for name in SIZES if not environment.get(name, "").isdecimal()]
        if environment.get("WORLD_SIZE") != "1":
            wrong += [name for name in MASTER if not environment.get(name)]
        if wrong:
            raise UsageError(
                f"RANK is set, but {', '.join(wrong)} missing or no number: start the ranks with torchrun or "
                "srun, or unset RANK to train in one process"
            )
        return {}
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) < 2:
        return {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    job, tasks = int(environment["SLURM_JOB_ID"]), environment["SLURM_STEP_TASKS_PER_NODE"]
    return {
        "RANK": environment["SLURM_PROCID"],
        "WORLD_SIZE": environment["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": environment["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": tasks.split("(")[0].split(",")[0],
        "MASTER_ADDR": first_host(environment["SLURM_STEP_NODELIST"]),
        "MASTER_PORT": str(20000 + job % 10000),  # jobs that share a node need different ports
    }


def first_host(nodes: str) -> str:
    """The first host of a list as Slurm writes it: `gpu[07-09,12],login` -> `gpu07`.

    Slurm's own command is not there in a container.
    """
    return re.sub(r"\[(\d+)[^]]*\]", r"\1", nodes).split(",")[0]


@contextlib.contextmanager
def world() -> Iterator[World]:
    """Join the other ranks, if any: with nccl on GPUs, else with gloo.

    Raises ConnectionError where another rank has died or does not answer within TIMEOUT, and UsageError where
    a machine has fewer GPUs than ranks: nccl takes no GPU twice.
    """
    os.environ.update(torchrun_variables(os.environ))
    rank, size, local_rank, local_size = (int(os.environ[name]) for name in SIZES)
    cuda, gpus = torch.cuda.is_available(), torch.cuda.device_count()
    if 1 < gpus < local_size:  # with a single one Slurm has given each rank its own
        raise UsageError(f"{local_size} ranks on a machine with {gpus} GPUs: start a rank a GPU")
    device = torch.device("cuda", local_rank % gpus) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    elif size > 1 or "OMP_NUM_THREADS" not in os.environ:  # torchrun sets it to 1 on every machine
        torch.set_num_threads(max(1, cpus() // local_size))
    with process_group(rank, size, device) if size > 1 else contextlib.nullcontext():
        yield World(rank, size, local_rank, local_size, device)


@contextlib.contextmanager
def process_group(rank: int, size: int, device: torch.device) -> Iterator[None]:
    """The process group; ranks leave it together, or raise ConnectionError where one is lost."""
    backend, device_ids = ("nccl", [device.index]) if device.type == "cuda" else ("gloo", None)
    try:
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=TIMEOUT)
        try:
            yield
        except Interrupted:
            dist.barrier(device_ids=device_ids)  # rank 0 may still be writing; a rank that exits may end all
            raise
        dist.barrier(device_ids=device_ids)
    except RuntimeError as error:
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise ConnectionError(
            f"rank {rank} of {size} has lost another rank ({str(error).splitlines()[0]}); the same command "
            "goes on from the newest checkpoint"
        ) from error
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()
