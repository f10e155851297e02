"""Before every start of a training job, in its batch script: `python -m jobs.starts RUN`.

Slurm starts a job again as often as it is requeued. A run that only ever starts would use its share of the
cluster for nothing, so starts are counted for as long as the newest checkpoint stays the same.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from catalogs import atomic
from mmae import checkpoint, cli

STARTS = "starts.json"
LARGEST = 3
"""Starts of one job from the same checkpoint."""


@dataclass(frozen=True)
class Starts:
    """Count a start of a training job; refuse one more after three that left no newer checkpoint."""

    run: Positional[Path]
    """Run directory."""


def main(config: Starts) -> None:
    """Raises OSError where the job has started LARGEST times without a newer checkpoint."""
    newest = checkpoint.newest(config.run)
    here = {"job": os.environ.get("SLURM_JOB_ID", ""), "checkpoint": newest.name if newest else None}
    path = config.run / "slurm" / STARTS
    last = json.loads(path.read_text()) if path.exists() else {}
    starts = last.pop("starts", 0) if last.items() >= here.items() else 0
    if starts >= LARGEST:
        raise OSError(
            f"the job started {starts} times without a checkpoint newer than {here['checkpoint'] or 'none'}: "
            f"see {path.parent} for why, mend it, and give the same command again"
        )
    atomic.write_json(path, here | {"starts": starts + 1})


if __name__ == "__main__":
    sys.exit(cli.run(main, Starts, sys.argv[1:], "python -m jobs.starts"))
