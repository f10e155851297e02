"""A step of training asks nothing of the device; to ask every few steps is as good as to ask after each."""

import contextlib
import copy
import json
from dataclasses import replace

import pytest
import torch
from conftest import TINY, recipe

from mmae import train
from mmae.models import checkpoint, masking
from mmae.models.batch import Batch
from mmae.models.families import build
from mmae.models.masking import Known
from mmae.training import loop
from mmae.training.drawn_masks import step_masks
from mmae.training.optimizer import make_optimizer
from mmae.training.runlog import METRICS
from mmae.training.state import State, update_average
from mmae.training.step import backward

META = torch.device("meta")
"""It has no values: whoever asks for one gets an error, where a GPU would be waited for."""
GALAXIES = 12


@pytest.mark.parametrize("preset", TINY)
def test_a_step_asks_nothing_of_the_device(preset, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # not of this device
    monkeypatch.setattr(masking, "white", lambda seeds, image: torch.zeros_like(image[: len(seeds)]))
    of_model = TINY[preset]
    if preset == "mmae":
        of_model = replace(of_model, classes=True, columns=("size",))
    columns = len(getattr(of_model, "columns", ()))
    config = recipe(preset, tmp_path, tmp_path, model=of_model, accumulate=2, wrong=0.05)
    model, average = build(of_model).to(META), build(of_model).to(META)
    spectrum = torch.zeros(GALAXIES, of_model.spectrum_length)
    batch = Batch.of_pairs(torch.ones(GALAXIES, 5, 64, 64), spectrum, torch.ones(GALAXIES))
    told = torch.cat([batch.conditions, torch.ones(GALAXIES, columns)], 1)
    batch = batch._replace(conditions=told).to(META)
    odd = torch.arange(GALAXIES) % 2 > 0
    for step in range(4):
        of_columns, bands = (odd[:, None].expand(-1, number) for number in (columns, 5))
        masks = step_masks(GALAXIES, config, step).of(Known(odd, ~odd, odd, of_columns, bands))
        losses = backward(model, batch, masks, config, masks.counts(model.loss_weights).clamp(min=1))
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
        update_average(average, model, 0.9, step + 1)
    assert losses.total.device == META


def test_a_gradient_that_is_not_finite_changes_neither_weights_nor_optimiser(tmp_path):
    torch.manual_seed(0)
    config = recipe("mmae", tmp_path, tmp_path)
    model = build(TINY["mmae"])
    optimizer = make_optimizer(model, config)
    state = State(model, None, optimizer, [group["lr"] for group in optimizer.param_groups])
    found = []
    for spoilt in (False, True, False):
        for parameter in model.parameters():
            parameter.grad = torch.randn_like(parameter)
        if spoilt:
            model.head[2].weight.grad[0, 0] = torch.nan
        before, moments = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict()["state"])
        finite = bool(loop.optimise(state, config, 320))
        weights = model.state_dict()
        same = all(torch.equal(weights[name], before[name]) for name in before)
        after = optimizer.state_dict()["state"]
        stood_still = bool(moments) and all(
            torch.equal(after[key][name], moments[key][name]) for key in after for name in after[key]
        )
        found.append((finite, same, stood_still))
    assert found == [(True, False, False), (False, True, True), (True, False, False)]
    assert state.step == 3


@pytest.mark.slow
def test_a_device_that_is_waited_for_every_few_steps_learns_and_reports_the_same(
    survey, tmp_path, monkeypatch
):
    found = []
    for steps in (1, 5):  # of 6 in an epoch
        monkeypatch.setitem(loop.WAITING_STEPS, "cpu", steps)
        out = tmp_path / str(steps)
        train.main(recipe("mmae", survey / "train.zarr", out))
        lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
        found.append(
            [{key: line[key] for key in line if key not in ("samples_per_s", "time")} for line in lines]
        )
    assert found[0] == found[1]
    weights = [checkpoint.load(checkpoint.newest(tmp_path / str(steps)))["model"] for steps in (1, 5)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
