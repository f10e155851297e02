"""Inference as a Slurm job: `python -m jobs.infer --catalog 'tiles/*.zarr' --slurm.nodes 2` on a login node.

One task a node and one Ray over all of them; this process follows the log and ends as the job does. The same
as a batch job of one core: `sbatch slurm/infer.sh --catalog ...`. See submission.py for what a job is.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("jobs.infer", "InferJob", "slurm")

import dataclasses
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from catalogs.errors import UsageError
from jobs import submission
from jobs.ray_nodes import Rendezvous
from jobs.submission import Slurm
from mmae import cli, infer
from mmae.infer import Infer
from mmae.production.launch import find_bundle
from mmae.production.tiles import named_tiles

NODE_LOSS_FLAGS = ("no-kill",)
"""The job survives the loss of a node other than its first: its units are retried on the others."""


@dataclass(frozen=True)
class InferJob:
    """Infer on Slurm: submit the inference as a job, follow its log, end with its state.

    Takes the flags of `mmae infer`, and those of the job as --slurm.*; there is an actor a GPU, or a core.
    The job's logs are in OUT/slurm; `python -m jobs.status OUT` says how it stands.

    Pre-empted, out of time, or without its first node, the job goes back to the queue and on with the units
    that are not done; after three starts without one more it fails. To end it, use scancel or Ctrl-C. If a
    job for OUT is queued already, that one is followed.
    """

    infer: Annotated[Infer, tyro.conf.arg(name="")]
    slurm: Slurm = field(default_factory=Slurm)


class Inference:
    """The callable that submitit pickles and runs in every task; all state is on disk."""

    def __init__(self, config: Infer, folder: Path, cpus: int):
        self.config, self.folder, self.cpus = config, folder, cpus

    def __call__(self) -> None:
        rendezvous = Rendezvous.of_this_job(self.folder)
        if int(os.environ["SLURM_PROCID"]) > 0:
            signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # the first task ends the cluster
            rendezvous.join(self.cpus)
            if rendezvous.is_lost:  # with its node went the batch script, which asks for this as a rule
                subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=False)
            return
        for warning in (signal.SIGUSR2, signal.SIGTERM):
            signal.signal(warning, signal.default_int_handler)
        try:
            work = partial(infer.main, self.config, lambda places: rendezvous.head(self.cpus))
            if code := cli.exit_code(work, "mmae infer"):
                sys.exit(code)
        finally:
            rendezvous.end()


def main(config: InferJob) -> None:
    """Raises UsageError where there is no such tile or model, before anything is submitted."""
    if config.infer.ray_address:
        raise UsageError("--ray-address: the job brings a Ray of its own")
    model = find_bundle(config.infer.model).resolve()
    tiles = named_tiles(config.infer.catalog, config.infer.out)
    slurm, out = config.slurm, tiles[0].files.folder
    asked = submission.resources(slurm)
    stores = tuple(str(tile.path.resolve()) for tile in tiles)
    resolved = dataclasses.replace(config.infer, catalog=stores, model=model, out=out)
    if resolved.dry_run:
        places = slurm.nodes * (asked.gpus_per_node or asked.cpus_per_task)
        infer.main(dataclasses.replace(resolved, workers=resolved.workers or places))
        return
    folder = out / "slurm" if isinstance(out, Path) else Path.cwd() / f"{out.name or out.bucket}.slurm"
    task = Inference(resolved, folder, asked.cpus_per_task)
    submit = partial(
        submission.submit,
        task,
        folder,
        "mmae-infer",
        slurm,
        flags=NODE_LOSS_FLAGS,
        straggler_seconds=0,
        run=out,
    )
    submission.run(folder, submit)
