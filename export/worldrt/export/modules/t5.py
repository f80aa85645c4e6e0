"""The T5 encoder (arXiv 1910.10683): relative position bias shared by all layers, RMS norms, no biases.

Shape letters: B batch, N tokens, D width, H heads.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.modules.attention import split_heads
from worldrt.export.modules.tensors import cast, constant

EPS = 1e-6


@dataclass(frozen=True)
class T5Config:
    """Shape of the text encoder; T5-11B by default. Prompts are cut and padded to `tokens`."""

    layers: int = 24
    width: int = 1024
    heads: int = 128
    head_dim: int = 128
    feed_forward: int = 65536
    gated: bool = False
    vocabulary: int = 32128
    buckets: int = 32
    max_distance: int = 128
    tokens: int = 512


class FeedForward(nn.Module):
    """ReLU, or the gated GELU (tanh form) of T5 1.1."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.gate = nn.Linear(config.width, config.feed_forward, bias=False) if config.gated else None
        self.wi = nn.Linear(config.width, config.feed_forward, bias=False)
        self.wo = nn.Linear(config.feed_forward, config.width, bias=False)

    def forward(self, x_BND: Tensor) -> Tensor:
        h = self.wi(x_BND)
        h = F.relu(h) if self.gate is None else h * F.gelu(self.gate(x_BND), approximate="tanh")
        out: Tensor = self.wo(h)
        return out


class Layer(nn.Module):
    """Self-attention (unscaled, with position bias) and feed-forward, each after its norm."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.heads, inner = config.heads, config.heads * config.head_dim
        self.norm_attention, self.norm_feed_forward = (nn.RMSNorm(config.width, eps=EPS) for _ in range(2))
        self.q, self.k, self.v = (nn.Linear(config.width, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, config.width, bias=False)
        self.feed_forward = FeedForward(config)

    def forward(self, x_BND: Tensor, bias_BHNN: Tensor) -> Tensor:
        h = self.norm_attention(x_BND)
        q, k, v = (split_heads(proj(h), self.heads) for proj in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias_BHNN, scale=1.0)
        x_BND = x_BND + self.o(attended.transpose(1, 2).flatten(2))
        out: Tensor = x_BND + self.feed_forward(self.norm_feed_forward(x_BND))
        return out


class T5Encoder(nn.Module):
    """Token ids to text embeddings."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_bias = nn.Embedding(config.buckets, config.heads)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.norm_out = nn.RMSNorm(config.width, eps=EPS)

    def forward(self, ids_BN: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """int64 ids and a float32 mask (1 = token, 0 = padding) to float32 (B, N, D), zero where the mask is 0.

        Without a mask all of them are tokens.
        """
        x_BND = self.embedding(ids_BN)
        bias = self._bias(ids_BN)
        if mask_BN is not None:
            hidden = (1 - mask_BN)[:, None, None, :] * torch.finfo(x_BND.dtype).min
            bias = bias + cast(hidden, x_BND.dtype)
        for layer in self.layers:
            x_BND = layer(x_BND, bias)
        text = cast(self.norm_out(x_BND), torch.float32)
        return text if mask_BN is None else text * mask_BN.unsqueeze(-1)

    def _bias(self, ids_BN: Tensor) -> Tensor:
        """(1, H, N, N): the learned bias of the bucket of each distance from query to key."""
        reach = self.config.max_distance
        index = torch.arange(ids_BN.shape[1], device=ids_BN.device)
        distance = (index[None, :] - index[:, None]).clamp(-reach, reach) + reach
        buckets = constant(distance_buckets(self.config), like=ids_BN, dtype=torch.int64)[distance]
        bias: Tensor = self.position_bias(buckets)
        return bias.permute(2, 0, 1).unsqueeze(0)


def distance_buckets(config: T5Config) -> list[int]:
    """The bucket of each distance (key minus query) from -max_distance to max_distance; beyond, the outermost.

    Half of the buckets look back, half ahead. In each half, half are exact distances and the rest grow as a logarithm.
    """
    half = config.buckets // 2
    exact = half // 2

    def bucket(distance: int) -> int:
        span = abs(distance)
        ahead = half if distance > 0 else 0
        if span < exact:
            return ahead + span
        grown = math.log(span / exact) / math.log(config.max_distance / exact) * (half - exact)
        return ahead + min(exact + int(grown), half - 1)

    return [bucket(d) for d in range(-config.max_distance, config.max_distance + 1)]
