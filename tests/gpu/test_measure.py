"""What measures a GPU runs to its end on a CPU, so that a card that is there for minutes is not lost."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_all_that_is_measured_on_a_gpu_is_measured_on_a_cpu(tmp_path):
    command = [
        sys.executable,
        Path(__file__).with_name("measure.py"),
        "--tiny",
        "--out",
        tmp_path / "cpu.json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "cpu.json").read_text())
    assert not {name: value for name, value in found.items() if isinstance(value, str)}
    assert all(isinstance(rate, float) for rate in found["training_samples_per_s"].values())
    assert set(found["identity_of_bytes"].values()) == {True}
    assert found["error_against_cpu"]["fp32"]["max"] == 0  # it is the same device here
    rates = [*found["model"]["objects_per_s"].values(), *found["catalogue_objects_per_s"].values()]
    assert min(rates) > 0
    assert len(found["learning"]["loss"]) > 1
    assert found["cuda_graph_objects_per_s"] is None
