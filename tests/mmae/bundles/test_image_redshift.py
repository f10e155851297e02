"""The specialised graph is the full model: to the rounding of float64, whatever the weights and the mask."""

import pytest
import torch
from shaken import images, shaken

from mmae.bundles.image_redshift import ImageRedshift
from mmae.models.himes2025 import Himes2025Config

CONFIGS = {
    "the paper's": Himes2025Config(),
    "shallow": Himes2025Config(embed_dim=24, depth=1, fusion_depth=1, heads=3),
    "no fusion": Himes2025Config(embed_dim=16, depth=2, fusion_depth=0, heads=1),
    "narrow heads": Himes2025Config(embed_dim=16, depth=1, fusion_depth=4, heads=16),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def model(request):
    return shaken(request.param)


def full(model, image, hidden):
    """The model's redshift, spectrum hidden; hidden (B, 64) bool, True = hidden."""
    spectrum = torch.randn(len(image), 259, dtype=torch.float64)
    return model(image, spectrum, hidden, torch.ones(len(image), 32, dtype=torch.bool)).point


@torch.no_grad()
def test_whole_images(model):
    image = images()
    expected = full(model, image, torch.zeros(len(image), 64, dtype=torch.bool))
    assert expected.std() > 1e-3
    assert (ImageRedshift(model)(image).point - expected).abs().max() < 1e-10


@pytest.mark.parametrize("number", [48, 16, 1, 0])
@torch.no_grad()
def test_hidden_tokens_are_one_token(model, number):
    """Other tokens are hidden of each image, in no order."""
    image = images()
    visible = torch.rand(len(image), 64, generator=torch.Generator().manual_seed(6)).argsort(1)[:, :number]
    hidden = torch.ones(len(image), 64, dtype=torch.bool).scatter(1, visible, False)
    expected = full(model, image, hidden)
    assert (ImageRedshift(model)(image, visible).point - expected).abs().max() < 1e-10
