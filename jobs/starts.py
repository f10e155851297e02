"""`python -m jobs.starts RUN`, in the batch script before every start of a job: counts starts in vain.

Slurm starts a job again as often as it is requeued. A run that makes no progress, no checkpoint and no unit,
would use the cluster for nothing, so after three such starts the job fails.
"""

if __name__ == "__main__":  # here, so that even the imports below can be interrupted
    from mmae import cli

    cli.start("jobs.starts", "Starts")

import os
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from catalogs import atomic
from catalogs.place import Place
from catalogs.place_flag import PlaceFlag
from mmae import cli
from mmae.models import checkpoint
from mmae.production import index

STARTS = "starts.json"
MAX_STARTS = 3
"""Starts of a job from the same place."""


@dataclass(frozen=True)
class Starts:
    """Count a start of a job; refuse one more after three that came to nothing."""

    run: Positional[PlaceFlag]
    """Run directory of a training, or the folder of the catalogues, here or on S3."""
    folder: Path | None = None
    """Folder of the job, where starts are counted; by default RUN/slurm."""


def main(config: Starts) -> None:
    """Raises OSError where the job has started MAX_STARTS times from the same place."""
    place = {"job": os.environ.get("SLURM_JOB_ID", ""), "next": next_step(config.run)}
    path = (config.folder or Path(str(config.run)) / "slurm") / STARTS
    last = atomic.read_sealed(path) or {}
    starts = last.pop("starts", 0) if last.items() >= place.items() else 0
    if starts >= MAX_STARTS:
        raise OSError(
            f"the job started {starts} times without {place['next']}: "
            f"see {path.parent} for why, mend it, and give the same command again"
        )
    atomic.write_json(path, atomic.sealed(place | {"starts": starts + 1}))


def next_step(run: Place) -> str:
    """The progress that a start must make, in words that change once it is made."""
    tiles = index.runs(run)
    if tiles or not isinstance(run, Path):  # only catalogues are made on S3
        return f"a unit more than {sum(1 for tile in tiles for _ in tile.parts.glob('unit-*.json'))}"
    newest = checkpoint.newest(run)
    return f"a checkpoint newer than {newest.name if newest else 'none'}"
