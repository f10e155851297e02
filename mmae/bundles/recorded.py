"""A program as torch.export records it, for what TorchScript does not run on: Python 3.14 and later.

It computes what the TorchScript program does, on any number of rows, and hides nothing of an image. What it
records is for any device; on a CPU oneDNN multiplies, as there (linear.py).
"""

import io
import json
import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.export.passes import move_to_device_pass
from torch.fx import GraphModule

from catalogs.errors import InputRefused
from mmae.bundles.operators import ADVICE, OPERATORS
from mmae.bundles.program import Program
from mmae.layers.conditions import unknown
from mmae.layers.linear import affine, product
from mmae.models.output import Estimate

PREFIX = "program."
"""Of the names of weights."""
ROWS = Dim("rows", min=2, max=2**20)
ONLY_IN_RECORDS = {"_assert_tensor_metadata", "rsub", "sym_size"}
"""Operators of recorded programs that TorchScript has no need of."""
SIZE = re.compile(r"(Symbol\('s\d+', (positive=True, )?integer=True\)|Integer\(-?\d+\)|Mul|Add|[(), ])+")
"""All that a size may be computed by: torch evaluates it as Python."""
LENGTHS = "L['image'].size()[0]", "L['conditions'].size()[0]"
GUARDS = {" == ".join(LENGTHS), " == ".join(reversed(LENGTHS))}
"""All that may be asked of the inputs, for the same reason."""
OPERATOR = re.compile(r"torch\.ops\.aten\.(\w+)\.\w+")
TYPE, PLAIN = re.compile(r'"type": ([^,]+)'), {'"builtins.tuple"', '"builtins.dict"', "null"}
"""Kinds of inputs and outputs."""
PARTS = re.compile(
    r"[^/]+/(models/model\.json|data/(weights/weight|constants/tensor)_\d+|data/\w+/model_\w+_config\.json"
    r"|data/sample_inputs/model\.pt|archive_\w+|byteorder|\.data/\w+)"
)
"""All that is in the file: no pickles, libraries, or objects with code of their own."""


class Whole(nn.Module):
    """A program for whole images, whose estimates are a plain tuple."""

    def __init__(self, program: Program):
        super().__init__()
        self.program = program

    def forward(self, image: Tensor, conditions: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.program(image, None, conditions))


class Recorded(nn.Module):
    """A recorded program that is called as the others are."""

    def __init__(self, program: nn.Module):
        super().__init__()
        self.program = program

    def forward(self, image: Tensor, visible: None = None, conditions: Tensor | None = None) -> Estimate:
        """Estimates from whole images; `visible` is for other programs."""
        assert visible is None
        return Estimate(*self.program(image, unknown(image) if conditions is None else conditions))


def record(program: Program, image: Tensor, conditions: Tensor) -> ExportedProgram:
    """Record a program as it runs on images (N, bands, 64, 64) and conditions (N, size)."""
    rows = {"image": {0: ROWS}, "conditions": {0: ROWS}}
    twice = torch.cat([image, image]), torch.cat([conditions, conditions])  # a size of 1 would stay 1
    recorded = torch.export.export(Whole(program), twice, dynamic_shapes=rows)
    recorded.example_inputs = None  # images of galaxies have no place in it
    for node in recorded.graph.nodes:  # nor have the folders of this machine
        for name in ("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack"):
            node.meta.pop(name, None)
    return recorded


def to_bytes(recorded: ExportedProgram) -> bytes:
    """The file of a recorded program: the same bytes for the same program."""
    file = io.BytesIO()
    with warnings.catch_warnings():  # of weights that share memory: they are written once
        warnings.filterwarnings("ignore", "No complete tensor found")
        torch.export.save(recorded, file)
    return file.getvalue()


def open_recorded(path: Path) -> ExportedProgram:
    """Read what `to_bytes` made; raises InputRefused for one that could do more than arithmetic."""
    check_recorded(path)
    return torch.export.load(path)


def with_state(path: Path, state: Mapping[str, Tensor]) -> ExportedProgram | None:
    """A recorded program with other weights; None where there is none, or they are of another shape."""
    if not path.is_file():
        return None
    recorded = open_recorded(path)
    for name, values in recorded.state_dict.items():
        given = state[name.removeprefix(PREFIX)]
        if given.shape != values.shape:
            return None
        values.copy_(given)
    return recorded


def runnable(recorded: ExportedProgram, device: torch.device) -> Recorded:
    """The program on a device."""
    module = move_to_device_pass(recorded, device).module(check_guards=False)
    return Recorded(by_onednn(module) if device.type == "cpu" else module)


def by_onednn(module: GraphModule) -> GraphModule:
    """Multiply by the functions of linear.py, in place: a row must not depend on its place in the batch."""
    for node in list(module.graph.nodes):
        if node.target is not torch.ops.aten.linear.default:
            continue
        following = next(iter(node.users))
        gelu = len(node.users) == 1 and following.target is torch.ops.aten.gelu.default
        with module.graph.inserting_before(node):
            if len(node.args) == 2:
                instead = module.graph.call_function(product, node.args)
            else:
                instead = module.graph.call_function(affine, (*node.args, gelu))
        replaced = following if gelu else node
        replaced.replace_all_uses_with(instead)
        module.graph.erase_node(replaced)
        if gelu:
            module.graph.erase_node(node)
    module.recompile()
    return module


def check_recorded(path: Path) -> None:
    """Raises InputRefused for a file that torch would run code of, or with an operator that ours have not."""
    allowed = set(OPERATORS["aten"].split()) | ONLY_IN_RECORDS
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            pickled = [name for name in names if name.endswith(".pt") and archive.getinfo(name).file_size]
            strange = [name for name in names if not PARTS.fullmatch(name)] + pickled
            if strange or len(set(names)) < len(names):
                raise InputRefused(f"{path} holds more than a program, {strange}: {ADVICE}")
            described = [json.loads(archive.read(name)) for name in names if name.endswith(".json")]
    except (zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InputRefused(f"{path} is no recorded program ({error}): {ADVICE}") from None
    for key, value in _entries(described):
        if key == "target" and not ((found := OPERATOR.fullmatch(value)) and found[1] in allowed):
            raise InputRefused(f"{path} uses the operator {value}, as no model of ours: {ADVICE}")
        if key == "expr_str" and not SIZE.fullmatch(value):
            raise InputRefused(f"{path} computes a size by {value!r}, as no model of ours: {ADVICE}")
        if key == "use_pickle" and value:
            raise InputRefused(f"{path} would run code when it is loaded (use_pickle): {ADVICE}")
        if key in ("in_spec", "out_spec") and not set(TYPE.findall(value)) <= PLAIN:
            raise InputRefused(f"{path} takes or gives {value}, as no model of ours: {ADVICE}")
        if key == "guards_code" and not set(value) <= GUARDS:
            raise InputRefused(f"{path} asks {value} of its inputs, as no model of ours: {ADVICE}")


def _entries(part: Any) -> list[tuple[str, Any]]:
    """All names and values anywhere in a tree of JSON."""
    found: list[tuple[str, Any]] = []
    left = [part]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            found += part.items()
            left += part.values()
        elif isinstance(part, list):
            left += part
    return found
