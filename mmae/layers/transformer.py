"""A pre-norm transformer, and the embedding of its tokens."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        nn.init.zeros_(self.out.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        qkv = self.qkv(tokens).unflatten(2, (3, -1, self.head_dim))  # (B, N, 3, heads, d)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, N, d)
        return self.out(attend(q, k, v).transpose(1, 2).flatten(2))


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Scaled dot-product attention: (B, heads, N, d) each -> the same.

    Written out on a CPU: torch's fused kernel has a slow backward pass, and its unfused one searches for rows
    with all keys masked.
    """
    if q.is_cuda:
        return F.scaled_dot_product_attention(q, k, v)
    weights = (q * q.shape[3] ** -0.5) @ k.transpose(2, 3)
    return weights.softmax(3, dtype=torch.promote_types(q.dtype, torch.float32)).to(v.dtype) @ v


class FeedForward(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.up = nn.Linear(width, 4 * width)
        self.down = nn.Linear(4 * width, width)
        nn.init.zeros_(self.down.weight)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(tokens)))


class Block(nn.Module):
    """Pre-norm transformer block, initialised to the identity, so that depth does no harm at first."""

    def __init__(self, width: int, head_dim: int):
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, head_dim)
        self.norm2, self.ffn = nn.LayerNorm(width), FeedForward(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.norm1(tokens))
        return tokens + self.ffn(self.norm2(tokens))


class Embedding(nn.Module):
    """Features of tokens (B, N, F) -> tokens (B, N, D), with their positions added.

    The last features, `remarks` in number, are 0 for most galaxies: they say what is missing or unusual.
    Nothing is made of them at first, and the others begin as if they were alone.
    """

    def __init__(self, tokens: int, features: int, width: int, remarks: int = 0):
        super().__init__()
        self.up, self.down = nn.Linear(features, 2 * width), nn.Linear(2 * width, width)
        self.position = nn.Parameter(0.02 * torch.randn(1, tokens, width))
        with torch.no_grad():
            heard = features - remarks
            self.up.weight *= (features / heard) ** 0.5
            self.up.weight[:, heard:] = 0

    def forward(self, features: Tensor) -> Tensor:
        return self.down(F.gelu(self.up(features))) + self.position
