"""p(z) stretched by what an object is: blue and red galaxies of one width of p(z) have errors of two.

The CDF F of p(z) becomes 1 - (1 - F^a)^b (Kumaraswamy 1980, J. Hydrol. 46, 79), a and b being exponentials of
a quadratic form in the width of p(z), its mean, two colours and a magnitude. That is fitted to make the PIT
of galaxies likely to be uniform; where there are few of them it stays close to a = b = 1, which is F.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmae.layers.pdf import cumulative, entropy
from mmae.layers.photometry import sets_of

FEATURES = 5
TERMS = 1 + FEATURES + FEATURES * (FEATURES + 1) // 2
"""Of the quadratic form: a constant, the features, their products."""
MOST_FEATURE, MOST_LOG = 3.0, 1.2
"""Bounds of a feature, in units of its scatter, and of ln a and ln b: nothing is extrapolated far."""
PRIOR = 90.0
"""Weight of the square of a term beside the sum of log likelihoods: how many galaxies it takes to move it."""
FEWEST = 50
"""Galaxies that say anything at all."""
EDGE = 1e-4
"""PIT nearer to 0 or 1 than this counts as this: F is flat there."""


class Terms(NamedTuple):
    """What is fitted to one set of bands at one depth."""

    centre: Tensor
    """(5,) mean of the features"""
    scale: Tensor
    """(5,) their scatter"""
    weights: Tensor
    """(TERMS, 2) of ln a and ln b"""

    @classmethod
    def none(cls) -> "Terms":
        """Those that leave p(z) as it is."""
        return cls(torch.zeros(FEATURES), torch.ones(FEATURES), torch.zeros(TERMS, 2))


class Stretch(nn.Module):
    """The stretch of every set of bands; of S sets, and S more where columns are known."""

    places: Tensor
    """(S, 3), the first, the middle and the last band of a set"""
    centre: Tensor
    """(2, S, 5), as deep as the training set and with the most noise"""
    scale: Tensor
    weights: Tensor
    """(2, S, TERMS, 2)"""
    x: Tensor
    """(K,) ln(1 + z) of the bins"""
    left: Tensor
    right: Tensor
    """Places of the factors of the products of features."""

    def __init__(self, bands: int, bins: int, step: float, sets: int):
        super().__init__()
        self.most_feature, self.most_log = MOST_FEATURE, MOST_LOG
        places = [three_of(seen) for seen in sets_of(torch.arange(2**bands), bands)]
        self.register_buffer("places", torch.tensor(places).repeat(sets // 2**bands, 1))
        self.register_buffer("x", step * (torch.arange(bins) + 0.5))
        for name, values in Terms.none()._asdict().items():
            self.register_buffer(name, values.expand(2, sets, *values.shape).clone())
        rows, columns = torch.triu_indices(FEATURES, FEATURES)
        self.register_buffer("left", rows)
        self.register_buffer("right", columns)

    def forward(self, mass: Tensor, central: Tensor, sets: Tensor, shallow: Tensor) -> Tensor:
        """p(z) (B, K) of objects with magnitudes (B, bands) as from `Photometry.central`.

        sets (B,): as of ImagePdf.calibrated; shallow (B,): from `ImagePdf.way`.
        """
        share = shallow.view(-1, 1)
        centre = between(self.centre.index_select(1, sets), share)
        scale = between(self.scale.index_select(1, sets), share)
        weights = between(self.weights.index_select(1, sets), share.unsqueeze(2))
        terms = self.terms((self.features(mass, central, sets) - centre) / scale)
        return stretched(
            mass, (terms.unsqueeze(2) * weights).sum(1).clamp(-self.most_log, self.most_log).exp()
        )

    @torch.jit.ignore
    def by(self, fitted: Terms, mass: Tensor, central: Tensor, number: int) -> Tensor:
        """p(z) (N, K) of objects in one set of bands by what was fitted to it."""
        features = self.features(mass, central, torch.full((len(mass),), number))
        terms = self.terms((features - fitted.centre) / fitted.scale)
        return stretched(mass, (terms @ fitted.weights).clamp(-MOST_LOG, MOST_LOG).exp())

    def features(self, mass: Tensor, central: Tensor, sets: Tensor) -> Tensor:
        """Width and mean of p(z), magnitude, two colours: (B, 5)."""
        first, middle, last = central.gather(1, self.places.index_select(0, sets)).unbind(1)
        mean = (mass * self.x).sum(1)
        return torch.stack([entropy(mass), mean, middle, middle - first, last - middle], 1)

    def terms(self, features: Tensor) -> Tensor:
        """Of standard features (B, 5): (B, TERMS)."""
        x = features.clamp(-self.most_feature, self.most_feature)
        products = x.index_select(1, self.left) * x.index_select(1, self.right)
        return torch.cat([torch.ones_like(x[:, :1]), x, products], 1)


def between(fitted: Tensor, share: Tensor) -> Tensor:
    """What was fitted at two depths (2, ...), the way between them that images are."""
    return torch.lerp(fitted[0], fitted[1], share)


def three_of(seen: Tensor) -> list[int]:
    """The first, the middle and the last of the bands (bands,) of a set; band 0 for an empty one."""
    bands: list[int] = seen.nonzero()[:, 0].tolist() or [0]
    return [bands[0], bands[len(bands) // 2], bands[-1]]


def stretched(mass: Tensor, shape: Tensor) -> Tensor:
    """p(z) (B, K) whose CDF F is 1 - (1 - F^a)^b; shape (B, 2): a and b.

    Where F is near 1, what is above it is summed from above: if b is 0.3, an error of 1e-7 becomes one of a
    hundredth.
    """
    below, above = cumulative(mass), cumulative(mass.flip(1)).flip(1)
    total = below[:, -1:]
    log = torch.where(below < above, (below / total).log(), (-above / total).clamp(min=-1).log1p())
    a, b = shape[:, :1], shape[:, 1:]
    return (-(log * a).expm1()).pow(b).diff(dim=1).neg().clamp(min=0)


def fit(stretch: Stretch, mass: Tensor, central: Tensor, number: int, pit: Tensor) -> Terms:
    """Fit the stretch of a set of bands to the PIT (N,) of galaxies with p(z) (N, K) and magnitudes.

    By the likelihood of the PIT, whose density is that of a uniform quantity that was stretched.
    """
    if len(mass) < FEWEST:
        return Terms.none()
    features = stretch.features(mass, central, torch.full((len(mass),), number))
    centre, scale = features.mean(0), features.std(0).clamp(min=1e-3)
    terms = stretch.terms((features - centre) / scale).double()
    u = pit.double().clamp(EDGE, 1 - EDGE)
    weights = torch.zeros(TERMS, 2, dtype=torch.float64)
    optimiser = torch.optim.LBFGS([weights], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        total, weights.grad = unlikelihood(weights, terms, u)
        return total

    with torch.inference_mode(False), torch.no_grad():
        optimiser.step(loss)
    return Terms(centre, scale, weights.float())


def unlikelihood(weights: Tensor, terms: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
    """Minus the log likelihood of the PIT u (N,) and of weights (TERMS, 2) before it was seen; its gradient.

    The density of u is a b u^(a-1) (1 - u^a)^(b-1). Its derivatives are written out: torch's own take two to
    four times as long, and a bundle has hundreds of fits.
    """
    exponents = terms @ weights
    log_a, log_b = exponents.clamp(-MOST_LOG, MOST_LOG).unbind(1)
    a, b, log_u = log_a.exp(), log_b.exp(), u.log()
    power = u**a
    log_rest = torch.log1p(-power)
    likelihood = log_a + log_b + (a - 1) * log_u + (b - 1) * log_rest
    by_log_a = 1 + a * log_u * (1 - (b - 1) * power / (1 - power))
    by_log_b = 1 + b * log_rest
    slopes = torch.stack([by_log_a, by_log_b], 1) * (exponents.abs() < MOST_LOG)
    prior = PRIOR * weights
    prior[0] = 0.0
    return (prior * weights).sum() - likelihood.sum(), 2 * prior - terms.T @ slopes
