"""The released model specialised to redshifts from images: the same numbers for 55 % of the work.

Two facts make it exact in evaluation mode.

A hidden token is the zero vector, its position hidden with it. So all hidden tokens of a galaxy are one and
the same, and stay so through every layer: k of them count as one whose attention logits carry + ln k.

With the spectrum hidden whole there is but one spectrum token. Its encoding is a constant of the weights;
attention to it gives every image token the same vector; attention from it, like pooling, has one query a
galaxy, and for one query the tokens need not be projected: q . (W x) = (W' q) . x, and the mean of projected
tokens is the projected mean.

In reduced precision (rounding.py) self-attention and the feed-forward networks of the image tokens, 95 % of
the work, are in bfloat16. Embedding, residuals, norms, head, and all that happens to one token a galaxy are
not: the errors of 64 tokens are averaged, those of a single one reach the redshift whole.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmae.bundles.likeness.typicality import Typicality
from mmae.layers.linear import Linear, copied, product
from mmae.layers.patches import known_pixels, patches
from mmae.models.himes2025 import FusionBlock, Himes2025, ImageEmbedding
from mmae.models.output import Estimate


class PatchEmbedding(nn.Module):
    """The strided convolution as a matrix product: (B, 5, 64, 64) -> (B, 64, D)."""

    def __init__(self, embedding: ImageEmbedding):
        super().__init__()
        bias = embedding.proj.bias
        assert bias is not None
        self.proj = Linear(embedding.proj.weight.flatten(1), bias)
        self.pos_embed = embedding.pos_embed

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(patches(image)) + self.pos_embed


def value_of_one(attention: nn.MultiheadAttention) -> Linear:
    """What attention gives to every query where there is but one key: that token's value, projected out."""
    weight, bias = (in_proj.chunk(3)[2].double() for in_proj in in_projections(attention))
    out, dtype = copy.deepcopy(attention.out_proj).double(), attention.out_proj.weight.dtype
    return Linear((out.weight @ weight).to(dtype), out(bias).to(dtype))


def in_projections(attention: nn.MultiheadAttention) -> tuple[Tensor, Tensor]:
    """Weight (3 D, D) and bias (3 D,) of query, key and value."""
    assert attention.in_proj_weight is not None
    assert attention.in_proj_bias is not None
    return attention.in_proj_weight, attention.in_proj_bias


class OneQuery(nn.Module):
    """Attention of one query a galaxy, (B, D), to tokens (B, N, D), which are not projected -> (B, D)."""

    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        weight, bias = in_projections(attention)
        query, key, value = weight.detach().unflatten(0, (3, attention.num_heads, -1))  # (heads, d, D) each
        self.query = Linear(query.flatten(0, 1), bias.chunk(3)[0])
        key = key.transpose(1, 2).contiguous() / math.sqrt(attention.head_dim)  # (heads, D, d)
        self.key = nn.Parameter(key, requires_grad=False)
        self.value = nn.Parameter(value.clone(), requires_grad=False)
        self.value_bias = nn.Parameter(bias.detach().chunk(3)[2].clone(), requires_grad=False)
        self.out = copied(attention.out_proj)

    def forward(self, query: Tensor, tokens: Tensor, key_bias: Tensor | None) -> Tensor:
        q = self.query(query).unflatten(1, (self.key.shape[0], -1))
        probe = products(q, self.key)  # (B, heads, D); the bias of the keys would change no weight
        logits = torch.einsum("bhc,bnc->bhn", probe, tokens)
        if key_bias is not None:
            logits = logits + key_bias
        mean = torch.einsum("bhn,bnc->bhc", logits.softmax(2), tokens)
        value = products(mean, self.value).flatten(1) + self.value_bias
        return self.out(value)


def products(x: Tensor, weight: Tensor) -> Tensor:
    """A product for each head: x (B, heads, I) and weight (heads, O, I) -> (B, heads, O)."""
    return torch.stack([product(x[:, head], weight[head]) for head in range(weight.shape[0])], 1)


class SelfAttention(nn.Module):
    def __init__(self, attention: nn.MultiheadAttention):
        super().__init__()
        self.heads = attention.num_heads
        self.qkv = Linear(*in_projections(attention))
        self.out = copied(attention.out_proj)

    def forward(self, tokens: Tensor, key_bias: Tensor | None) -> Tensor:
        qkv = self.qkv(tokens).unflatten(2, (3, self.heads, -1))  # (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, d)
        if key_bias is not None:
            key_bias = key_bias.to(q.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, key_bias)
        return self.out(mixed.transpose(1, 2).flatten(2))


class FeedForward(nn.Module):
    def __init__(self, up: nn.Linear, down: nn.Linear):
        super().__init__()
        self.up, self.down = copied(up, gelu=True), copied(down)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(self.up(tokens))


class PostNorm(nn.Module):
    """What follows attention in every layer: a norm, a feed-forward network, a norm, with residuals."""

    def __init__(self, norm1: nn.LayerNorm, ffn: FeedForward, norm2: nn.LayerNorm):
        super().__init__()
        self.norm1, self.ffn, self.norm2 = norm1, ffn, norm2

    def forward(self, tokens: Tensor, attended: Tensor) -> Tensor:
        tokens = self.norm1(tokens + attended.to(tokens.dtype))
        return self.norm2(tokens + self.ffn(tokens).to(tokens.dtype))


class EncoderLayer(nn.Module):
    def __init__(self, layer: nn.TransformerEncoderLayer):
        super().__init__()
        self.attention = SelfAttention(layer.self_attn)
        self.rest = PostNorm(layer.norm1, FeedForward(layer.linear1, layer.linear2), layer.norm2)

    def forward(self, tokens: Tensor, key_bias: Tensor | None) -> Tensor:
        return self.rest(tokens, self.attention(tokens, key_bias))


class FusionLayer(nn.Module):
    """A fusion block in both directions: image tokens (B, N, D), and the one spectrum token (B, D)."""

    def __init__(self, block: nn.Module):
        super().__init__()
        assert isinstance(block, FusionBlock)
        up, _, _, down = block.ffn
        assert isinstance(up, nn.Linear)
        assert isinstance(down, nn.Linear)
        self.to_image = value_of_one(block.cross_attn)
        self.to_spectrum = OneQuery(block.cross_attn)
        # the same weights, in precisions of their own
        self.rest, self.rest_of_spectrum = (
            PostNorm(block.norm1, FeedForward(up, down), block.norm2) for _ in range(2)
        )

    def forward(self, img: Tensor, spec: Tensor, key_bias: Tensor | None) -> tuple[Tensor, Tensor]:
        to_img, to_spec = self.to_image(spec).unsqueeze(1), self.to_spectrum(spec, img, key_bias)
        return self.rest(img, to_img), self.rest_of_spectrum(spec, to_spec)


class ImageRedshift(nn.Module):
    """The redshift of an image whose spectrum is hidden whole."""

    def __init__(self, model: Himes2025):
        super().__init__()
        model = copy.deepcopy(model).eval().requires_grad_(False)
        self.embed = PatchEmbedding(model.img_embed)
        self.encoder = nn.ModuleList(map(EncoderLayer, model.img_encoder.encoder.layers))
        self.norm = model.img_encoder.norm
        self.fusion = nn.ModuleList(map(FusionLayer, model.cross_attention_layers))
        self.query = model.cls_token_img
        self.image_pool = OneQuery(model.img_pool)
        self.spectrum_pool = value_of_one(model.spec_pool)
        up, relu, down = model.redshift_head
        self.head = nn.Sequential(copied(up), relu, copied(down))
        self.typicality = Typicality(2 * model.config.embed_dim)
        hidden = torch.zeros_like(model.spec_embed.pos_embed[:, :1])  # (1, 1, D)
        self.spectrum = nn.Parameter(model.spec_encoder(hidden)[0], requires_grad=False)  # (1, D)

    def reduced(self) -> list[Linear]:
        """The layers that reduced precision is for: the matrix products of all image tokens."""
        parts: list[nn.Module] = []
        for layer in self.modules():
            if isinstance(layer, EncoderLayer):
                parts.append(layer.attention)
            if isinstance(layer, EncoderLayer | FusionLayer):
                parts.append(layer.rest.ffn)
        return [product for part in parts for product in part.children() if isinstance(product, Linear)]

    def forward(
        self, image: Tensor, visible: Tensor | None = None, conditions: Tensor | None = None
    ) -> Estimate:
        """Redshifts of images (B, 5, 64, 64), flux at the zero point of the training set; no p(z).

        conditions: are not used.

        visible (B, V), int64, V < 64: the tokens of each image that are not hidden; by default all.
        """
        image, _ = known_pixels(image)
        img = self.embed(image)
        key_bias: Tensor | None = None
        if visible is not None:
            img, key_bias = hide(img, visible)
        for layer in self.encoder:
            img = layer(img, key_bias)
        img = self.norm(img)
        spec = self.spectrum.expand(img.shape[0], -1)
        for layer in self.fusion:
            img, spec = layer(img, spec, key_bias)
        query = self.query[0].expand(img.shape[0], -1)
        pooled = self.image_pool(query, img, key_bias), self.spectrum_pool(spec)
        joint = torch.cat(pooled, 1)
        nothing = torch.zeros(joint.shape[0], 0, dtype=joint.dtype, device=joint.device)
        point = self.head(joint).squeeze(1)
        not_known = torch.full_like(point, torch.nan)
        typical = self.typicality(joint)
        return Estimate(point, nothing, joint, typical, not_known, nothing, nothing, nothing, not_known)


def hide(tokens: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """Of tokens (B, N, D) the `visible` (B, V) and one for all hidden ones; and what to add to its logits.

    Gives (B, V + 1, D) and (1, V + 1).
    """
    batch, number, width = tokens.shape
    shown = tokens.gather(1, visible.unsqueeze(2).expand(-1, -1, width))
    hidden = torch.zeros(batch, 1, width, dtype=tokens.dtype, device=tokens.device)
    multiplicity = torch.ones(1, visible.shape[1] + 1, dtype=tokens.dtype, device=tokens.device)
    multiplicity[0, -1] = number - visible.shape[1]
    return torch.cat([shown, hidden], 1), multiplicity.log()
