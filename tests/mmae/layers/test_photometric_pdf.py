"""p(z) from photometry alone: what a set of bands says, and what teaches its network."""

import math
from dataclasses import replace

import torch

from catalogs.products.screen import LEAST_BANDS
from mmae.layers.conditions import unknown
from mmae.layers.photometric_pdf import NETWORKS, shares
from mmae.layers.photometry import set_of, sets_of
from mmae.models.mmae import Model
from tests.conftest import TINY


def outputs(model, image):
    rows = len(image)
    whole, none = torch.zeros(rows, 64, dtype=torch.bool), torch.ones(rows, 48, dtype=torch.bool)
    return model(image, torch.zeros(rows, 1296), whole, none, torch.full((rows,), 0.5))


def test_a_galaxy_teaches_every_set_what_it_would_say_without_the_other_bands():
    """Its photometry for a set of bands is that of its image with the others removed; so are the logits."""
    torch.manual_seed(0)
    model = Model(replace(TINY["mmae"], own_light=False))  # which other bands tell
    image = torch.randn(60, 5, 64, 64) + torch.randn(60, 5, 1, 1).exp()
    model.fit(image, unknown(image), [1.0] * 5, torch.full((60,), math.nan))
    for parameter in model.photometric_pdf.parameters():  # as after some training
        parameter.data += 0.1 * torch.randn_like(parameter)
    image = image[:3].clone()
    image[1, 2] = math.nan
    of_sets = outputs(model.train(), image)
    photometric = of_sets.photometric.unflatten(1, (2**5 - 5 - 1, NETWORKS)).mean(2)
    weights = of_sets.weights.unflatten(1, (-1, NETWORKS)).sum(2)
    torch.testing.assert_close(weights[::2].sum(1), torch.ones(2))
    model.eval()
    for place, number in enumerate(model.photometric_pdf.numbers.tolist()):
        members = set_of(number, 5)
        assert members.sum() >= LEAST_BANDS
        alone = outputs(model, image.masked_fill(~members[:, None, None], math.nan))
        assert alone.photometric.shape[1] == 0
        whole = ~image.isnan().flatten(2).any(2)[:, members].any(1)
        assert (weights[:, place] > 0).tolist() == whole.tolist()
        # the trunk begins with no correction
        torch.testing.assert_close(photometric[whole, place], alone.logits[whole])


def test_what_a_gpu_computes_row_by_row_is_what_is_computed_set_by_set():
    """With rows that no network is for: of one band, and of none."""
    torch.manual_seed(0)
    model = Model(TINY["mmae"]).photometric_pdf.requires_grad_(False)
    for parameter in model.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    bands = torch.arange(32).repeat(3)
    measured = torch.randn(len(bands), model.measured + 5)
    conditions = torch.randn(len(bands), model.heard.shape[1] - model.measured)
    features = torch.cat([measured[:, : model.measured], conditions], 1)
    by_rows = model.of_rows(features, model.place[bands])
    torch.testing.assert_close(by_rows, model(measured, conditions, bands))
    assert (by_rows.abs().sum(1) > 0).sum() == 3 * (2**5 - 5 - 1)


def test_half_of_the_weight_is_that_of_all_bands_of_surveys():
    numbers = torch.tensor([0b011, 0b101, 0b110, 0b111])
    observed = torch.tensor([[True, True, True], [True, False, True], [False, False, True]])
    there = (observed | ~sets_of(numbers, 3).unsqueeze(1)).all(2)
    assert shares(there, [3]).tolist() == [[0.125, 0.125, 0.125, 0.625], [0, 0.125, 0, 0], [0, 0, 0, 0]]
    of_two_surveys = [[0.125, 0.375, 0.125, 0.375], [0, 0.375, 0, 0], [0, 0, 0, 0]]
    assert shares(there, [3, 1]).tolist() == of_two_surveys


def test_the_trunk_does_not_teach_photometry():
    """What corrects it must not bend it: the gradient of p(z) itself does not reach it."""
    torch.manual_seed(0)
    model = Model(TINY["mmae"]).train()
    outputs(model, torch.randn(4, 5, 64, 64)).logits.square().sum().backward()
    assert all(parameter.grad is None for parameter in model.photometric_pdf.parameters())
    assert model.head[2].weight.grad.abs().max() > 0
