"""p(z) from photometry alone: a small network of its own for every set of bands.

It learns in hundreds of steps what the trunk, which sees the pixels, needs many thousand for. Which colours
there are, and what they mean, differs from set to set: one network for all sets learns none of them well. So
only the last layer is shared, and every galaxy teaches the networks of all sets of the bands that it has.
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


class PhotometricPdf(nn.Module):
    """Logits of p(z) from photometry and conditions.

    measured : number of features of `Photometry`, without those of absent bands; width : of the two hidden
        layers; surveys : numbers of the sets of bands of surveys
    """

    place: Tensor
    """(2^bands,), by the number of a set of bands: where its network is; -1: there is none"""
    numbers: Tensor
    """(S,), numbers of the sets that have one: of two bands or more"""
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
        first, second = nn.Linear(measured, width), nn.Linear(width, width)
        told = torch.zeros(width, heard.shape[1] - measured)  # 0 for most galaxies: see mmae.Embedding
        self.up = of_each(torch.cat([first.weight, told], 1), len(numbers))
        self.up_bias = of_each(first.bias, len(numbers))
        self.middle, self.middle_bias = (of_each(x, len(numbers)) for x in (second.weight, second.bias))
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
                x = affine(x, self.up[place], self.up_bias[place], gelu=True)
                x = affine(x, self.middle[place], self.middle_bias[place], gelu=True)
                logits = logits.index_copy(0, rows, affine(x, self.out, self.out_bias, gelu=False))
        return logits

    def of_rows(self, features: Tensor, places: Tensor) -> Tensor:
        """The same logits (B, K) of features (B, I) and places (B,), from weights gathered for every row.

        Nothing that is done depends on what the places are, so that a GPU need not be waited for. That takes
        0.3 MB a row, which a CPU would feel.
        """
        chosen = places.clamp(min=0)
        x = features * self.heard.index_select(0, chosen)
        up, middle = self.up.index_select(0, chosen), self.middle.index_select(0, chosen)
        x = F.gelu(torch.einsum("boi,bi->bo", up, x) + self.up_bias.index_select(0, chosen))
        x = F.gelu(torch.einsum("boi,bi->bo", middle, x) + self.middle_bias.index_select(0, chosen))
        return affine(x, self.out, self.out_bias, gelu=False).masked_fill(places.ne(chosen).unsqueeze(1), 0.0)

    def of_sets(self, measured: Tensor, conditions: Tensor) -> Tensor:
        """Logits (S, B, K) of all sets; measured (S, B, J): as from `Photometry.of_sets`."""
        features = torch.cat([measured, conditions.expand(len(measured), -1, -1)], 2)
        x = features * self.heard.unsqueeze(1)
        x = F.gelu(torch.baddbmm(self.up_bias.unsqueeze(1), x, self.up.transpose(1, 2)))
        x = F.gelu(torch.baddbmm(self.middle_bias.unsqueeze(1), x, self.middle.transpose(1, 2)))
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


def of_each(start: Tensor, sets: int) -> nn.Parameter:
    """Weights of the networks of so many sets, which begin alike."""
    return nn.Parameter(start.detach().expand(sets, *start.shape).clone())
