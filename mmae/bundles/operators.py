"""What a program may do: TorchScript has operators that touch files, so those of ours are listed.

A list of what is forbidden would have to know every operator of every version of torch.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from catalogs.errors import InputRefused

if TYPE_CHECKING:
    import torch

OPERATORS = {
    "aten": (
        "Bool Int __and__ __getitem__ __is__ __isnot__ __lshift__ __not__ abs add add_ amax any append "
        "arange bitwise_not cat clamp contiguous copy_ copysign copysign_ cumsum diff div einsum eq exp "
        "expm1 expand  expand_as flatten flip floor_divide floordiv full full_like gather ge gelu gt "
        "index_copy  index_select isnan layer_norm len lerp linear log log1p log_ lt masked_fill matmul "
        "maximum mean median minimum mul nan_to_num ne neg nonzero ones ones_like pad permute pow relu relu_ "
        "repeat_interleave  scaled_dot_product_attention scatter searchsorted select size slice "
        "softmax sort sqrt sqrt_  square squeeze stack sub sum t tensor to topk transpose unbind "
        "unflatten unsqueeze view where  xlogy zeros zeros_like"
    ),
    "mkldnn": "_is_mkldnn_bf16_supported _linear_pointwise",
    "prim": (
        "Constant GetAttr If ListConstruct ListUnpack Loop TupleConstruct TupleUnpack device dtype "
        "is_cpu is_cuda max requires_grad tolist unchecked_cast"
    ),
}
"""What our programs are made of, by namespace, in both families and precisions. None touches a file."""
RUN_BY_LOADING = (b"__setstate__", b"torch.classes", b"_hooks__")
"""Names in an archive whose code would run while it is loaded, or unseen by a look at its graphs."""
ADVICE = "a bundle is code; take it from those whose code you would run"
MAX_CODE = 2**24
"""Bytes of a file of code; ours have 20 kB."""


def check_archive(program: Path) -> None:
    """Raises InputRefused for a TorchScript archive that would run code of its own when it is loaded."""
    try:
        with zipfile.ZipFile(program) as archive:
            files = [file for file in archive.infolist() if file.filename.endswith((".py", ".pkl"))]
            if len(set(archive.namelist())) < len(archive.namelist()):
                raise InputRefused(f"{program} holds a file twice: {ADVICE}")
            for file in files:
                if file.file_size > MAX_CODE:
                    raise InputRefused(f"{program} holds {file.file_size} bytes of code: {ADVICE}")
                content = archive.read(file)
                for name in (name for name in RUN_BY_LOADING if name in content):
                    raise InputRefused(
                        f"{program} would run code when it is loaded ({name.decode()}): {ADVICE}"
                    )
    except zipfile.BadZipFile as error:
        raise InputRefused(f"{program} is no TorchScript archive ({error}): {ADVICE}") from None


def check_program(path: Path, program: "torch.jit.ScriptModule") -> None:
    """Raises InputRefused for a loaded program with an operator that none of ours has."""
    allowed = {f"{space}::{name}" for space, names in OPERATORS.items() for name in names.split()}
    compiled: list[Any] = [module._c for module in program.modules()]
    methods = [module._get_method(name) for module in compiled for name in module._method_names()]
    for operator in (each for method in methods for each in _operators(method.inlined_graph)):
        if operator not in allowed:
            raise InputRefused(f"{path} uses the operator {operator}, as no model of ours: {ADVICE}")


def _operators(block: Any) -> Iterator[str]:
    """Kinds of all nodes of a graph."""
    for node in block.nodes():
        yield str(node.kind())
        for inner in node.blocks():
            yield from _operators(inner)
