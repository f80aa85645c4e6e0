"""The text encoder of CLIP (arXiv 2103.00020) as Stable Diffusion 3 uses it: all tokens before the last layer, and the
projected end token after it. Padding takes part, behind the end token.

Parameters have the names of checkpoints. Shape letters: B batch, N tokens, D width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.engine.tensors import TensorSpec
from worldrt.export.graphs import GraphSource
from worldrt.export.modules.attention import split_heads
from worldrt.export.modules.padded import IDS, MASK, pad_ids
from worldrt.export.modules.tensors import cast

EPS = 1e-5


@dataclass(frozen=True)
class CLIPConfig:
    """Shape of the encoder; CLIP-L by default. `quick`: GELU as x sigmoid(1.702 x). `padding` follows the end."""

    layers: int = 12
    width: int = 768
    heads: int = 12
    feed_forward: int = 3072
    projection: int = 768
    quick: bool = True
    vocabulary: int = 49408
    tokens: int = 77
    padding: int = 49407


class SelfAttention(nn.Module):
    """Each token sees itself and those before it."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.k_proj, self.v_proj, self.q_proj, self.out_proj = (nn.Linear(config.width, config.width) for _ in range(4))

    def forward(self, x_BND: Tensor) -> Tensor:
        q, k, v = (split_heads(proj(x_BND), self.heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))
        return out


class MLP(nn.Module):
    """Two linear layers."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.feed_forward)
        self.fc2 = nn.Linear(config.feed_forward, config.width)
        self.quick = config.quick

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        out: Tensor = self.fc2(h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h))
        return out


class Layer(nn.Module):
    """Attention and feed-forward layers, each after its norm."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.self_attn, self.mlp = SelfAttention(config), MLP(config)
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(config.width, eps=EPS) for _ in range(2))

    def forward(self, x_BND: Tensor) -> Tensor:
        x_BND = x_BND + self.self_attn(self.layer_norm1(x_BND))
        out: Tensor = x_BND + self.mlp(self.layer_norm2(x_BND))
        return out


class Embeddings(nn.Module):
    """Of tokens and of their places."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(config.vocabulary, config.width)
        self.position_embedding = nn.Embedding(config.tokens, config.width)

    def forward(self, ids_BN: Tensor) -> Tensor:
        """All `tokens` of them."""
        embedded: Tensor = self.token_embedding(ids_BN)
        return embedded + self.position_embedding.weight


class Encoder(nn.Module):
    """The layers."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))


class TextModel(nn.Module):
    """What checkpoints call `text_model`."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.embeddings, self.encoder = Embeddings(config), Encoder(config)
        self.final_layer_norm = nn.LayerNorm(config.width, eps=EPS)


class CLIPEncoder(nn.Module):
    """Token ids to float32 embeddings (B, tokens, D) and a pooled one (B, P)."""

    def __init__(self, config: CLIPConfig) -> None:
        super().__init__()
        self.config = config
        self.text_model = TextModel(config)
        self.text_projection = nn.Linear(config.width, config.projection, bias=False)

    def forward(self, ids_BN: Tensor, mask_BN: Tensor) -> tuple[Tensor, Tensor]:
        """int64 ids that close with the end token, and a float32 mask: 0 makes an id padding."""
        count = self.config.tokens
        x = self.text_model.embeddings(pad_ids(ids_BN, mask_BN, count, self.config.padding))
        *before, last = self.text_model.encoder.layers
        for layer in before:
            x = layer(x)
        mask = F.pad(mask_BN, (0, count + 1 - mask_BN.shape[1]))
        end = mask[:, :-1] - mask[:, 1:]  # 1 at the last token alone
        final = self.text_model.final_layer_norm(last(x))
        pooled = self.text_projection((final * cast(end, x.dtype).unsqueeze(-1)).sum(dim=1))
        return cast(x, torch.float32), cast(pooled, torch.float32)


def clip_graph(config: CLIPConfig, dtype: str = "float32", device: str = "meta") -> GraphSource:
    """`encode`: ids and mask to text embeddings and a pooled one."""
    with torch.device(device):
        encoder = CLIPEncoder(config).to(getattr(torch, dtype))
    text = TensorSpec("text", "float32", ("batch", config.tokens, config.width))
    pooled = TensorSpec("pooled", "float32", ("batch", config.projection))
    weights = {name: name for name, _ in encoder.named_parameters()}
    return GraphSource("encode", encoder, (IDS, MASK), (text, pooled), weights)
