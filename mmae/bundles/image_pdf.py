"""Our own model as a program for images: p(z), and nothing that only training needs.

What is hidden never enters the trunk, so there is nothing to collapse as in the paper's model
(image_redshift.py): decoder and spectrum embedding drop out, and gains and biases of the norms move into the
weights after them. In reduced precision (rounding.py) the products of all tokens are in bfloat16; residuals,
norms and head are not.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmae.bundles.likeness.backing import Backing
from mmae.bundles.likeness.colours import Colours
from mmae.bundles.likeness.typicality import Typicality
from mmae.bundles.stretch import Stretch
from mmae.layers.columns import together
from mmae.layers.conditions import SHALLOWEST, shallowness, split_told, unknown
from mmae.layers.linear import Linear, copied
from mmae.layers.own_light import own_pixels
from mmae.layers.patches import IMAGE_TOKENS, patches, pixels_of
from mmae.layers.pdf import entropy, recalibrated
from mmae.layers.photometry import RADII
from mmae.layers.transformer import Block, Embedding
from mmae.models.mmae import Model, features
from mmae.models.output import Estimate

LEAST_WAY = 0.05
"""Of shallowness, between two depths that p(z) was calibrated at: nearer ones count as one."""


def after_norm(layer: nn.Linear, norm: nn.LayerNorm, gelu: bool = False) -> Linear:
    """A layer that takes gain and bias of the norm before it into its weights."""
    return Linear(layer.weight * norm.weight, layer.bias + layer.weight @ norm.bias, gelu)


class TokenEmbedding(nn.Module):
    """Features of tokens (B, N, F) -> tokens (B, N, D), in the precision of the features."""

    def __init__(self, embedding: Embedding):
        super().__init__()
        self.up, self.down = copied(embedding.up, gelu=True), copied(embedding.down)
        self.position = embedding.position

    def forward(self, features: Tensor) -> Tensor:
        return self.down(self.up(features)).to(features.dtype) + self.position


class Layer(nn.Module):
    """A block of the trunk."""

    def __init__(self, block: nn.Module):
        super().__init__()
        assert isinstance(block, Block)
        self.qkv = after_norm(block.attention.qkv, block.norm1)
        self.out = copied(block.attention.out)
        self.up = after_norm(block.ffn.up, block.norm2, gelu=True)
        self.down = copied(block.ffn.down)
        self.head_dim: int = block.attention.head_dim

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(normed(tokens)).unflatten(2, (3, -1, self.head_dim))  # (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, d)
        mixed = attended(q, k, v).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(mixed).to(tokens.dtype)
        return tokens + self.down(self.up(normed(tokens))).to(tokens.dtype)


def attended(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention: (B, heads, N, d) each -> the same.

    In bfloat16 on a CPU two matrix products and a softmax take half of the time of torch's fused kernel.
    """
    if q.is_cuda or q.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v)
    return (q * q.shape[3] ** -0.5 @ k.transpose(2, 3)).softmax(3) @ v


def normed(tokens: Tensor) -> Tensor:
    """Mean 0 and variance 1, without gain and bias."""
    return F.layer_norm(tokens, [tokens.shape[2]])


class ImagePdf(nn.Module):
    """The p(z) of an image, its spectrum hidden."""

    temperature: Tensor
    """What logits are divided by, so that the redshifts of galaxies are likeliest (Guo et al. 2017); (2, S):
    for images as deep as those of galaxies are, and with the most noise; by the number of the set of bands
    that is seen, and 2^bands more where columns are known."""
    levels: Tensor
    """(2, S, 2, L + 1) of `pdf.recalibrated`, for a narrow p(z) and for a wide one; or none."""
    widths: Tensor
    """(2, S, 2) entropies of such p(z); between them the levels are so, too, as between the depths."""
    shallow: Tensor
    """(2, S), how shallow the galaxies were that these were fitted to: in between, they are between the two.
    Images of one survey of several, or of another than the first run had, may all be shallower than 0."""
    class_temperature: Tensor
    """(S,), as that of p(z) at the usual depth, for the probabilities of star, galaxy and quasar."""

    def __init__(self, model: Model):
        super().__init__()
        model = copy.deepcopy(model).eval().requires_grad_(False)
        self.image_embed = TokenEmbedding(model.image_embed)
        self.photometry, self.conditions = model.photometry, model.conditions
        self.photometry_embed = TokenEmbedding(model.photometry_embed)
        self.photometric_pdf = model.photometric_pdf
        self.tokens = IMAGE_TOKENS
        self.grid, self.own_light = model.config.grid, model.config.own_light
        self.noise = nn.Parameter(model.noise, requires_grad=False)
        self.layers = nn.ModuleList(map(Layer, model.blocks))
        self.norm = model.norm
        up, _, down = model.head
        self.head = nn.Sequential(copied(up, gelu=True), copied(down))
        self.class_head: nn.Module | None = None
        if model.class_head is not None:
            up, _, down = model.class_head
            self.class_head = nn.Sequential(copied(up, gelu=True), copied(down))
        self.columns, self.column_number = model.columns, len(model.config.columns)
        self.column_pdf = nn.Sequential()
        if model.columns is not None:
            first, _, second, _, last = model.column_pdf
            layers = copied(first, gelu=True), copied(second, gelu=True), copied(last)
            self.column_pdf = nn.Sequential(*layers)
        self.sets = 2 ** len(model.config.bands)
        sets = self.sets if model.columns is None else 2 * self.sets
        self.register_buffer("temperature", torch.ones(2, sets))
        self.register_buffer("shallow", torch.tensor([[0.0], [1.0]]).repeat(1, sets))
        self.register_buffer("class_temperature", torch.ones(sets))
        self.register_buffer("levels", torch.zeros(2, sets, 2, 0))
        self.register_buffer("widths", torch.tensor([0.0, 1.0]).repeat(2, sets, 1))
        self.stretch = Stretch(len(model.config.bands), self.grid.bins, self.grid.step, sets).to(
            self.noise.dtype
        )
        self.bands, self.most_shallow = len(model.config.bands), math.log(SHALLOWEST)
        self.least_way = LEAST_WAY
        self.typicality = Typicality(model.config.embed_dim)
        self.backing = Backing(self.bands)
        self.colours = Colours(len(RADII) * self.bands).to(self.noise.dtype)

    def reduced(self) -> list[Linear]:
        """The layers that reduced precision is for: the matrix products of all tokens."""
        of_tokens = (self.image_embed, self.layers)
        return [part for module in of_tokens for part in module.modules() if isinstance(part, Linear)]

    def forward(
        self, image: Tensor, visible: Tensor | None = None, conditions: Tensor | None = None
    ) -> Estimate:
        """Estimates from images (B, bands, 64, 64), flux at the zero point of the training set; NaN: no data.

        conditions (B, 2 * bands + 1), or with columns (B, 2 * bands + 1 + C); NaN, or None: not known.
        visible (B, V), int64, V < 64: the tokens of each image that are not hidden; by default all.
        """
        conditions = unknown(image) if conditions is None else conditions
        told, columns = split_told(conditions, image.shape[1], self.column_number)
        if visible is not None:
            hidden = torch.ones_like(image[:, 0, 0, : self.tokens]).scatter(1, visible, 0.0)
            image = image.masked_fill(pixels_of(hidden) > 0, torch.nan)
        light, own = own_pixels(image, self.noise, self.own_light)
        pixels, known = patches(light), patches(own)
        measured, bands, central = self.photometry(pixels, known)
        noise, circumstances = self.conditions(pixels, known, self.noise, told)
        tokens = self.image_embed(features(pixels, known, noise))
        if visible is not None:
            tokens = tokens.gather(1, visible.unsqueeze(2).expand(-1, -1, tokens.shape[2]))
        beside = torch.cat([measured, circumstances], 1)
        photometry = self.photometry_embed(beside.unsqueeze(1))
        tokens = tokens + photometry
        for layer in self.layers:
            tokens = layer(tokens)
        joint = self.norm(tokens).sum(1) / max(1, tokens.shape[1]) + photometry[:, 0]
        answer = self.head(joint)
        logits = self.photometric_pdf(measured, circumstances, bands)
        absent, depth = measured[:, -self.bands :], circumstances[:, : self.bands]
        shallow = shallowness(depth, absent, self.most_shallow)
        backing = self.backing(central, 1 - absent, bands, self.way(bands, shallow))
        if self.columns is not None:
            of_columns, any_known = self.columns(columns)
            with_columns = self.column_pdf(together(of_columns, beside, logits))
            logits = torch.where(any_known > 0, with_columns, logits)
            bands = bands + self.sets * any_known[:, 0].to(bands.dtype)
        logits = logits + answer[:, 1:]
        spectype = joint[:, :0]
        if self.class_head is not None:
            spectype = self.classified(self.class_head(joint), bands)
        mass = self.calibrated(logits, bands, shallow, central)
        typical, colours = self.typicality(joint), self.colours(measured)
        return Estimate(answer[:, 0], mass, joint, typical, backing, central, colours, spectype, shallow)

    @torch.jit.export
    def classified(self, logits: Tensor, bands: Tensor) -> Tensor:
        """Probabilities of star, galaxy and quasar from what the head says, (B, 3); bands: as below."""
        return (logits / self.class_temperature.index_select(0, bands).unsqueeze(1)).softmax(1)

    def way(self, bands: Tensor, shallow: Tensor) -> Tensor:
        """Where images are between the two depths that their set of bands was calibrated at, (B,): 0 to 1."""
        deep, shallowest = self.shallow.index_select(1, bands).unbind(0)
        return ((shallow - deep) / (shallowest - deep).clamp(min=self.least_way)).clamp(0, 1)

    @torch.jit.export
    def calibrated(self, logits: Tensor, bands: Tensor, shallow: Tensor, central: Tensor) -> Tensor:
        """p(z) from what the head says, (B, K): as wide as its errors are.

        bands (B,): numbers of the sets of bands that were seen, and 2^bands more where columns are known;
        shallow (B,): from `shallowness`; central (B, bands): as from `Photometry`.
        """
        shallow = self.way(bands, shallow)
        deep, shallowest = self.temperature.index_select(1, bands).unbind(0)
        mass = (logits / (deep + (shallowest - deep) * shallow).unsqueeze(1)).softmax(1)
        if self.levels.shape[3] == 0:
            return mass
        mass = self.stretch(mass, central, bands, shallow)
        deep, shallowest = self.widths.index_select(1, bands).unbind(0)
        narrow, wide = (deep + (shallowest - deep) * shallow.unsqueeze(1)).unbind(1)
        share = ((entropy(mass) - narrow) / (wide - narrow)).clamp(0, 1)
        deep, shallowest = self.levels.index_select(1, bands).unbind(0)
        of_narrow, of_wide = (deep + (shallowest - deep) * shallow.view(-1, 1, 1)).unbind(1)
        return recalibrated(mass, torch.lerp(of_narrow, of_wide, share.unsqueeze(1)))
