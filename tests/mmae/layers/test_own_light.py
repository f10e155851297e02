"""Light of other sources is left out, that of the object in the middle is not."""

import numpy as np
import pytest
import torch

from mmae.layers.own_light import others, own_pixels

Y, X = np.indices((64, 64)) - 31.5


def source(x, y, flux, width):
    return flux * np.exp(-0.5 * ((X - x) ** 2 + (Y - y) ** 2) / width**2)


def image(*sources, noise=1.0, seed=0):
    """Five bands, the fluxes per pixel in units of the noise 1."""
    drawn = noise * np.random.default_rng(seed).standard_normal((1, 5, 64, 64))
    return torch.tensor(drawn + sum(source(*each) for each in sources), dtype=torch.float32)


def shone(picture):
    return others(picture, torch.ones_like(picture))[0].numpy()


@pytest.mark.parametrize("noise", [0.3, 1, 3])
def test_a_star_is_left_out_and_a_galaxy_is_not(noise):
    galaxy, star = (0, 0, 40, 3), (18, -10, 300, 2)
    alone = shone(image(galaxy, noise=noise))
    assert alone.mean() < 0.01
    beside = shone(image(galaxy, star, noise=noise))
    light = source(*star)
    assert beside[light > 30 * noise].all()
    assert not beside[np.hypot(X, Y) <= 6].any()
    assert beside.mean() < 0.2
    kept = source(*star) * ~beside
    assert kept.sum() < 0.02 * light.sum()


def test_an_inclined_galaxy_and_one_off_the_middle_by_half_a_pixel_are_kept():
    disc = 60 * np.exp(-np.hypot((X + Y) / 6, (X - Y) / 14))
    picture = image() + torch.tensor(disc, dtype=torch.float32)
    assert shone(picture).mean() < 0.01
    assert shone(image((0.5, 0.5, 40, 3))).mean() < 0.02


def test_what_has_no_data_opposite_is_kept_and_nothing_is_own_without_data():
    picture = image((0, 0, 40, 3), (18, 0, 300, 2))
    picture[:, :, :, :16] = torch.nan  # the side away from the star
    assert not others(*own(picture))[0, :, 49:].any()  # 48 is beside one with data opposite
    pixels, seen = own_pixels(picture, torch.full((5,), 2.0), True)
    assert not seen[:, :, :, :16].any()
    assert not pixels[seen == 0].any()
    torch.testing.assert_close(pixels[seen == 1], picture[seen == 1] / 2)


def own(picture):
    known = ~picture.isnan()
    return picture.nan_to_num(0.0), known.float()


def test_turned_and_flipped_images_have_turned_and_flipped_neighbours():
    """All but for the pixels that tell the noise."""
    picture = image((0, 0, 40, 3), (18, -10, 300, 2))
    found = shone(picture)
    for turned, as_found in (
        (picture.flip(3), found[:, ::-1]),
        (picture.transpose(2, 3), found.T),
        (picture.rot90(1, (2, 3)), np.rot90(found)),
    ):
        assert (shone(turned.contiguous()) != as_found).mean() < 0.01


def test_an_image_does_not_depend_on_its_company():
    pictures = torch.cat([image((0, 0, 40, 3), (15, k, 200, 2), seed=k) for k in range(5)])
    together = others(pictures, torch.ones_like(pictures))
    for k in range(5):
        assert torch.equal(together[k], others(pictures[k : k + 1], torch.ones_like(pictures[:1]))[0])
