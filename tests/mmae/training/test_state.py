"""The state of a training run: weights of another version are refused; what ranks share is in both models."""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
from conftest import TINY, recipe

from catalogs.errors import InputRefused
from mmae.models import checkpoint
from mmae.models.batch import Batch
from mmae.training import state
from mmae.training.distributed import World
from mmae.training.loop import Loop


def beginning(tmp_path):
    """A recipe, its only rank, the noise, and a sample of images."""
    config = dataclasses.replace(recipe("mmae", tmp_path / "a.zarr", tmp_path), schedule="constant")
    world, noise = World(0, 1, 0, 1, torch.device("cpu")), {"noise": [1.0] * 5}
    image = torch.randn(40, 5, 64, 64, generator=torch.Generator().manual_seed(0))
    sample = Batch.of_pairs(image, torch.zeros(40, TINY["mmae"].spectrum_length), torch.rand(40))
    return config, world, noise, sample


def test_weights_of_another_version_are_refused(tmp_path):
    """Of one before, whose photometry had a single centre."""
    config, world, noise, sample = beginning(tmp_path)
    begun = state.begin_or_resume(config, world, noise, sample)
    state.save(config, world, noise, begun, best=True)
    state.begin_or_resume(config, world, noise, sample)
    for name in ("best.pt", "mmae-00000000.pt"):
        content = checkpoint.load(tmp_path / name)
        for weights in (content["model"], content["average"]):
            weights["photometry.centre"] = weights["photometry.centre"][-1]
        checkpoint.save(tmp_path / name, content)
    with pytest.raises(InputRefused, match=r"best.pt has other weights than this version of the model"):
        checkpoint.load_model(tmp_path / "best.pt")
    with pytest.raises(InputRefused, match=r"mmae-00000000.pt has other weights"):
        state.begin_or_resume(config, world, noise, sample)


def test_averaged_weights_take_the_buffers_that_ranks_have_from_the_main_one(tmp_path):
    """DistributedDataParallel sends them to the model; what is evaluated is its average."""
    config, world, noise, sample = beginning(tmp_path)
    begun = state.begin_or_resume(config, world, noise, sample)
    for buffer in begun.model.buffers():  # as of a rank whose CPU rounds otherwise
        buffer += 1
    Loop(config, world, None, SimpleNamespace(galaxies=40), noise, begun, None, None)
    for average, own in zip(begun.average.buffers(), begun.model.buffers(), strict=True):
        assert torch.equal(average, own)
