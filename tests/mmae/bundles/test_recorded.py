"""Programs as torch.export records them: the same estimates where TorchScript is not, no code of others."""

import io
import json
import subprocess
import zipfile

import numpy as np
import pytest
import torch
from astropy.table import Table

from catalogs.errors import InputRefused, UsageError
from catalogs.store.cutouts import open_store
from mmae import cli, export
from mmae.bundles import bundle as bundles
from mmae.bundles import compiler, recorded
from mmae.bundles.bundle import CARD, RECORDED, open_bundle
from mmae.bundles.engine import Engine
from mmae.bundles.image_mask import Masking
from mmae.bundles.program import program_of
from mmae.hardware import FP32
from mmae.models import checkpoint
from tests.infer_runs import command

CPU, ROWS = torch.device("cpu"), 100


@pytest.fixture
def without_script(monkeypatch):
    """This process has a Python that torch does not script in."""
    for module in (bundles, compiler):
        monkeypatch.setattr(module, "SCRIPTED", False)


@pytest.fixture(scope="module")
def cutouts(survey, bundle):
    store = open_store(survey / "rubin_tile.zarr")
    read = open_bundle(bundle).input.read(store, 0, ROWS)
    read.image[3, 1] = np.nan  # a band that was not observed, among others that were
    return read.image, store.column("object_id", 0, ROWS), read.conditions


def test_it_computes_what_torchscript_does(bundle, cutouts, monkeypatch):
    for precision in open_bundle(bundle).precisions:
        scripted = Engine(open_bundle(bundle, precision), CPU, 64).table(*cutouts)
        with monkeypatch.context() as patch:
            patch.setattr(bundles, "SCRIPTED", False)
            opened = open_bundle(bundle, precision)
            assert opened.sha256 == open_bundle(bundle, precision).sha256
            engine = Engine(opened, CPU, 64)
        assert isinstance(engine.program, recorded.Recorded)
        table = engine.table(*cutouts)
        np.testing.assert_allclose(table, scripted, rtol=1e-3, atol=1e-3)
        backwards = engine.table(*(each[::-1].copy() for each in cutouts))[::-1]
        assert table.tobytes() == backwards.tobytes()  # wherever a row stands in its batch


def test_the_same_program_is_the_same_file_without_folders(trained, cutouts, tmp_path):
    model, _ = checkpoint.load_model(checkpoint.find(trained))
    image, _, conditions = map(torch.from_numpy, cutouts)
    first, second = (
        recorded.to_bytes(recorded.record(program_of(model), image, conditions)) for _ in range(2)
    )
    assert first == second
    with zipfile.ZipFile(io.BytesIO(first)) as archive:
        names = archive.namelist()
        graph = archive.read(next(name for name in names if name.endswith("model.json")))
    assert b"mmae" not in graph
    assert b".py" not in graph


@pytest.mark.slow
def test_a_bundle_is_made_and_used_without_torchscript(
    trained, bundle, tile, without_script, tmp_path, monkeypatch
):
    out = tmp_path / "bundle"
    export.main(export.Export(trained, out=out))
    files = set(json.loads((out / CARD).read_text())["files"])
    assert {path.suffix for path in out.iterdir()} == {".json", ".npy", ".pt2"}
    assert files >= {RECORDED[FP32]}
    with pytest.raises(UsageError, match=r"use a Python before 3\.14"):
        open_bundle(out, FP32, Masking(0.25))
    found = []
    for model in (out, bundle):
        folder = tmp_path / model.parent.name / "catalogue"
        run = subprocess.run(
            command(tile, model, "--precision", FP32, "--out", str(folder)), capture_output=True, text=True
        )
        assert run.returncode == cli.OK, run.stderr
        found.append(Table.read(folder / "rubin_tile.photoz.fits", hdu=1))
    assert found[0]["OBJECT_ID"].tolist() == found[1]["OBJECT_ID"].tolist()
    np.testing.assert_allclose(found[0]["PHOTOZ_BEST"], found[1]["PHOTOZ_BEST"], atol=1e-3)


def changed(source, path, change):
    """A recorded program whose graph was changed as text, or that holds a file more."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("models/model.json") and isinstance(change, tuple):
                assert change[0] in content.decode()
                content = content.decode().replace(*change, 1).encode()
            new.writestr(name, content)
        if isinstance(change, str):
            new.writestr(change, b"code")
    return path


HOSTILE = {
    "an operator that writes files": ("torch.ops.aten.isnan.default", "torch.ops.aten.save.default"),
    "a function of Python": ("torch.ops.aten.isnan.default", "os.system"),
    "a size that is computed by code": ("Symbol('s", "__import__('os').system('touch made') or Symbol('s"),
    "a guard that is code": ("L['image'].size()[0] == ", "__import__('os').system('touch made') == "),
    "inputs of another class": ('\\"builtins.dict\\"', '\\"os.Call\\"'),
    "a pickle": "archive/data/constants/custom_obj_0",
    "a library": "archive/data/aotinductor/model/model.so",
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_could_do_more_than_arithmetic_is_refused(bundle, tmp_path, monkeypatch, change):
    monkeypatch.chdir(tmp_path)
    path = changed(bundle / RECORDED[FP32], tmp_path / "program.pt2", change)
    with pytest.raises(InputRefused, match="take it from those whose code you would run"):
        recorded.open_recorded(path)
    assert not (tmp_path / "made").exists()
    path.write_bytes(b"no archive")
    with pytest.raises(InputRefused, match="is no recorded program"):
        recorded.open_recorded(path)


def test_weights_of_another_shape_are_not_taken(bundle):
    path = bundle / RECORDED[FP32]
    state = open_bundle(bundle, FP32).load(CPU).state_dict()
    state["temperature"] = 2 * state["temperature"]
    other = recorded.with_state(path, state).state_dict
    torch.testing.assert_close(other["program.temperature"], state["temperature"])
    torch.testing.assert_close(other["program.head.0.weight"], state["head.0.weight"])
    state["levels"] = torch.zeros(2, 1)
    assert recorded.with_state(path, state) is None
    assert recorded.with_state(path.with_name("none.pt2"), state) is None
