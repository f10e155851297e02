"""Imports run downward, and each command stands where the command line says it does."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from mmae import cli

ROOT = Path(__file__).parents[1]
FILES = sorted(path for package in ("catalogs", "mmae", "jobs") for path in (ROOT / package).rglob("*.py"))
MAY_NOT_IMPORT = {
    "catalogs": {"mmae", "jobs", "torch", "ray", "mpi4py", "submitit"},
    "mmae": {"jobs", "mpi4py", "submitit"},
    "jobs": set(),
}
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


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_imports_run_downward(path):
    package = path.relative_to(ROOT).parts[0]
    packages = {name.split(".")[0] for name in imported(ast.parse(path.read_text()))}
    assert not packages & MAY_NOT_IMPORT[package]


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_only_export_compiles_a_model(path):
    tree = ast.parse(path.read_text())
    attributes = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    uses = {name for name in attributes | set(imported(tree)) if name.removeprefix("torch.jit.") in COMPILER}
    assert not uses or path == ROOT / "mmae" / "export.py"


def test_export_does_compile_a_model():
    """Else the test above looks for names that are no longer used."""
    assert "torch.jit.script" in (ROOT / "mmae" / "export.py").read_text()


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
