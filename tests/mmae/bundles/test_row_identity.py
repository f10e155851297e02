"""The bytes of a galaxy's row do not depend on where it stands in a batch, on whatever CPU.

The test that CPUs of other kinds would run: the libraries that multiply matrices are told to compute as
there. Run as a program, this file names the modules whose rows depend on their place.
"""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from shaken import images, shaken

from mmae import environment
from mmae.bundles import summary
from mmae.bundles.program import program_of
from mmae.bundles.rounding import reduce_precision
from mmae.models.himes2025 import Himes2025Config
from mmae.models.mmae_config import ModelConfig
from mmae.models.output import Estimate

BATCH = 64
CONFIGS = ModelConfig(depth=1), Himes2025Config(depth=1, fusion_depth=1)
"""As wide as those in use: which order a sum is taken in depends on its length."""
COMPUTERS = {
    "this one": {},
    "an actor": environment.WORKER,
    "MKL of old CPUs": {"MKL_CBWR": "COMPATIBLE"},
    "MKL of AVX2": {"MKL_CBWR": "AVX2"},
    "ATen of old CPUs": {"ATEN_CPU_CAPABILITY": "default"},
    "ATen of AVX2": {"ATEN_CPU_CAPABILITY": "avx2"},
    "oneDNN of old CPUs": {"ONEDNN_MAX_CPU_ISA": "SSE41"},
    "oneDNN of AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2"},
    "oneDNN of AVX-512 without bf16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE"},
}


@pytest.mark.slow
@pytest.mark.parametrize("variables", COMPUTERS.values(), ids=COMPUTERS)
def test_a_row_does_not_depend_on_its_place(variables):
    inherited = {name: value for name, value in os.environ.items() if name not in environment.WORKER}
    inherited["PYTHONPATH"] = os.pathsep.join(sys.path)
    command = [sys.executable, __file__]
    done = subprocess.run(command, env=inherited | variables, capture_output=True, text=True, check=True)
    assert done.stdout == ""


def outputs(module, *arguments):
    """What every part of a module gives for a batch, by name."""
    given = {}

    def keep(name):
        def hook(_module, _arguments, output):
            tensors = output if isinstance(output, tuple) else (output,)
            found = {f"{name}[{i}]": tensor for i, tensor in enumerate(tensors) if tensor is not None}
            given.update({name: tensor.float() for name, tensor in found.items()})  # numpy has no bfloat16

        return hook

    hooks = [part.register_forward_hook(keep(name)) for name, part in module.named_modules()]
    module(*arguments)
    for hook in hooks:
        hook.remove()
    return given


def dependent(compute, *arguments):
    """Names of what `compute` gives, as a dictionary, that depends on where a row of the arguments stands."""
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(3))
    whole, permuted = compute(*arguments), compute(*(argument[order] for argument in arguments))
    rows = {name: tensor[order] for name, tensor in whole.items() if len(tensor) == BATCH}
    assert rows
    return [name for name, tensor in rows.items() if differ(tensor, permuted[name])]


def differ(one, other):
    """Whether any bit does, even of NaN."""
    return one.numpy().tobytes() != other.numpy().tobytes()


def found_in(model, image):
    """What depends on its place in the programs of a model and, as actors compute, in the model itself."""
    exact, reduced = program_of(model), program_of(model)
    joint = exact(image).joint
    exact.typicality.fit(joint, joint)
    reduced.typicality = exact.typicality
    reduce_precision(reduced, image)
    old = {"ONEDNN_MAX_CPU_ISA": ("SSE41", "AVX2"), "ATEN_CPU_CAPABILITY": ("default", "avx2")}
    has_bf16 = not any(os.environ.get(name) in values for name, values in old.items())  # else it is not asked
    visible = torch.rand(BATCH, 64, generator=torch.Generator().manual_seed(6)).argsort(1)[:, :48]
    levels, grid = torch.linspace(0.01, 0.99, BATCH), getattr(model.config, "grid", None)

    def table(levels, *estimate):
        return {"columns": summary.table(Estimate(*estimate), grid, levels)}

    for program in (exact, reduced) if has_bf16 else (exact,):
        yield from dependent(partial(outputs, program), image)
        yield from dependent(partial(outputs, program), image, visible)
        yield from dependent(table, levels, *program(image))
    if environment.WORKER.items() <= os.environ.items():  # as `mmae embed` computes
        spectrum = torch.randn(BATCH, model.config.spectrum_length)
        tokens = 64, model.config.spectrum_tokens
        whole = (torch.zeros(BATCH, number, dtype=torch.bool) for number in tokens)
        yield from dependent(partial(outputs, model), image, spectrum, *whole, torch.zeros(BATCH))


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        for config in CONFIGS:
            for name in found_in(shaken(config).float(), images(BATCH).float()):
                print(config.family, name)
