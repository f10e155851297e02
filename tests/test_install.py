"""What `pip install` puts on a machine is complete without the checkout beside it."""

import importlib.metadata
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Environment in which the packages come from a wheel alone."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    (wheel,) = folder.glob("mmae_survey-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder


@pytest.mark.slow
def test_commands_run_from_the_wheel(installed):
    script = """
import sys
sys.path.insert(0, "site")
import catalogs.products.schema, jobs.train, mmae.cli
print(catalogs.products.schema.__file__, len(catalogs.products.schema.columns("PHOTOZ")))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, columns = done.stdout.split()
    assert Path(file).is_relative_to(installed) or file.startswith("site/")
    assert columns == "29"


WITHOUT_EXTRAS = """
from importlib.machinery import PathFinder

found = PathFinder.find_spec

def find(name, path=None, target=None):
    spec = found(name, path, target)
    of_ray = "thirdparty_files" in str(spec and spec.origin)  # where Ray has copies of its own
    return spec if of_ray or name.partition(".")[0] not in {absent} else None

PathFinder.find_spec = find
"""
COMMANDS = """
train {survey}/train.zarr --out run --epochs 1 --batch 64 {small}
export run
infer --catalog {survey}/rubin_tile.zarr --model run/bundle --out . --workers 1
evaluate rubin_tile.photoz.fits --truth {survey}/mock/rubin_tile.truth.fits
embed --catalog {survey}/rubin_tile.zarr --model run/bundle --out . --workers 1
neighbours rubin_tile.embeddings.zarr {survey}/rubin_tile.zarr --out neighbours.png
reconstruct run {survey}/train.zarr --objects 2
reproduce run {survey}/train.zarr --objects 2 --seeds 1
"""
SMALL = "--model.embed-dim 64 --model.depth 1 --model.decoder-dim 32 --model.decoder-depth 1 --model.bins 60"


@pytest.mark.slow
def test_what_needs_no_extra_runs_without_extras(survey, tmp_path):
    """Every package that is here, and that a plain installation does not bring, is made to be missing."""
    brought = closure("mmae-survey")
    modules = importlib.metadata.packages_distributions()
    absent = {name for name, of in modules.items() if not brought & {canonicalize_name(one) for one in of}}
    assert {"galsim", "mpi4py", "pytest"} <= absent
    hook = tmp_path / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(WITHOUT_EXTRAS.format(absent=absent))
    environment = os.environ | {"PYTHONPATH": str(hook)}
    for line in COMMANDS.format(survey=survey, small=SMALL).strip().splitlines():
        command = [sys.executable, "-m", "mmae.cli", *line.split()]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, f"mmae {line}\n{done.stderr}"


def closure(name):
    """Names of the distributions that installing this one brings, itself included."""
    found, asked = set(), [name]
    while asked:
        if (one := canonicalize_name(asked.pop())) in found:
            continue
        try:
            required = importlib.metadata.requires(one)
        except importlib.metadata.PackageNotFoundError:  # of another platform
            continue
        found.add(one)
        wanted = map(Requirement, required or [])
        asked += [each.name for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]
    return found


def test_the_wheel_holds_the_packages_and_the_console_script_only(installed):
    top = {path.name for path in (installed / "site").iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"catalogs", "mmae", "jobs", "rail"}
    shared = {str(path.relative_to(installed / "site")) for path in (installed / "site/rail").rglob("*.py")}
    assert shared == {"rail/estimation/algos/mmae.py", "rail/mmae/__init__.py"}  # a namespace of RAIL's
    (entry_points,) = (installed / "site").glob("*.dist-info/entry_points.txt")
    assert "mmae = mmae.cli:main" in entry_points.read_text()
