"""kill -9 at every step at which inference changes files, of the writer of a unit and of the driver."""

import os
import subprocess
import sys
from pathlib import Path

import killing
import pytest

KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
import numpy as np
from catalogs.products import photoz
from catalogs.store.format import NO_METADATA
from mmae.bundles.bundle import open_bundle
from mmae.production.production import Production
from mmae.production.tiles import named_tiles
from killing import die_at

STORE, BUNDLE, FOLDER = map(Path, sys.argv[1:])
bundle = open_bundle(BUNDLE)

def write(unit):
    tile, (number, start, stop, *_) = unit
    files, task = tile.files, tile.task
    columns = (tile.store.column(name, start, stop) for name in ("object_id", "ra", "dec"))
    reason = np.where(np.arange(start, stop) % 10, "", "CONSTANT")
    n = stop - start
    rows = photoz.rows(*columns, {}, np.zeros(n, np.int64), reason, np.ones((n, 5), bool))
    return files.part(number).write(task.plan.sha256, task.provenance, *rows)

def infer(out):
    tiles = named_tiles((str(STORE),), out)
    with Production(tiles, bundle, NO_METADATA) as production:
        while not production.ended:
            if unit := production.take(1.0):
                production.complete(unit, write(unit))
        production.finish()
    if tiles[0].error:
        raise tiles[0].error

def killed(out, step=None):
    child = os.fork()
    if not child:
        if step:
            die_at(out, step)
        infer(out)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def products(out):
    return {file.name: file.read_bytes() for file in out.glob("*.fits")}

undisturbed = FOLDER / "undisturbed"
undisturbed.mkdir()
assert killed(undisturbed) == 0
for step in range(1, 1000):
    out = FOLDER / str(step)
    out.mkdir()
    ended = killed(out, step)
    assert products(out).items() <= products(undisturbed).items()
    if ended == 0:
        break
    assert ended == -signal.SIGKILL, ended
    assert killed(out) == 0
    assert products(out) == products(undisturbed)
"""


def names(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.slow
def test_a_kill_at_any_step_does_not_show_in_the_catalogue(draw_tile, bundle, tmp_path):
    """Steps are what changes files or folders. All is real but the actor: units are written in the driver.

    What stands under a product's name is the undisturbed run's at once, and the next run leaves nothing else.
    """
    store = draw_tile(tmp_path / "tile.zarr", 0, 600)  # three units
    folder = tmp_path / "runs"
    folder.mkdir()
    program = [sys.executable, "-c", KILLED_AT_EVERY_STEP, store, bundle, folder]
    environment = os.environ | {"PYTHONPATH": str(Path(killing.__file__).parent)}
    done = subprocess.run(program, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    runs = list(folder.iterdir())
    assert len(runs) > 30
    assert all(names(run) == names(folder / "undisturbed") for run in runs)
