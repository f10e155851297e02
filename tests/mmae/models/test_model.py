"""Our own model: its masks, and the equality of its inference program."""

import dataclasses

import pytest
import torch
from conftest import TINY
from shaken import images, shaken

from mmae.bundles.image_pdf import ImagePdf
from mmae.layers.patches import patches, unpatch
from mmae.models.masking import random_mask, turned
from mmae.models.mmae_config import ModelConfig

CONFIGS = {
    "default": ModelConfig(),
    "tiny": TINY["mmae"],
    "wide decoder": ModelConfig(embed_dim=64, depth=2, decoder_dim=64, decoder_depth=1, bins=8, z_max=1.0),
}


@pytest.fixture(scope="module", params=CONFIGS.values(), ids=CONFIGS)
def model(request):
    return shaken(request.param)


def output_of(model, image, image_mask):
    """Output of the model with the spectrum hidden."""
    spectrum = torch.randn(len(image), 1296, dtype=torch.float64)
    return model(image, spectrum, image_mask, torch.ones(len(image), 48, dtype=torch.bool))


@pytest.mark.parametrize("number", [64, 48, 1, 0])
@torch.no_grad()
def test_the_program_is_the_model(model, number):
    image, program = images(), ImagePdf(model)
    visible = torch.rand(len(image), 64, generator=torch.Generator().manual_seed(6)).argsort(1)[:, :number]
    hidden = torch.ones(len(image), 64, dtype=torch.bool).scatter(1, visible, False)
    expected = output_of(model, image, hidden)
    estimate = program(image) if number == 64 else program(image, visible)
    assert expected.logits.std() > 1e-3
    assert (estimate.point - expected.point).abs().max() < 1e-10
    assert (estimate.mass - expected.logits.softmax(1)).abs().max() < 1e-10
    assert (estimate.joint - expected.joint).abs().max() < 1e-10


@pytest.mark.slow
@torch.no_grad()
def test_a_galaxy_does_not_depend_on_the_rest_of_its_batch():
    """In a batch of galaxies with and without spectra, and in a batch of one."""
    model, image = shaken(TINY["mmae"]), images(8)
    generator = torch.Generator().manual_seed(1)
    spectrum = torch.randn(8, 1296, generator=generator, dtype=torch.float64)
    present = torch.tensor([1, 0, 0, 1, 1, 0, 1, 0]).bool()
    inputs = image, spectrum, random_mask(8, 64, 0.5), random_mask(8, 48, 0.75) | ~present[:, None]
    batch = model(*inputs)
    for row in range(8):
        single = model(*(tensor[row : row + 1] for tensor in inputs))
        for of_galaxy, of_batch in zip(single, batch, strict=True):
            torch.testing.assert_close(of_galaxy, of_batch[row : row + 1])
    other = model(image, spectrum + 1, *inputs[2:])
    same = (other.point == batch.point).tolist()
    assert same == (~present).tolist()


def test_patches_are_cut_row_by_row_and_put_back():
    image = torch.arange(2 * 5 * 64 * 64.0).view(2, 5, 64, 64)
    cut = patches(image)
    assert torch.equal(cut[1, 10].view(5, 8, 8), image[1, :, 8:16, 16:24])
    assert torch.equal(unpatch(cut), image)


def test_an_image_is_turned_into_each_of_its_eight_symmetries():
    image = torch.randn(1, 5, 64, 64).expand(8, -1, -1, -1)
    views = turned(image, torch.arange(8))
    assert torch.equal(views[0], image[0])
    assert len({view.numpy().tobytes() for view in views}) == 8
    assert torch.equal(views.sum((2, 3)), views[:1].sum((2, 3)).expand(8, -1)) or torch.allclose(
        views.sum((2, 3)), views[:1].sum((2, 3)).expand(8, -1), atol=1e-3
    )
    assert torch.equal(views[2], image[0].flip(1, 2))


@pytest.mark.parametrize(
    "wrong", [{"embed_dim": 33}, {"depth": 0}, {"bins": 1}, {"bins": 4000}, {"z_max": 0.0}]
)
def test_an_impossible_architecture_is_refused(wrong):
    with pytest.raises(ValueError, match=r"must be|at least"):
        dataclasses.replace(TINY["mmae"], **wrong)
