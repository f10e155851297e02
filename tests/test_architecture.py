"""Imports run downward, and each command stands where the command line says it does."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mmae import cli

ROOT = Path(__file__).parents[1]
FILES = sorted(path for package in ("catalogs", "mmae", "jobs") for path in (ROOT / package).rglob("*.py"))
COMMAND, COMMON = "command", "common"
"""Files that stand in `mmae/` itself: a command each, or what all rooms need."""
COMMON_FILES = {"__init__", "cli", "environment", "flags", "hardware", "prefetch", "progress"}
STORE = {"catalogs", "catalogs.store"}
PRODUCTS = {*STORE, "catalogs.products"}
SURVEYS = {*STORE, "catalogs.surveys"}
LAYERS = {*PRODUCTS, *SURVEYS, COMMON}
MODELS = {*LAYERS, "mmae.layers"}
BUNDLES = {*MODELS, "mmae.models"}
SCORES = {*BUNDLES, "mmae.bundles", "catalogs.tables"}
MAY_IMPORT = {
    "catalogs": set(),
    "catalogs.store": {"catalogs"},
    "catalogs.products": STORE,
    "catalogs.surveys": STORE,
    "catalogs.crossmatch": {*SURVEYS, "catalogs.ingest"},
    "catalogs.cutting": {*SURVEYS, "catalogs.tables"},
    "catalogs.mock": SURVEYS,
    "catalogs.similarity": PRODUCTS,
    "catalogs.tables": STORE,
    "catalogs.ingest": SURVEYS,
    COMMON: {"catalogs"},
    "mmae.layers": LAYERS,
    "mmae.models": MODELS,
    "mmae.bundles": BUNDLES,
    "mmae.scores": SCORES,
    "mmae.production": SCORES,
    "mmae.rail": {*SCORES, "mmae.production"},
    "mmae.training": {*SCORES, "mmae.scores"},
    COMMAND: {*SCORES, "mmae.scores", "mmae.production", "mmae.training"},
    "jobs": {
        *SCORES,
        "mmae.scores",
        "mmae.production",
        "mmae.training",
        COMMAND,
        "catalogs.ingest",
        "catalogs.cutting",
    },
}
"""Rooms below each room, which it may import from. A command imports no other command."""
MAY_NOT_IMPORT = {
    "catalogs": {"torch", "ray", "mpi4py", "submitit"},
    "mmae": {"mpi4py", "submitit"},
    "jobs": set(),
}
COMPILES = ROOT / "mmae" / "bundles" / "compiler.py"
COMPILER = {"script", "trace", "script_method", "trace_module"}
"""Names of torch.jit that make a program; the others load and run one."""


def name_of(path):
    return str(path.relative_to(ROOT))


def imported(tree):
    """Dotted names of all that a module imports, at its top or inside a function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(name):
    """The room of a dotted name of ours, of a file or of what is in it: `mmae.models`, say, or COMMAND."""
    package, *rest = name.split(".")
    if package == "jobs":
        return package
    if rest and (ROOT / package / rest[0]).is_dir():
        return f"{package}.{rest[0]}"
    if package == "mmae":
        return COMMON if not rest or rest[0] in COMMON_FILES or rest[0].startswith("__") else COMMAND
    return "catalogs.ingest" if rest[:1] == ["ingest"] else package


def upward(file, text):
    """Imports in the text of a file that lead to a room which is not below its own."""
    room = room_of(".".join(Path(file).with_suffix("").parts))
    ours = (name for name in imported(ast.parse(text)) if name.split(".")[0] in MAY_NOT_IMPORT)
    return [name for name in ours if room_of(name) not in MAY_IMPORT[room] | {room} - {COMMAND}]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_downward(path):
    text = path.read_text()
    packages = {name.split(".")[0] for name in imported(ast.parse(text))}
    assert not packages & MAY_NOT_IMPORT[path.relative_to(ROOT).parts[0]]
    assert not upward(name_of(path), text)


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("mmae/models/mmae.py", "from mmae.training.data import TrainingSet"),
        ("mmae/bundles/engine.py", "from mmae.scores import metrics"),
        ("mmae/scores/metrics.py", "from mmae import evaluate"),
        ("mmae/production/tiles.py", "from mmae.training import recipe"),
        ("mmae/evaluate.py", "from mmae.infer import Infer"),
        ("catalogs/store/cutouts.py", "from catalogs.products.schema import Flag"),
        ("catalogs/atomic.py", "import catalogs.store.format"),
        ("catalogs/products/photoz.py", "def late():\n    from mmae.layers import pdf"),
    ],
)
def test_an_import_that_runs_upward_is_found(file, line):
    """Planted in a file that has none."""
    assert len(upward(file, f"{(ROOT / file).read_text()}\n{line}\n")) == 1


def test_rooms_are_small_and_say_what_they_are_for():
    for room in {path.parent for path in FILES}:
        files = list(room.glob("*.py"))
        assert len(files) <= 20, room
        assert ast.get_docstring(ast.parse((room / "__init__.py").read_text())), room


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_one_file_compiles_a_model(path):
    tree = ast.parse(path.read_text())
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    uses = {name for name in attributes | set(imported(tree)) if name.removeprefix("torch.jit.") in COMPILER}
    assert not uses or path == COMPILES


def test_that_file_does_compile_a_model():
    """Else the test above looks for names that are no longer used."""
    assert "torch.jit.script" in COMPILES.read_text()


def test_the_driver_of_inference_does_without_torch():
    """It is 200 MB, and seconds at the start of every run."""
    program = "import sys, mmae.infer, jobs.infer; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_command_explains_itself(name, capsys):
    command = cli.COMMANDS[name]
    module = importlib.import_module(command.module)
    assert callable(module.main)
    with pytest.raises(SystemExit) as stop:
        cli.run_command(name, ["--help"])
    assert stop.value.code == cli.OK
    summary = getattr(module, command.config).__doc__.splitlines()[0]
    assert summary.split()[0] in capsys.readouterr().out


def test_the_tests_that_the_table_of_faults_names_are_there():
    named = set(re.findall(r"`(test_\w+)`", (ROOT / "tests/faults/README.md").read_text()))
    sources = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 50
    assert not named - set(re.findall(r"^def (test_\w+)", sources, re.MULTILINE))
