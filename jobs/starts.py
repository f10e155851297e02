"""Before every start of a job, in its batch script: `python -m jobs.starts RUN`.

Slurm starts a job again as often as it is requeued. A run that only ever starts would use its share of the
cluster for nothing, so starts are counted for as long as nothing comes of them: no checkpoint, no unit.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from catalogs import atomic
from mmae import checkpoint, cli, index

STARTS = "starts.json"
LARGEST = 3
"""Starts of one job from the same place."""


@dataclass(frozen=True)
class Starts:
    """Count a start of a job; refuse one more after three that came to nothing."""

    run: Positional[Path]
    """Run directory of a training, or the folder of the catalogues."""


def main(config: Starts) -> None:
    """Raises OSError where the job has started LARGEST times from the same place."""
    here = {"job": os.environ.get("SLURM_JOB_ID", ""), "next": next_step(config.run)}
    path = config.run / "slurm" / STARTS
    last = json.loads(path.read_text()) if path.exists() else {}
    starts = last.pop("starts", 0) if last.items() >= here.items() else 0
    if starts >= LARGEST:
        raise OSError(
            f"the job started {starts} times without {here['next']}: "
            f"see {path.parent} for why, mend it, and give the same command again"
        )
    atomic.write_json(path, here | {"starts": starts + 1})


def next_step(run: Path) -> str:
    """What a start must bring, in words that change when it has."""
    if tiles := index.runs(run):
        return f"a unit more than {sum(1 for tile in tiles for _ in tile.parts.glob('unit-*.json'))}"
    newest = checkpoint.newest(run)
    return f"a checkpoint newer than {newest.name if newest else 'none'}"


if __name__ == "__main__":
    sys.exit(cli.run(main, Starts, sys.argv[1:], "python -m jobs.starts"))
