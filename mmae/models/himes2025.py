"""The Multi-Modal Masked Autoencoder of Himes et al. 2025, numerically the model they released.

    image    (B, 5, 64, 64) -> 64 tokens -> hide -> encoder -+                +-> pool -+
                                                             +-> 4 x fusion --+         +-> joint (B, 512)
    spectrum (B, 259)       -> 32 tokens -> hide -> encoder -+                +-> pool -+

Three heads predict the image, the spectrum and the redshift from the joint representation. Masks are boolean,
True = hidden. A hidden token is the zero vector, without its position, and stays in the sequence. Names of
modules and parameters are those of the released state_dict.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from catalogs.bands import HSC
from catalogs.ranges import check_sizes
from catalogs.store.spectra import POOL
from mmae.layers.gpu import sent
from mmae.layers.patches import IMAGE_TOKENS, PATCH, known_pixels, unpatch
from mmae.models.batch import Batch
from mmae.models.losses import hsc_loss, image_pixels, masked_mean, spectrum_pixels
from mmae.models.masking import Masks
from mmae.models.output import Output

PIXELS = len(HSC) * PATCH**2
"""Values of a patch, band after band."""


@dataclass(frozen=True)
class Himes2025Config:
    """Architecture; the defaults are the paper's (16,364,036 parameters)."""

    embed_dim: int = 256
    """Width of a token."""
    depth: int = 4
    """Layers of each encoder."""
    fusion_depth: int = 4
    """Cross-attention blocks."""
    heads: int = 8
    """Attention heads; must divide the width."""
    dropout: float = 0.1
    """Dropout rate."""

    family: ClassVar[str] = "himes2025"
    spectrum_pool: ClassVar[int] = POOL
    spectrum_length: ClassVar[int] = 259
    spectrum_patch: ClassVar[int] = 8
    spectrum_tokens: ClassVar[int] = 32
    bands: ClassVar[tuple[str, ...]] = HSC
    least_bands: ClassVar[int] = len(HSC)
    """The model takes complete images; single pixels without data are 0 to it, the mean sky."""
    hears: ClassVar[bool] = False
    classes: ClassVar[bool] = False
    columns: ClassVar[tuple[str, ...]] = ()
    grid: ClassVar[None] = None
    """There is no p(z)."""

    @property
    def joint_dim(self) -> int:
        """Width of the joint representation: image beside spectrum."""
        return 2 * self.embed_dim

    def __post_init__(self) -> None:
        check_sizes(
            {"depth": self.depth, "fusion_depth": self.fusion_depth},
            {"embed_dim": self.embed_dim, "heads": self.heads},
        )
        if self.embed_dim < 1 or self.heads < 1 or self.embed_dim % self.heads:
            raise ValueError(f"embed_dim {self.embed_dim} must be a positive multiple of heads {self.heads}")
        if self.depth < 0 or self.fusion_depth < 0 or not 0 <= self.dropout < 1:
            raise ValueError("depths must not be negative, dropout must be in [0, 1)")


class ImageEmbedding(nn.Module):
    def __init__(self, config: Himes2025Config):
        super().__init__()
        self.proj = nn.Conv2d(len(HSC), config.embed_dim, PATCH, stride=PATCH)
        self.pos_embed = nn.Parameter(torch.empty(1, IMAGE_TOKENS, config.embed_dim))

    def forward(self, image: Tensor) -> Tensor:
        tokens = self.proj(image).flatten(2).transpose(1, 2)  # (B, D, 8, 8) -> (B, 64, D)
        return tokens + self.pos_embed


class SpectrumEmbedding(nn.Module):
    def __init__(self, config: Himes2025Config):
        super().__init__()
        self.patch = config.spectrum_patch
        self.used = config.spectrum_tokens * config.spectrum_patch  # without the last 3 of 259 pixels
        self.linear = nn.Linear(config.spectrum_patch, config.embed_dim)
        self.pos_embed = nn.Parameter(torch.empty(1, config.spectrum_tokens, config.embed_dim))
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, spectrum: Tensor) -> Tensor:
        tokens = self.linear(spectrum[:, : self.used].unflatten(1, (-1, self.patch)))  # (B, 32, D)
        return self.norm(tokens + self.pos_embed)


class Dropout(nn.Dropout):
    """Dropout with 16 random bits per element on a CPU, where torch's own takes a quarter of a step."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or x.device.type != "cpu":
            return nn.functional.dropout(x, self.p, self.training)
        draws = torch.randint(-0x7FFFFFFFFFFFFFFF, 0x7FFFFFFFFFFFFFFF, (-(-x.numel() // 4),))
        bits = draws.view(torch.int16)[: x.numel()].view(x.shape)  # uniform from -2^15 to 2^15 - 1
        kept = bits >= round(self.p * 2**16) - 2**15
        return x * kept.to(x.dtype).mul_(1 / (1 - self.p))


class Encoder(nn.Module):
    def __init__(self, config: Himes2025Config):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            config.embed_dim,
            config.heads,
            4 * config.embed_dim,
            config.dropout,
            activation="gelu",
            batch_first=True,
        )
        layer.dropout = layer.dropout1 = layer.dropout2 = Dropout(config.dropout)
        self.encoder = nn.TransformerEncoder(layer, config.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(config.embed_dim)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.norm(self.encoder(tokens))


class FusionBlock(nn.Module):
    """Cross-attention, then a feed-forward network, each with a residual and a norm after it."""

    def __init__(self, config: Himes2025Config):
        super().__init__()
        width = config.embed_dim
        self.cross_attn = nn.MultiheadAttention(width, config.heads, config.dropout, batch_first=True)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), Dropout(config.dropout), nn.Linear(4 * width, width)
        )

    def forward(self, tokens: Tensor, other: Tensor) -> Tensor:
        attended, _ = self.cross_attn(tokens, other, other, need_weights=False)
        tokens = self.norm1(tokens + attended)
        return self.norm2(tokens + self.ffn(tokens))


def decoder(config: Himes2025Config, outputs: int) -> nn.Sequential:
    joint, width = 2 * config.embed_dim, config.embed_dim
    return nn.Sequential(
        nn.Linear(joint, joint),
        nn.GELU(),
        Dropout(config.dropout),
        nn.Linear(joint, width),
        nn.GELU(),
        Dropout(config.dropout),
        nn.Linear(width, outputs),
    )


class Himes2025(nn.Module):
    """The model; inference needs only `joint` and `redshift_head`."""

    def __init__(self, config: Himes2025Config = Himes2025Config()):
        super().__init__()
        self.config = config
        self.cls_token_img = nn.Parameter(torch.empty(1, 1, config.embed_dim))
        self.cls_token_spec = nn.Parameter(torch.empty(1, 1, config.embed_dim))
        self.img_embed = ImageEmbedding(config)
        self.spec_embed = SpectrumEmbedding(config)
        self.img_encoder = Encoder(config)
        self.spec_encoder = Encoder(config)
        self.cross_attention_layers = nn.ModuleList(FusionBlock(config) for _ in range(config.fusion_depth))
        self.img_pool = nn.MultiheadAttention(config.embed_dim, config.heads, batch_first=True)
        self.spec_pool = nn.MultiheadAttention(config.embed_dim, config.heads, batch_first=True)
        self.img_decoder = decoder(config, IMAGE_TOKENS * PIXELS)
        self.spec_decoder = decoder(config, config.spectrum_length)
        self.redshift_head = nn.Sequential(
            nn.Linear(2 * config.embed_dim, config.embed_dim), nn.ReLU(), nn.Linear(config.embed_dim, 1)
        )
        self.apply(initialise)
        for parameter in self.positions_and_queries():
            nn.init.normal_(parameter, std=0.02)

    def positions_and_queries(self) -> list[nn.Parameter]:
        return [self.img_embed.pos_embed, self.spec_embed.pos_embed, self.cls_token_img, self.cls_token_spec]

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """Parameter groups: positions and queries at a tenth of the rate, no decay (paper, section 4)."""
        slow = self.positions_and_queries()
        ids = {id(parameter) for parameter in slow}
        rest = [parameter for parameter in self.parameters() if id(parameter) not in ids]
        return [{"params": rest, "lr": lr}, {"params": slow, "lr": lr / 10, "weight_decay": 0.0}]

    def fit(self, image: Tensor, conditions: Tensor, noise: list[float], redshift: Tensor) -> None:
        """Do nothing: the model takes unscaled fluxes."""

    def joint(self, image: Tensor, spectrum: Tensor, image_mask: Tensor, spectrum_mask: Tensor) -> Tensor:
        """The joint representation, (B, 512).

        image (B, 5, 64, 64) flux at zero point 27; spectrum (B, 259) normalised and pooled; image_mask
        (B, 64) and spectrum_mask (B, 32) boolean, True = hidden.
        """
        (image, _), device = known_pixels(image), image.device
        img_hidden, spec_hidden = (sent(mask.unsqueeze(2), device) for mask in (image_mask, spectrum_mask))
        img = self.img_embed(image).masked_fill(img_hidden, 0.0)  # (B, 64, D)
        spec = self.spec_embed(spectrum).masked_fill(spec_hidden, 0.0)  # (B, 32, D)
        return self.fuse(self.img_encoder(img), self.spec_encoder(spec))

    def fuse(self, img: Tensor, spec: Tensor) -> Tensor:
        """Encoded tokens (B, 64, D) and (B, 32, D) -> the joint representation (B, 2 D)."""
        for block in self.cross_attention_layers:  # both directions share the weights of a block
            img, spec = block(img, spec), block(spec, img)
        batch = img.shape[0]
        query_img = self.cls_token_img.expand(batch, -1, -1)
        query_spec = self.cls_token_spec.expand(batch, -1, -1)
        pooled_img, _ = self.img_pool(query_img, img, img, need_weights=False)  # (B, 1, D)
        pooled_spec, _ = self.spec_pool(query_spec, spec, spec, need_weights=False)
        return torch.cat([pooled_img, pooled_spec], 2).squeeze(1)

    def forward(
        self,
        image: Tensor,
        spectrum: Tensor,
        image_mask: Tensor,
        spectrum_mask: Tensor,
        redshift: Tensor | None = None,
        conditions: Tensor | None = None,
    ) -> Output:
        """All outputs of the model; arguments as for `joint`. Redshift and conditions are not used."""
        joint = self.joint(image, spectrum, image_mask, spectrum_mask)
        return Output(
            image=unpatch(self.img_decoder(joint).unflatten(1, (IMAGE_TOKENS, PIXELS))),
            spectrum=self.spec_decoder(joint),
            joint=joint,
            point=self.redshift_head(joint).squeeze(1),
            logits=joint.new_zeros(len(joint), 0),
            photometric=joint.new_zeros(len(joint), 0, 0),
            weights=joint.new_zeros(len(joint), 0),
            spectype=joint.new_zeros(len(joint), 0),
            shallow=joint.new_zeros(len(joint)),
            central=joint.new_zeros(len(joint), 0),
            columns=joint.new_zeros(len(joint), 0),
        )

    def redshift(self, output: Output) -> Tensor:
        """Point estimate of the redshift, (B,): that of the scalar head."""
        return output.point

    loss_weights: ClassVar[dict[str, float]] = {"image": 0.1, "spectrum": 0.01, "redshift": 1.0}
    """Weights of the parts of the loss (paper, section 4)."""

    def losses(self, output: Output, batch: Batch, masks: Masks) -> Tensor:
        """Mean squared errors over hidden pixels of image and spectrum, and the HSC loss: (3,)."""
        pixels = image_pixels(masks.image, batch.image.shape)
        image, _ = known_pixels(batch.image)
        spectrum = spectrum_pixels(masks.target, batch.spectrum.shape[1], self.config.spectrum_patch)
        parts = (
            masked_mean((output.image - image) ** 2, pixels),
            masked_mean((output.spectrum - batch.spectrum) ** 2, spectrum),
            hsc_loss(output.point, batch.redshift, batch.right, masks.labelled),
        )
        return torch.stack(parts)


def initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out")
        assert module.bias is not None
        nn.init.zeros_(module.bias)
