"""p-values of representations: even, reachable, falling with the distance."""

import torch

from mmae.bundles.likeness.typicality import Typicality

SEED = torch.Generator().manual_seed(2)


def fitted(others):
    typicality = Typicality(8)
    typicality.fit(torch.randn(1000, 8, generator=SEED), torch.randn(others, 8, generator=SEED))
    return typicality


def test_few_hundred_galaxies_tell_one_in_a_thousand():
    """The demo has 356: if they were only counted, nothing could be below 1 in 357."""
    p = fitted(356)(torch.randn(100_000, 8, generator=SEED))
    assert 0.4 < (p < 0.5).float().mean() < 0.6
    assert 0.05 < (p < 0.1).float().mean() < 0.15
    assert 1e-5 < (p < 1e-3).float().mean() < 3e-3
    assert fitted(356)(torch.full((1, 8), 4.0)).item() < 1e-3


def test_p_values_fall_with_the_distance():
    p = fitted(356)(torch.linspace(0, 20, 500)[:, None] * torch.ones(8))
    assert (p.diff() <= 0).all()
    assert p[0] == 1
    assert p[-1] < 1e-4


def test_too_few_galaxies_have_no_tail():
    typicality = fitted(199)
    assert typicality.threshold.isinf()
    assert typicality(torch.full((1, 8), 99.0)).item() == torch.tensor(1 / 200)
    assert Typicality(8)(torch.zeros(1, 8)).isnan().all()
