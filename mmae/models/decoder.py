"""The decoder of our own model: from the tokens that are visible to the pixels of all."""

import torch
from torch import Tensor, nn

from mmae.layers.patches import IMAGE_TOKENS, PATCH
from mmae.layers.transformer import Block
from mmae.models.mmae_config import DECODER_HEAD_DIM, ModelConfig


class Decoder(nn.Module):
    """Visible tokens at their positions, and learned ones for the hidden -> pixels of all tokens."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.decoder_dim
        self.narrow = nn.Linear(config.embed_dim, width)
        self.whole = nn.Linear(config.embed_dim, width)
        self.hidden = nn.Parameter(0.02 * torch.randn(1, IMAGE_TOKENS + config.spectrum_tokens, width))
        self.blocks = nn.Sequential(*(Block(width, DECODER_HEAD_DIM) for _ in range(config.decoder_depth)))
        self.norm = nn.LayerNorm(width)
        self.image = nn.Linear(width, len(config.bands) * PATCH**2)
        self.spectrum = nn.Linear(width, config.spectrum_patch)

    def forward(self, encoded: Tensor, indices: Tensor, joint: Tensor) -> tuple[Tensor, Tensor]:
        """encoded (B, V, D); indices (B, V) of them among 64 + 48 tokens; joint (B, D)."""
        narrow = self.narrow(encoded)
        width = narrow.shape[2]
        seen = torch.zeros(len(narrow), self.hidden.shape[1], width, dtype=narrow.dtype, device=narrow.device)
        seen = seen.scatter(1, indices.unsqueeze(2).expand(-1, -1, width), narrow)
        tokens = self.norm(self.blocks(self.hidden + seen + self.whole(joint).unsqueeze(1)))
        return self.image(tokens[:, :IMAGE_TOKENS]), self.spectrum(tokens[:, IMAGE_TOKENS:])
