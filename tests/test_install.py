"""What `pip install` puts on a machine is complete without the checkout beside it."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

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


def test_commands_run_from_the_wheel(installed):
    script = """
import sys
sys.path.insert(0, "site")
import catalogs.schema, jobs.train, mmae.cli
print(catalogs.schema.__file__, len(catalogs.schema.columns("PHOTOZ")))
"""
    done = subprocess.run([sys.executable, "-I", "-c", script], cwd=installed, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    file, columns = done.stdout.split()
    assert Path(file).is_relative_to(installed) or file.startswith("site/")
    assert columns == "25"


def test_the_wheel_holds_the_packages_and_the_console_script_only(installed):
    top = {path.name for path in (installed / "site").iterdir()}
    assert {name for name in top if not name.endswith(".dist-info")} == {"catalogs", "mmae", "jobs"}
    (entry_points,) = (installed / "site").glob("*.dist-info/entry_points.txt")
    assert "mmae = mmae.cli:main" in entry_points.read_text()
