"""A block of the diffusion transformer, cut where self-attention reads whole Q, K and V.

Shape letters: B batch, T latent frames, S tokens of one frame, L = T * S, D width, H heads, E head dimension,
F = E / 2, N text tokens, P = number of modulation parts.

Modulation depends on the noise level of a frame, so it is kept per frame (B, T, 1, D) and broadcast over its tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from worldrt.export.families.cosmos.neighbourhood import Neighbourhood
from worldrt.export.families.cosmos.rope import rotate
from worldrt.export.families.cosmos.variants import DiTConfig
from worldrt.export.families.cosmos.windows import Window
from worldrt.export.modules.attention import Heads, scaled_dot_product, split_heads

EPS = 1e-6


class Conditioning(NamedTuple):
    """Embedded noise level of each frame: `emb` (B, T, D) and `lora` (B, T, 3 D), which every modulation adds."""

    emb: Tensor
    lora: Tensor


class Modulation(nn.Module):
    """Shift, scale (and gate) of one sub-layer, adaLN with a low-rank projection."""

    def __init__(self, config: DiTConfig, parts: int = 3) -> None:
        super().__init__()
        self.parts = parts
        self.down = nn.Linear(config.width, config.adaln_rank, bias=False)
        self.up = nn.Linear(config.adaln_rank, parts * config.width, bias=False)

    def forward(self, cond: Conditioning) -> tuple[Tensor, ...]:
        """`parts` tensors (B, T, 1, D)."""
        lora = cond.lora if self.parts == 3 else cond.lora[..., : self.up.out_features]
        table: Tensor = self.up(self.down(F.silu(cond.emb))) + lora
        return table.unsqueeze(2).chunk(self.parts, dim=-1)


class Projection(nn.Module):
    """Queries, keys and values of self-attention."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(config.width, config.width, bias=False) for _ in range(3))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.head_dim, eps=EPS) for _ in range(2))

    def forward(self, x_BTSD: Tensor, cos_BLF: Tensor, sin_BLF: Tensor) -> Heads:
        x_BLD = x_BTSD.flatten(1, 2)
        q = rotate(self.norm_q(split_heads(self.to_q(x_BLD), self.heads)), cos_BLF, sin_BLF)
        k = rotate(self.norm_k(split_heads(self.to_k(x_BLD), self.heads)), cos_BLF, sin_BLF)
        return Heads(q, k, split_heads(self.to_v(x_BLD), self.heads))


class CrossAttention(nn.Module):
    """Attention from the video to the text. No mask: rows beyond the prompt are zero and take part, as in training."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.to_q = nn.Linear(config.width, config.width, bias=False)
        self.to_k, self.to_v = (nn.Linear(config.text_width, config.width, bias=False) for _ in range(2))
        self.norm_q, self.norm_k = (nn.RMSNorm(config.head_dim, eps=EPS) for _ in range(2))
        self.output = nn.Linear(config.width, config.width, bias=False)

    def forward(self, x_BLD: Tensor, text_BNC: Tensor) -> Tensor:
        q = self.norm_q(split_heads(self.to_q(x_BLD), self.heads))
        k = self.norm_k(split_heads(self.to_k(text_BNC), self.heads))
        v = split_heads(self.to_v(text_BNC), self.heads)
        attended: Tensor = self.output(scaled_dot_product(q, k, v))
        return attended


class Rest(nn.Module):
    """Self-attention, in a window where the block has one, and what follows it: its output projection, cross-attention,
    and the MLP."""

    def __init__(self, config: DiTConfig, window: Window | None = None) -> None:
        super().__init__()
        self.attend: Callable[[Tensor, Tensor, Tensor], Tensor] = scaled_dot_product
        if window is not None:
            assert config.windows is not None
            self.attend = Neighbourhood(window, config.windows.grid)
        self.output = nn.Linear(config.width, config.width, bias=False)
        self.cross_modulation = Modulation(config)
        self.cross_attention = CrossAttention(config)
        self.mlp_modulation = Modulation(config)
        self.mlp_in = nn.Linear(config.width, config.mlp_ratio * config.width, bias=False)
        self.mlp_out = nn.Linear(config.mlp_ratio * config.width, config.width, bias=False)

    def forward(self, x_BTSD: Tensor, heads: Heads, gate: Tensor, text_BNC: Tensor, cond: Conditioning) -> Tensor:
        """`gate` is the third part of the block's own modulation."""
        return self.after(x_BTSD, self.attend(*heads), gate, text_BNC, cond)

    def after(self, x_BTSD: Tensor, attended: Tensor, gate: Tensor, text_BNC: Tensor, cond: Conditioning) -> Tensor:
        """What follows self-attention; `attended` (B, L, D)."""
        x_BTSD = x_BTSD + gate * self.output(attended).view_as(x_BTSD)

        shift, scale, gate = self.cross_modulation(cond)
        attended = self.cross_attention(modulate(x_BTSD, shift, scale).flatten(1, 2), text_BNC)
        x_BTSD = x_BTSD + gate * attended.view_as(x_BTSD)

        shift, scale, gate = self.mlp_modulation(cond)
        spread: Tensor = self.mlp_out(F.gelu(self.mlp_in(modulate(x_BTSD, shift, scale))))
        return x_BTSD + gate * spread


class Block(nn.Module):
    """Modulation, projection to Q, K, V | self-attention and the rest. The bar is where the block form is cut."""

    def __init__(self, config: DiTConfig, window: Window | None = None) -> None:
        super().__init__()
        self.modulation = Modulation(config)
        self.projection = Projection(config)
        self.rest = Rest(config, window)

    def forward(self, x_BTSD: Tensor, text_BNC: Tensor, cond: Conditioning, cos_BLF: Tensor, sin_BLF: Tensor) -> Tensor:
        shift, scale, gate = self.modulation(cond)
        heads = self.projection(modulate(x_BTSD, shift, scale), cos_BLF, sin_BLF)
        x_BTSD = self.rest(x_BTSD, heads, gate, text_BNC, cond)
        return x_BTSD


def modulate(x_BTSD: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """LayerNorm without weights of its own, then the frame's scale and shift."""
    return F.layer_norm(x_BTSD, x_BTSD.shape[-1:], eps=EPS) * (1 + scale) + shift
