"""A step of training asks nothing of the device; to ask every few steps is as good as to ask after each."""

import copy
import json

import pytest
import torch
from conftest import TINY, recipe

from mmae import train
from mmae.models import checkpoint
from mmae.models.families import build
from mmae.training.recipe import make_optimizer
from mmae.training.runlog import METRICS
from mmae.training.state import State


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
        finite = bool(train.step(state, config, 320))
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
        monkeypatch.setitem(train.WAITING_STEPS, "cpu", steps)
        out = tmp_path / str(steps)
        train.main(recipe("mmae", survey / "train.zarr", out))
        lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
        found.append(
            [{key: line[key] for key in line if key not in ("samples_per_s", "time")} for line in lines]
        )
    assert found[0] == found[1]
    weights = [checkpoint.load(checkpoint.newest(tmp_path / str(steps)))["model"] for steps in (1, 5)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
