"""p(z) from photometry alone: a few small networks of their own for every set of bands.

They learn in hundreds of steps what the trunk, which sees the pixels, needs many thousand for. Which colours
there are, and what they mean, differs from set to set: one network for all sets learns none of them well. So
only the last layer is shared, and every galaxy teaches the networks of all sets of the bands that it has.

Those of a set begin with other weights, and each learns by itself, so that their errors differ; logits are
their mean (an ensemble: Lakshminarayanan et al. 2017, arXiv:1612.01474).
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from catalogs.products.screen import LEAST_BANDS
from mmae.layers.branches import are_free
from mmae.layers.conditions import features_of
from mmae.layers.linear import affine
from mmae.layers.photometry import sets_of

NETWORKS = 4
"""Networks of a set."""


class PhotometricPdf(nn.Module):
    """Logits of p(z) from photometry and conditions.

    measured : number of features of `Photometry`, without those of absent bands; width : of the two hidden
        layers of a network; surveys : numbers of the sets of bands of surveys
    """

    place: Tensor
    """(2^bands,), by the number of a set of bands: where its networks are; -1: there are none"""
    numbers: Tensor
    """(S,), numbers of the sets that have some: of two bands or more"""
    heard: Tensor
    """(S, I), 1: a feature is of the bands of the set, 0: of another"""

    def __init__(self, bands: int, measured: int, width: int, bins: int, surveys: Sequence[int]):
        super().__init__()
        self.measured = measured
        sets = sets_of(torch.arange(2**bands), bands)
        numbers = (sets.sum(1) >= LEAST_BANDS).nonzero()[:, 0]
        place = torch.full((2**bands,), -1)
        place[numbers] = torch.arange(len(numbers))
        self.wholes: list[int] = place[torch.tensor(surveys)].tolist()
        heard = torch.cat([torch.ones(len(numbers), measured), features_of(sets[numbers].float())], 1)
        for name, values in (("place", place), ("numbers", numbers), ("heard", heard)):
            self.register_buffer(name, values, persistent=False)
        told = torch.zeros(width, heard.shape[1] - measured)  # 0 for most galaxies: see mmae.Embedding
        first = [nn.Linear(measured, width) for _ in range(NETWORKS)]
        second = [nn.Linear(width, width) for _ in range(NETWORKS)]
        self.up = of_each([torch.cat([layer.weight, told], 1) for layer in first], len(numbers))
        self.middle = of_each([layer.weight for layer in second], len(numbers))
        self.up_bias, self.middle_bias = (
            of_each([layer.bias for layer in layers], len(numbers)) for layers in (first, second)
        )
        self.out, self.out_bias = nn.Linear(width, bins).parameters()

    def forward(self, measured: Tensor, conditions: Tensor, bands: Tensor) -> Tensor:
        """Logits (B, K), without gradient; 0 where there are fewer than two bands.

        measured, bands: as from `Photometry`; conditions: as from `Conditions`.
        """
        features = torch.cat([measured[:, : self.measured], conditions], 1)
        of_rows = self.place.index_select(0, bands)
        if are_free(features):
            return self.of_rows(features, of_rows)
        logits = torch.zeros(
            features.shape[0], self.out.shape[0], dtype=features.dtype, device=features.device
        )
        places: list[int] = of_rows.sort()[0].tolist()
        last = -1
        for place in places:
            if place > last:
                last = place
                rows = (of_rows == place).nonzero()[:, 0]
                x = features.index_select(0, rows) * self.heard[place]
                up, up_bias = self.up[place], self.up_bias[place]
                middle, middle_bias = self.middle[place], self.middle_bias[place]
                mean = torch.zeros_like(x[:, :1])
                for k in range(up.shape[0]):
                    inner = affine(x, up[k], up_bias[k], gelu=True)
                    mean = mean + affine(inner, middle[k], middle_bias[k], gelu=True) / up.shape[0]
                logits = logits.index_copy(0, rows, affine(mean, self.out, self.out_bias, gelu=False))
        return logits

    def of_rows(self, features: Tensor, places: Tensor) -> Tensor:
        """The same logits (B, K) of features (B, I) and places (B,), from weights gathered for every row.

        Nothing that is done depends on what the places are, so that a GPU need not be waited for. That takes
        0.2 MB a row, which a CPU would feel.
        """
        chosen = places.clamp(min=0)
        x = features * self.heard.index_select(0, chosen)
        up, middle = self.up.index_select(0, chosen), self.middle.index_select(0, chosen)
        x = F.gelu(torch.einsum("bnoi,bi->bno", up, x) + self.up_bias.index_select(0, chosen))
        x = F.gelu(torch.einsum("bnoi,bni->bno", middle, x) + self.middle_bias.index_select(0, chosen))
        return affine(x.mean(1), self.out, self.out_bias, gelu=False).masked_fill(
            places.ne(chosen).unsqueeze(1), 0.0
        )

    def of_sets(self, measured: Tensor, conditions: Tensor) -> Tensor:
        """Logits (S, M, B, K) of the M networks of all sets; measured (S, B, J): as `Photometry.of_sets`."""
        features = torch.cat([measured, conditions.expand(len(measured), -1, -1)], 2)
        x = (features * self.heard.unsqueeze(1)).unsqueeze(1)
        x = F.gelu(x @ self.up.transpose(2, 3) + self.up_bias.unsqueeze(2))
        x = F.gelu(x @ self.middle.transpose(2, 3) + self.middle_bias.unsqueeze(2))
        return F.linear(x, self.out, self.out_bias)


def shares(there: Tensor, wholes: Sequence[int]) -> Tensor:
    """Weights (B, S) of sets of bands in the loss; there (S, B): which sets a galaxy has all bands of.

    Half is that of the sets of all bands of a survey, at the places `wholes`; all share the rest alike. No
    galaxy counts more than others for a set: where those that lack bands did, the networks of such sets
    learned little.
    """
    weights = there.T / (2 * len(there))
    weights[:, wholes] += there[wholes].T / (2 * len(wholes))
    return weights


def of_each(start: Sequence[Tensor], sets: int) -> nn.Parameter:
    """Weights (S, M, ...) of the M networks of so many sets: those of a set begin as those of the others."""
    return nn.Parameter(torch.stack(list(start)).detach().expand(sets, -1, *start[0].shape).clone())
